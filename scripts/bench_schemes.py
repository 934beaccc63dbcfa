"""Time a training step and an update of the topology under every sparsity scheme, on the transformer at one density.

    python scripts/bench_schemes.py --output results/performance/schemes.md

All schemes train the same model on the same batches, in turn, a step each. A step in which connections change is an
update. To see enough of them, all schemes update every few steps here; what an update adds is then spread over the
interval that each scheme has by default.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import yaml
from bench_transformer import multi30k
from interleaved import Row, Times, parse, report, timed
from torch import Tensor

from sparse_bench.config import build, choices
from sparse_bench.config.schema import CONF
from sparse_bench.errors import ConfigError
from sparse_bench.library import SparseTraining, sparsify
from sparse_bench.models.transformer import Transformer
from sparse_bench.sparsity.scheme import Scheme

#: Steps between updates in this script, and the length of an epoch for schemes that rewire between epochs.
_EVERY = 5
#: Length that the schemes' schedules are told.
_STEPS = 1000
#: Steps of an epoch of Multi30k in batches of 64, over which an update between epochs is spread.
_EPOCH = 453


@dataclass
class Arm:
    """A model under one scheme, with the times of its steps."""

    sparse: SparseTraining
    interval: int
    plain: Times = field(default_factory=Times)
    update: Times = field(default_factory=Times)


def scheme_of(name: str, density: float) -> tuple[Scheme, int]:
    """The scheme of a shipped file, and how many steps apart its updates are by default.

    Raises:
        ConfigError: the file combines other files.
    """
    node: dict[str, Any] = yaml.safe_load((CONF / "sparsity" / f"{name}.yaml").read_text(encoding="utf-8"))
    if "defaults" in node:
        raise ConfigError("It combines other schemes")
    interval = node.get("interval", _EPOCH)  # others change connections at most once an epoch
    node |= {key: value for key, value in (("density", density), ("begin", 0.0)) if key in node and name != "dense"}
    if node.get("interval", 1) > 1:
        node["interval"] = _EVERY
    return build(node), interval


def arms(density: float, d_model: int, batches: list[Any], task: Any) -> tuple[dict[str, Arm], dict[str, str]]:
    """An arm for each scheme that can make an existing model sparse; and why the others are left out."""
    found: dict[str, Arm] = {}
    skipped: dict[str, str] = {}

    def losses(model: Any) -> Iterator[Tensor]:
        return (task.loss(model, batch).total for batch in batches)

    for name in choices("sparsity"):
        torch.manual_seed(0)
        model = Transformer(task.sizes, d_model=d_model, d_inner=4 * d_model)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        try:
            scheme, interval = scheme_of(name, density)
            sparse = sparsify(
                model,
                optimizer,
                scheme,
                steps=_STEPS,
                steps_per_epoch=_EVERY,
                losses=losses,
            )
        except ConfigError as error:
            skipped[name] = str(error).split(". ")[0].rstrip(".")
            continue
        found[name] = Arm(sparse, interval)
    return found, skipped


def train(arm: Arm, batch: Any, task: Any) -> None:
    """One step, timed, and counted as an update if it changed connections."""
    before, times = arm.sparse.scheme.rewirings(), Times()

    def step() -> None:
        task.loss(arm.sparse.model, batch).total.backward()
        arm.sparse.optimizer.step()
        arm.sparse.optimizer.zero_grad()

    timed(step, times)
    to = arm.plain if arm.sparse.scheme.rewirings() == before else arm.update
    to.clock += times.clock
    to.processor += times.processor


def rows(found: dict[str, Arm]) -> Iterator[Row]:
    """A line for each scheme; ratios are of medians of processor time."""
    dense, masked = found["dense"].plain.median_processor, found["random"].plain.median_processor
    for name, arm in found.items():
        steps = arm.plain if arm.plain.processor else arm.update
        step = steps.median_processor
        update = statistics.median(arm.update.processor) if arm.update.processor and arm.plain.processor else None
        spread = step if update is None else (step * (arm.interval - 1) + update) / arm.interval
        yield {
            "scheme": name,
            "step / dense": f"{step / dense:.2f}",
            "update / dense step": None if update is None else f"{update / dense:.2f}",
            "steps between updates": str(arm.interval) if update is not None else None,
            "amortised / masked step": f"{spread / masked:.3f}",
            "steps timed": str(len(arm.plain.processor)),
            "updates timed": str(len(arm.update.processor)),
        }


def main() -> None:
    """Measure, print and write."""
    given = parse(
        __doc__ or "",
        density=0.1,
        d_model=(256, "width of the transformer; its feed-forward layers are four times as wide"),
        rounds=(30, "steps of each scheme"),
        batches=(2, "that stand for the epoch"),
        threads=torch.get_num_threads(),
    )
    task, batches = multi30k(given.batches)
    found, skipped = arms(given.density, given.d_model, batches.bucketed, task)
    for number in range(given.rounds):
        for arm in found.values():
            train(arm, batches.bucketed[number % given.batches], task)
    text = f"""
    The transformer ({given.d_model} wide, 2 + 2 layers) at density {given.density:g} with masked weights and Adam, as
    `sparsify` runs it. Medians of processor time, the schemes in turn. A step is forward, backward and optimizer. An
    update is a step in which connections change, all of its work included. "Amortised" spreads updates over the
    scheme's own interval, or over {_EPOCH} steps where it rewires between epochs, and compares with `random`.
    """
    notes = [f"`{name}` is left out: {why}." for name, why in skipped.items()]
    report(given.output, "What a step and an update cost under each scheme", text, list(rows(found)), notes=notes)


if __name__ == "__main__":
    main()
