"""``sparse-bench status``: which runs of a sweep have finished, run, have failed, or are left."""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sparse_bench.commands import add_runs, exit_status
from sparse_bench.config import choices
from sparse_bench.errors import CheckpointError, ConfigError, unknown_choice
from sparse_bench.journal import ELSEWHERE, LEFT, Ended, Journal, how_it_ended
from sparse_bench.record import FINISHED, RunFolder

#: Status of a run that a process works on.
_RUNNING = "running"
_FAILED_OR_REFUSED = "failed"


@dataclass(frozen=True)
class State:
    """The state of one run of a sweep.

    Attributes:
        name: its job's number and the settings that distinguish it.
        status: finished, running, failed or left.
        detail: where and since when it runs, or the first line of its error; often empty.
    """

    name: str
    status: str
    detail: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the states, once or again and again.

    Returns:
        0 if all runs have finished, else 1.
    """
    parser = argparse.ArgumentParser(prog="sparse-bench status", description=__doc__)
    which = "a sweep's name, such as rasa/diet_density, or a folder below RUNS/.sweeps (default: the latest there)"
    parser.add_argument("sweep", metavar="SWEEP", nargs="?", help=which)
    add_runs(parser, several=False)
    parser.add_argument("--watch", action="store_true", help="print again every --seconds until no run is left")
    parser.add_argument("--seconds", type=float, default=10.0, help="time between two looks (default: 10)")
    options = parser.parse_args(arguments)
    try:
        return exit_status(lambda: _watch(options), failed=2)
    except KeyboardInterrupt:
        return 130


def _watch(options: argparse.Namespace) -> int:
    while True:
        states = list(states_of(options.sweep, options.runs))
        if options.watch and sys.stdout.isatty():
            print("\033[H\033[2J", end="")
        print(report(states), flush=True)
        over = all(state.status in (FINISHED, _FAILED_OR_REFUSED) for state in states)
        if not options.watch or over:
            return int(any(state.status != FINISHED for state in states))
        time.sleep(options.seconds)


def report(states: Sequence[State]) -> str:
    """The states as text: a line a run that runs, failed or is left, and the counts."""
    order = (FINISHED, _RUNNING, _FAILED_OR_REFUSED, LEFT)
    counts = {status: sum(state.status == status for state in states) for status in order}
    left = [state for state in states if state.status == LEFT]
    shown = [state for state in states if state.status in (_RUNNING, _FAILED_OR_REFUSED)] + left[:10]
    lines = [f"{state.status:8}  {state.name}{f'  {state.detail}' if state.detail else ''}" for state in shown]
    lines += [f"          and {len(left) - 10} more that are left"] if len(left) > 10 else []
    total = ", ".join(f"{count} {status}" for status, count in counts.items())
    return "\n".join([*lines, f"{len(states)} runs: {total}"])


def states_of(sweep: str | None, runs: Path) -> Iterator[State]:
    """The state of each run of a sweep.

    Args:
        sweep: name of a sweep of the configuration, or folder of a sweep; None: the latest below ``runs``.
        runs: the folder of all runs.

    Raises:
        ConfigError: there is no such sweep.
    """
    folder = _latest(runs) if sweep is None else Path(sweep)
    if sweep is not None and sweep in choices("sweep"):
        yield from _of_shipped(sweep, runs)
        return
    if not any(folder.glob("jobs-*.json")):
        known = unknown_choice("sweep", sweep, choices("sweep"))
        raise ConfigError(f"'{folder}' is no folder of a sweep (RUNS/.sweeps/...). {known}")
    journal = Journal(folder)
    entries = journal.entries()
    jobs = journal.jobs()
    every = [set(overrides) for overrides in jobs.values()]
    common = set.intersection(*every) if len(every) > 1 else set()
    for number, overrides in jobs.items():
        entry = entries.get(number)
        own = " ".join(override for override in overrides if override not in common)
        name = f"#{number} {own}".rstrip()
        yield _state(name, entry.folder if entry else None, entry.ended if entry else None)


def _of_shipped(sweep: str, runs: Path) -> Iterator[State]:
    from sparse_bench.sweeps import jobs

    for number, job in enumerate(jobs(sweep, runs)):
        folder = None if job.id is None else runs / job.experiment / job.id
        yield _state(f"#{number} {job.arm} seed={job.config.seed}", folder, None)


def _latest(runs: Path) -> Path:
    found = sorted(path.parent for path in (runs / ".sweeps").glob("*/jobs-0.json"))
    if not found:
        raise ConfigError(f"No sweep was started in '{runs}'. Name one: {', '.join(choices('sweep'))}.")
    return found[-1]


def _state(name: str, path: Path | None, ended: Ended | None) -> State:
    """The state of a run. It follows from the run's folder; refused runs are only in the journal."""
    folder = RunFolder(path) if path is not None and path.exists() else None
    owner = folder.owner() if folder is not None else None
    if folder is not None and owner is not None:
        return State(name, _RUNNING, _progress(folder, owner.host, owner.job, owner.pid, owner.since))
    try:
        result = folder.result() if folder is not None else None
    except CheckpointError as error:
        return State(name, _FAILED_OR_REFUSED, str(error))
    how = how_it_ended(result) if result is not None else ended
    if how is None or (how.status in (LEFT, ELSEWHERE, FINISHED) and result is None):
        return State(name, LEFT)
    if how.status == FINISHED:
        return State(name, FINISHED)
    return State(name, _FAILED_OR_REFUSED, f"{how.error} ({path})" if path else how.error)


def _progress(folder: RunFolder, host: str, job: str, pid: int, since: float) -> str:
    """Where a run is, since when, in which epoch, and when it is expected to end."""
    where = f"on {host}, {f'Slurm job {job}' if job else f'process {pid}'}, since {_clock(since)}"
    planned, done = _planned(folder), _last(folder.metrics.path).get("epoch", 0)
    if not planned:
        return where
    text = f"{where}, epoch {done} of {planned}"
    last = _last(folder.timing.path)
    seconds = last.get("train_seconds", 0.0) + last.get("evaluate_seconds", 0.0)
    if done and seconds:
        text += f", at most until {_clock(folder.timing.path.stat().st_mtime + seconds / done * (planned - done))}"
    return text


def _planned(folder: RunFolder) -> int:
    try:
        return int(OmegaConf.load(folder.config).trainer.epochs)
    except (OSError, ValueError, TypeError, AttributeError):
        return 0


def _last(path: Path) -> dict[str, Any]:
    """The last whole line of a file of JSON lines; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - (1 << 16)))
            lines = file.read().rpartition(b"\n")[0].splitlines()
        entry = json.loads(lines[-1])
    except (OSError, ValueError, IndexError):
        return {}
    return entry if isinstance(entry, dict) else {}


def _clock(time_: float) -> str:
    moment = datetime.fromtimestamp(time_)
    return f"{moment:%H:%M}" if moment.date() == datetime.now().date() else f"{moment:%Y-%m-%d %H:%M}"
