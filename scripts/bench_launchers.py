"""Runs per hour of a sweep of small models: one process with all threads, against one single-threaded process a core.

    python scripts/bench_launchers.py --output results/performance/launchers.md

The two launchers take turns, on fresh folders, and the medians are compared. Start-up counts, as it does for a user.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from interleaved import describe_machine, write

RUNS = 8
SWEEP = [
    "experiment=rasa/diet",
    "dataset=sara_like",
    f"seed={','.join(map(str, range(RUNS)))}",
    "model.transformer_size=32",
    "trainer.epochs=4",
    "trainer.evaluate_every=0",
    "logger=none",
    "-m",
]


def seconds(launcher: str, threads: int) -> float:
    """Wall-clock seconds of the sweep with this launcher."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run(
            [
                sys.executable,
                "-m",
                "sparse_bench",
                f"output={folder}",
                f"hydra/launcher={launcher}",
                f"threads={threads}",
                *SWEEP,
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        return time.perf_counter() - started


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    arms = {f"basic, {cores} threads": ("basic", cores), "joblib, one thread a process": ("joblib", 1)}
    taken: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(arguments.rounds):
        for name, (launcher, threads) in arms.items():
            taken[name].append(seconds(launcher, threads))
            print(f"round {number + 1}: {name}: {taken[name][-1]:.1f} s", flush=True)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    slow, fast = medians.values()
    lines = [
        "# Launchers",
        "",
        f"{describe_machine()}. A sweep of {RUNS} runs (DIET, U = 32, density 0.2, 4 epochs of Sara-like), "
        f"median of {arguments.rounds} interleaved rounds, start-up included.",
        "",
        f"**One process a core makes {slow / fast:.2f} times the runs per hour.**",
        "",
        "| launcher | seconds | runs per hour |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {value:.1f} | {3600 * RUNS / value:.0f} |" for name, value in medians.items()),
        "",
    ]
    write("\n".join(lines), arguments.output)


if __name__ == "__main__":
    main()
