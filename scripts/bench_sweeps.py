"""Time sweeps of many small runs: runs per hour under each launcher, and what collecting very many results takes.

python scripts/bench_sweeps.py collect --runs 10000

Start-up counts, as it does for a user.
"""

import hashlib
import importlib.util
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from interleaved import Row, Times, interleave, measure, timed
from local_slurm import cluster as local_slurm
from local_slurm import lacking

from sparse_bench.environment import cores
from sparse_bench.record import checksum_of

DIET = ["experiment=rasa/diet", "dataset=sara_like", "logger=none", "device=cpu", "-m"]


def module(*arguments: str, environment: dict[str, str] | None = None) -> None:
    """Run a module's command; ends the script, with what the command said, if it fails."""
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


def sweep(settings: list[str], runs: int, environment: dict[str, str] | None = None) -> None:
    """A sweep of so many runs in a fresh folder, all of which have to finish."""
    with tempfile.TemporaryDirectory() as folder:
        seeds = ",".join(map(str, range(runs)))
        given = [f"output={folder}", f"seed={seeds}", "model.transformer_size=32", "trainer.evaluate_every=0"]
        module("sparse_bench", *given, *settings, *DIET, environment=environment)
        finished = len(list(Path(folder).glob("rasa/diet/*/result.json")))
        if finished != runs:
            sys.exit(f"{' '.join(settings)}: {finished} of {runs} runs finished")


def launchers(*, runs: int = 8, seconds: float = 200.0) -> Iterator[Row | str]:
    """Launchers.

    A sweep of short runs (DIET, U = 32, density 0.2, 4 epochs of Sara-like): one process with all threads, against one
    single-threaded process a core. Medians of interleaved rounds on fresh folders, start-up included.
    """
    settings = {
        f"basic, {cores()} threads": ["hydra/launcher=basic", f"threads={cores()}"],
        "joblib, one thread a process": ["hydra/launcher=joblib", "threads=1"],
    }
    arms = {name: partial(sweep, [*given, "trainer.epochs=4"], runs) for name, given in settings.items()}
    for name, times in interleave(arms, seconds, rounds=3).items():
        yield {
            "launcher": name,
            "seconds": f"{times.ms() / 1e3:.1f}",
            "runs per hour": f"{3.6e6 * runs / times.ms():.0f}",
        }
    yield f"A sweep has {runs} runs"


def cluster(*, runs: int = 40, epochs: int = 60, rounds: int = 3) -> Iterator[Row | str]:
    """Launchers on a cluster.

    A sweep of runs (DIET, U = 32, density 0.2) on 500 messages, start-up included, on this machine alone: Slurm is a
    local one, and Ray starts a local cluster. Medians of interleaved rounds on fresh folders.
    """
    if reason := lacking():
        sys.exit(f"This needs a local Slurm, and {reason}.")
    settings = {
        "joblib": ["hydra/launcher=joblib"],
        "slurm, an array of workers": [
            *("hydra/launcher=slurm", f"hydra.launcher.workers={cores()}", "hydra.launcher.cpus_per_task=1"),
            "hydra.launcher.poll_seconds=1",
        ],
        "submitit_slurm, a task per run": ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1"],
        "ray, a task per run": ["hydra/launcher=ray", f"hydra.launcher.ray.init.num_cpus={cores()}"],
    }
    for arm, needed in {"submitit_slurm, a task per run": "submitit", "ray, a task per run": "ray"}.items():
        if importlib.util.find_spec(needed) is None:
            del settings[arm]
            yield f"Not installed: {needed}"
    common = [f"trainer.epochs={epochs}", "dataset.corpus.examples=500", "threads=1"]
    spent = {arm: Times() for arm in settings}
    with ExitStack() as stack:
        environment = stack.enter_context(local_slurm(cores()))
        environment["RAY_worker_niceness"] = "0"  # Ray would let its workers yield to all other programs
        for _ in range(rounds):
            for arm in random.sample(list(spent), len(spent)):
                timed(partial(sweep, [*settings[arm], *common], runs, environment), spent[arm])
    for arm, times in spent.items():
        yield {
            "launcher": arm,
            "seconds": f"{times.ms() / 1e3:.0f}",
            "of all rounds": ", ".join(f"{one:.0f}" for one in sorted(times.clock)),
            "runs per hour": f"{3.6e6 * runs / times.ms():.0f}",
            "time, joblib = 1": f"{times.over(spent['joblib']):.2f}",
        }
    yield f"A sweep has {runs} runs of {epochs} epochs"


def collect(*, runs: int = 10_000) -> Iterator[Row | str]:
    """Many results.

    Result folders, made of one run of 100 epochs: copied under other seeds, densities and names, with other metrics.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        epochs = ["trainer.epochs=100", "trainer.evaluate_every=10", "threads=1"]
        small = ["dataset.corpus.examples=200", "model.transformer_size=16"]
        module("sparse_bench", f"output={folder / 'one'}", *small, *epochs, *DIET)
        (template,) = (path.parent for path in folder.glob("one/rasa/diet/*/result.json"))
        files = {path.name: path.stat().st_size for path in sorted(template.iterdir()) if path.is_file()}
        journal = [path for path in folder.glob("one/.sweeps/*/*") if path.is_file()]
        copies(template, folder / "runs/rasa/diet", runs)
        own, tables = (f"{folder / part}" for part in ("runs", "tables"))
        commands = {
            "collect the tables": ["sparse_bench.evidence", "collect", "--results", tables, "--runs", own],
            "a page of one's own runs": ["sparse_bench.site", f"{folder / 'own'}", "--runs", own],
            "the papers' pages from the tables": ["sparse_bench.site", f"{folder / 'site'}", "--results", tables],
        }
        for what, command in commands.items():
            timed(partial(module, *command), times := Times())
            yield {"what": what, "seconds": f"{times.ms() / 1e3:.0f}"}
        sizes = ", ".join(f"{file} {size:,}" for file, size in files.items())
        lines = sum(path.stat().st_size for path in journal if path.name.startswith("journal"))
        yield f"{runs:,} runs. A run leaves {len(files)} files with {sum(files.values()):,} bytes: {sizes}"
        yield f"It adds {lines:,} bytes to the journal of its sweep, which has {len(journal)} files on one machine"


def copies(template: Path, target: Path, runs: int) -> None:
    """Write so many folders like that of ``template`` below ``target``."""
    result, draw = json.loads((template / "result.json").read_text()), random.Random(0)
    densities = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8)
    for number in range(runs):
        seed, density = number // len(densities), densities[number % len(densities)]
        result["id"] = hashlib.sha256(str(number).encode()).hexdigest()[:12]
        result["seed"] = result["config"]["seed"] = seed
        result["labels"]["density"] = result["config"]["sparsity"]["density"] = density
        metrics = {name: value * draw.uniform(0.9, 1.0) for name, value in result["metrics"].items()}
        copy = result | {"metrics": metrics}
        shutil.copytree(template, target / result["id"])
        (target / result["id"] / "result.json").write_text(json.dumps(copy | {"checksum": checksum_of(copy)}, indent=2))


if __name__ == "__main__":
    measure(launchers, cluster, collect)
