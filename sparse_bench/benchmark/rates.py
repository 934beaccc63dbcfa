"""The choice of learning rates: for each task and scheme, the best of three on validation, with one seed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from sparse_bench.benchmark.tasks import TASKS, BenchmarkError, Task, task_of
from sparse_bench.config import CONF
from sparse_bench.evidence import names
from sparse_bench.evidence.store import RunTable, key_of
from sparse_bench.record import FINISHED, write_atomically
from sparse_bench.sweeps import jobs

#: The sweeps that try rates.
SWEEPS = tuple(f"benchmark/rates{end}" for end in ("", "_units", "_two_of_four", "_blocks", "_tiers"))
#: The file of chosen rates, which the experiments read.
FILE = Path("shared") / "benchmark_rates.yaml"
_HEAD = """# @package _global_
# Learning rates of the benchmark: task, scheme, rate. {state}
"""


@dataclass(frozen=True)
class Trial:
    """A learning rate that was tried, with the value of the metric that chooses; None: the run has not finished."""

    task: str
    scheme: str
    rate: float
    value: float | None


def chosen() -> dict[str, dict[str, float]]:
    """Task → scheme → the learning rate of its runs."""
    content = yaml.safe_load((CONF / FILE).read_text(encoding="utf-8"))
    found: dict[str, dict[str, float]] = content["point"]["rates"]
    return found


def trials(table: RunTable) -> list[Trial]:
    """Every rate that the sweeps try, with its value where ``table`` has the finished run."""
    rows = {key_of(row): row for row in table.rows() if row["status"] == FINISHED}
    found = []
    for job in (job for sweep in SWEEPS for job in jobs(sweep, Path())):
        task, row = task_of(job.experiment), rows.get((job.experiment, str(job.id)))
        assert task is not None, "the sweeps train the benchmark's tasks alone"
        value = None if row is None else row.get(f"metric:{task.chosen_by}")
        found.append(Trial(task.name, str(job.config.sparsity.label), float(job.config.optimizer.lr), value))
    return found


def choose(tried: Iterable[Trial]) -> dict[str, dict[str, float]]:
    """Task → scheme → the rate of the best value; the lower one of two equally good rates.

    Raises:
        BenchmarkError: a run is missing, or no rate of a scheme gave a number; the message lists them.
    """
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in tried:
        groups.setdefault((trial.task, trial.scheme), []).append(trial)
    missing = [f"{t} {s} {one.rate:g}" for (t, s), group in groups.items() for one in group if one.value is None]
    if missing:
        more = f", and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise BenchmarkError(f"{len(missing)} runs that try rates have not finished: {'; '.join(missing[:5])}{more}.")
    tasks = {task.name: task for task in TASKS}
    found: dict[str, dict[str, float]] = {}
    for (task, scheme), group in groups.items():
        found.setdefault(task, {})[scheme] = best_of(
            tasks[task], [(t.rate, t.value) for t in group if t.value is not None]
        )
    return found


def best_of(task: Task, tried: Sequence[tuple[float, float]]) -> float:
    """The rate of the best value of the metric that chooses; the lowest of equally good rates.

    Raises:
        BenchmarkError: no value is a number.
    """
    sign = 1.0 if names.lower_is_better(task.chosen_by) else -1.0
    known = [(sign * value, rate) for rate, value in tried if math.isfinite(value)]
    if not known:
        raise BenchmarkError(f"No learning rate gave a finite {task.chosen_by} on {task.name}.")
    return min(known)[1]


def write(rates: Mapping[str, Mapping[str, float]], state: str) -> Path:
    """Write the file that the experiments read. ``state`` says how the rates were chosen."""
    lines = [_HEAD.format(state=state) + "point:\n  rates:\n"]
    for task, by_scheme in rates.items():
        lines += [f"    {task}:\n", *(f"      {scheme}: {rate:g}\n" for scheme, rate in by_scheme.items())]
    path = CONF / FILE
    write_atomically(path, "".join(lines).encode())
    return path
