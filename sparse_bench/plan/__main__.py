"""Command line: ``python -m sparse_bench.plan [--probe] SWEEP …``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sparse_bench.commands import add_runs, exit_status
from sparse_bench.config.catalog import experiments
from sparse_bench.errors import ConfigError
from sparse_bench.evidence.compare import Evidence
from sparse_bench.evidence.display import plain_text
from sparse_bench.papers.page import read_papers
from sparse_bench.plan.estimate import estimate, plan_table
from sparse_bench.plan.timings import CPU, gpus, read_probes, timings, write_probes
from sparse_bench.sharing import processes
from sparse_bench.sweeps import Job, jobs

PROBES = "throughput.csv"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan; returns the exit status, 1 if a sweep is unknown or a table cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m sparse_bench.plan",
        description="Estimate the cost of sweeps: their runs, the runs that are left, and the time that they take on "
        "this device and on every GPU with measurements. Estimates come from finished runs, or else from probes. "
        "This trains no model to the end.",
    )
    parser.add_argument("sweeps", nargs="+", metavar="SWEEP")
    add_runs(parser, several=False)
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="the committed tables")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="folder with your own configuration files")
    parser.add_argument("--probe", action="store_true", help=f"time steps of arms without measurements (in {PROBES})")
    parser.add_argument("--arms", type=int, default=3, help="least timed arms per sweep (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="half of a probe's time (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.arms < 1 or options.seconds <= 0:
        parser.error("--arms must be at least 1, and --seconds more than 0")
    return exit_status(lambda: _plan(options))


def _plan(options: argparse.Namespace) -> int:
    if options.config_dir is not None and not options.config_dir.is_dir():
        raise ConfigError(f"--config-dir: there is no folder '{options.config_dir}'.")
    found = [jobs(sweep, options.runs, options.config_dir) for sweep in options.sweeps]
    tables = [t.runs for t in Evidence.committed(options.results, read_papers(experiments())).tables.values()]
    path = options.results / PROBES
    device, workers = _device()
    if options.probe:
        for sweep in found:
            known = timings(sweep, device, tables, read_probes(path))
            _probe(_spread(sweep, set(known), options.arms), path, options.seconds)
    probes = read_probes(path)
    elsewhere = [gpu for gpu in gpus(tables, probes) if gpu != device]
    for kind, side_by_side in [(device, workers), *((gpu, 1) for gpu in elsewhere)]:
        estimates = [estimate(sweep, timings(sweep, kind, tables, probes)) for sweep in found]
        if kind == device or any(known.timed for known in estimates):
            table = plan_table(estimates, side_by_side, kind)
            print(f"{table.caption}\n\n{plain_text(table)}\n")
    return 0


def _device() -> tuple[str, int]:
    """The type of device that runs would use here, and the number of parallel runs."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(), processes("auto")
    return CPU, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _spread(sweep: Sequence[Job], known: set[str], wanted: int) -> list[Job]:
    """Choose jobs to time, evenly spaced over the sweep's grid, so that ``wanted`` of its arms are known."""
    arms = list({job.arm: job for job in reversed(sweep)}.values())[::-1]
    unknown = [job for job in arms if job.arm not in known]
    number = min(wanted - len(known), len(unknown))
    if number <= 0:
        return []
    return [unknown[round(i * (len(unknown) - 1) / max(number - 1, 1))] for i in range(number)]


def _probe(chosen: Sequence[Job], path: Path, seconds: float) -> None:
    """Time each job, and add it to the table at once, so that an interruption loses nothing."""
    import torch

    from sparse_bench.plan.probe import probe

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for job in chosen:
        print(f"timing {job.sweep} {job.arm}", flush=True)
        write_probes(path, [*read_probes(path), probe(job, device, seconds)])


if __name__ == "__main__":
    sys.exit(main())
