"""Runs per hour of a sweep of small models: one process with all threads, against one single-threaded process a core.

    python scripts/bench_launchers.py --output results/performance/launchers.md

The two launchers take turns, on fresh folders, and the medians are compared. Start-up counts, as it does for a user.
"""

import os
import subprocess
import sys
import tempfile
from functools import partial

from interleaved import interleave, parse, report

SWEEP = [
    *("experiment=rasa/diet", "dataset=sara_like", "model.transformer_size=32"),
    *("trainer.epochs=4", "trainer.evaluate_every=0", "logger=none", "-m"),
]


def sweep(launcher: str, threads: int, runs: int) -> None:
    """The sweep with this launcher."""
    with tempfile.TemporaryDirectory() as folder:
        seeds = ",".join(map(str, range(runs)))
        given = [f"output={folder}", f"hydra/launcher={launcher}", f"threads={threads}", f"seed={seeds}"]
        command = [sys.executable, "-m", "sparse_bench", *given, *SWEEP]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def main() -> None:
    """Measure, print, and write the table."""
    given = parse(__doc__ or "", seconds=200.0, runs=8)
    cores = len(os.sched_getaffinity(0))
    arms = {
        f"basic, {cores} threads": partial(sweep, "basic", cores, given.runs),
        "joblib, one thread a process": partial(sweep, "joblib", 1, given.runs),
    }
    spent = interleave(arms, given.seconds, rounds=3)
    slow, fast = (times.median for times in spent.values())
    rows = [
        {
            "launcher": name,
            "seconds": f"{times.median:.1f}",
            "runs per hour": f"{3600 * given.runs / times.median:.0f}",
        }
        for name, times in spent.items()
    ]
    text = f"""
    A sweep of {given.runs} runs (DIET, U = 32, density 0.2, 4 epochs of Sara-like), median of
    {len(next(iter(spent.values())).clock)} interleaved rounds, start-up included.

    **One process a core makes {slow / fast:.2f} times the runs per hour.**
    """
    report(given.output, "Launchers", text, rows)


if __name__ == "__main__":
    main()
