"""Synthetic runs on disk, shaped like the sweep of the post on randomly connected layers."""

import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sparse_bench.record import Result, RunFolder

OUTSIDE = 3_700_000
SPLIT = "test"


def write_run(
    root: Path,
    *,
    scheme: str = "random_connected",
    density: float = 0.2,
    width: int = 64,
    seed: int = 0,
    metrics: dict[str, float] | None = None,
    experiment: str = "rasa/diet",
    status: str = "finished",
    settings: dict[str, Any] | None = None,
    weights: int | None = None,
    epochs: int = 12,
    history: bool = True,
    config: dict[str, Any] | None = None,
    **fields: Any,
) -> Path:
    """Write one run's folder, and return it.

    ``settings`` are merged into the configuration's sparsity group; ``config`` takes the place of all of it.
    """
    noise = random.Random(f"{scheme}-{density}-{width}-{seed}-{sorted((settings or {}).items())}")
    size = 128 * width + 24 * width**2
    if weights is None:
        weights = size if scheme == "dense" or density == 1.0 else round(density * size) + noise.randint(-5, 5)
    if scheme == "small_dense":
        size = weights
    if metrics is None:
        metrics = {
            f"{SPLIT}/intent_f1": 0.86 - 3.0 / math.sqrt(weights / density**0.4) + noise.gauss(0, 0.006),
            f"{SPLIT}/entity_f1": 0.78 - 9.0 / math.sqrt(weights / density**0.2) + noise.gauss(0, 0.010),
        }
    config = config or {
        "experiment_name": experiment,
        "seed": seed,
        "model": {"label": "diet", "transformer_size": width, "feed_forward_size": 4 * width, "layers": 2},
        "dataset": {"label": "sara", "split_seed": 0},
        "sparsity": {
            "label": scheme,
            "density": density,
            "layers": ["default"],
            "execution": "masked",
            **(settings or {}),
        },
        "optimizer": {"label": "adam", "lr": 0.001},
        "trainer": {"epochs": epochs, "evaluate_every": 1, "keep": "nothing"},
        "output": f"/somewhere/{seed}",
        "threads": 1,
    }
    identifier = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
    finished = status == "finished"
    result = Result(
        id=identifier,
        status="finished" if finished else "failed",
        experiment=experiment,
        seed=seed,
        labels={"model": "diet", "dataset": "sara", "scheme": scheme, "density": density},
        config=config,
        metrics=metrics if finished else {},
        counts={
            "sparse_layers": weights,
            "sparse_layers_size": size,
            "density": weights / size,
            "trainable": OUTSIDE + width + weights,
            "groups": {"attention": {"active": weights // 3, "size": size // 3}},
        },
        macs_per_example={"dense": 2.0 * size, "sparse": 2.0 * weights},
        seconds={"total": 100.0 + width, "train": 90.0 + width, "evaluate": 10.0},
        peak_memory_bytes=1 << 29,
        tokens_per_second=20_000.0 / width,
        examples_per_second=4_000.0 / width,
        epochs=epochs,
        steps=epochs * 25,
        versions={"python": "3.11.9", "torch": "2.6.0"},
        git={"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        data={"nlu.yml": "ab" * 32},
        machine={"processor": "Test Processor", "cores": 2, "threads": 1, "device": "cpu"},
        error=None if finished else {"type": "NonFiniteLossError", "message": "diverged", "traceback": "Traceback …"},
    )
    content = asdict(result)
    for key, value in fields.items():
        content[key] = value
    folder = root / experiment / identifier
    folder.mkdir(parents=True)
    if history:
        lines = [_entry(epoch, epochs, metrics, noise) for epoch in range(1, epochs + 1)]
        RunFolder(folder).metrics.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    RunFolder(folder).write_config("{}\n")
    RunFolder(folder).result_path.write_text(json.dumps(content))
    return folder


def _entry(epoch: int, epochs: int, metrics: dict[str, float], noise: random.Random) -> dict[str, float]:
    progress = 1 - math.exp(-5 * epoch / epochs)
    follow = {name: value * progress + noise.gauss(0, 0.004) for name, value in metrics.items()}
    return {"epoch": epoch, "step": epoch * 25, "train/loss": 5.0 * (1.05 - progress), **follow}


def write_sweep(root: Path, seeds: Sequence[int] = (0, 1, 2), epochs: int = 12) -> None:
    """Four densities over several widths, with narrower dense models as baseline."""
    grid = {1.0: (8, 16, 64, 128), 0.2: (16, 64, 128, 256), 0.05: (32, 128, 256, 512), 0.01: (64, 256, 512, 1024)}
    for seed in seeds:
        for density, widths in grid.items():
            for width in widths:
                scheme = "dense" if density == 1.0 else "random_connected"
                write_run(root, scheme=scheme, density=density, width=width, seed=seed, epochs=epochs)
        for width, density in ((128, 0.05), (128, 0.2), (256, 0.2)):
            weights = round(density * (128 * width + 24 * width**2))
            write_run(
                root, scheme="small_dense", density=density, width=width, seed=seed, weights=weights, epochs=epochs
            )


def write_one_width(root: Path, seeds: Sequence[int] = (0, 1, 2)) -> None:
    """Two schemes at three densities and one width, a dense arm and a narrower dense one."""
    for seed in seeds:
        write_run(root, scheme="dense", density=1.0, seed=seed, experiment="compare")
        for density in (0.05, 0.1, 0.3):
            for scheme in ("set", "rigl"):
                write_run(root, scheme=scheme, density=density, seed=seed, experiment="compare")
        write_run(root, scheme="small_dense", density=0.1, seed=seed, weights=10_500, experiment="compare")
