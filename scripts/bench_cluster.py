"""Runs per hour of one sweep of short runs under each launcher of several processes, on this machine alone.

    python scripts/bench_cluster.py --output results/performance/cluster.md

Slurm is a local one (scripts/local_slurm.py), and Ray starts a local cluster. The arms take turns on fresh folders, and
start-up counts. Arms whose programs are not installed are left out, and the page says so.
"""

import importlib.util
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from interleaved import Times, parse, report
from local_slurm import cluster, lacking

SWEEP = [
    *("experiment=rasa/diet", "dataset=sara_like", "dataset.corpus.examples=500", "model.transformer_size=32"),
    *("trainer.evaluate_every=0", "logger=none", "device=cpu", "threads=1", "-m"),
]
ARMS = {
    "joblib": ["hydra/launcher=joblib"],
    "slurm, an array of workers": [
        *("hydra/launcher=slurm", "hydra.launcher.workers={cores}", "hydra.launcher.cpus_per_task=1"),
        "hydra.launcher.poll_seconds=1",
    ],
    "submitit_slurm, a task per run": ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1"],
    "ray, a task per run": ["hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus={cores}"],
}
#: Arm → a module that it needs.
NEEDS = {"submitit_slurm, a task per run": "submitit", "ray, a task per run": "ray"}


def seconds(arm: str, cores: int, runs: int, epochs: int, environment: dict[str, str]) -> float:
    """Time of the sweep under a launcher [s].

    Raises:
        SystemExit: a run of the sweep did not finish.
    """
    with tempfile.TemporaryDirectory() as folder:
        seeds = ",".join(map(str, range(runs)))
        chosen = [setting.format(cores=cores) for setting in ARMS[arm]]
        given = [f"output={folder}", f"trainer.epochs={epochs}", f"seed={seeds}", *chosen]
        started = time.perf_counter()
        command = [sys.executable, "-m", "sparse_bench", *given, *SWEEP]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        spent = time.perf_counter() - started
        finished = len(list(Path(folder).glob("rasa/diet/*/result.json")))
        if done.returncode or finished != runs:
            sys.exit(f"{arm}: {finished} of {runs} runs finished\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return spent


def main() -> None:
    """Measure, print, and write the table."""
    given = parse(__doc__ or "", runs=40, epochs=60, rounds=3)
    cores = len(os.sched_getaffinity(0))
    if reason := lacking():
        sys.exit(f"This needs a local Slurm, and {reason}.")
    lacks = {arm for arm, module in NEEDS.items() if importlib.util.find_spec(module) is None}
    spent = {arm: Times() for arm in ARMS if arm not in lacks}
    # Ray would let its workers yield to all other programs, unlike the other arms.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - its name
    with cluster(cores) as environment:
        for _ in range(given.rounds):
            for arm in random.sample(list(spent), len(spent)):
                spent[arm].clock.append(seconds(arm, cores, given.runs, given.epochs, environment))
                print(f"{arm}: {spent[arm].clock[-1]:.0f} s", flush=True)
    base = spent["joblib"].median
    rows = [
        {
            "launcher": arm,
            "seconds": f"{times.median:.0f}",
            "of all rounds": ", ".join(f"{one:.0f}" for one in sorted(times.clock)),
            "runs per hour": f"{3600 * given.runs / times.median:.0f}",
            "time, joblib = 1": f"{times.median / base:.2f}",
        }
        for arm, times in spent.items()
    ]
    absent = f" Not installed: {', '.join(sorted(lacks))}." if lacks else ""
    text = f"""
    A sweep of {given.runs} runs (DIET, U = 32, density 0.2, {given.epochs} epochs of 500 messages),
    start-up included. Interleaved rounds: {given.rounds}, of which the median is shown.{absent}
    """
    report(given.output, "Launchers on a cluster", text, rows)


if __name__ == "__main__":
    main()
