"""The benchmark's tasks: what is measured, how rates are chosen, and what counting alone reaches."""

import math
from dataclasses import dataclass
from pathlib import Path

from sparse_bench.errors import SparseBenchError
from sparse_bench.evidence import names
from sparse_bench.evidence.csv_tables import read_rows

#: Table of what counting reaches, below the folder of the benchmark's results.
BASELINES = "baselines.csv"
#: The densities of the grid.
DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
#: Density at which learning rates are chosen.
CHOSEN_AT = 0.1


class BenchmarkError(SparseBenchError):
    """Results of the benchmark are missing or do not fit together; the message says which."""


@dataclass(frozen=True)
class Task:
    """A task of the benchmark.

    Attributes:
        name: the task; its experiment is ``benchmark/NAME``.
        title: for tables and figures.
        model: what is trained, in words.
        metric: what is compared.
        chosen_by: metric that chooses the learning rate.
    """

    name: str
    title: str
    model: str
    metric: str
    chosen_by: str

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return f"benchmark/{self.name}"

    @property
    def lower_is_better(self) -> bool:
        """Direction of the metric."""
        return names.lower_is_better(self.metric)

    def utility(self, value: float) -> float:
        """The metric on a scale on which more is better: minus the logarithm of a perplexity, else the value itself."""
        return -math.log(value) if self.lower_is_better else value


TASKS = (
    Task("translation", "Translation", "transformer", "test/token_accuracy", "valid/token_accuracy"),
    Task("lstm", "Language, LSTM", "LSTM", "test/perplexity", "valid/perplexity"),
    Task("awd_lstm", "Language, AWD-LSTM", "AWD-LSTM", "test/perplexity", "valid/perplexity"),
    Task("tagging", "Tagging", "BiLSTM", "test/accuracy", "valid/accuracy"),
    Task("entities", "Entities", "DIET", "test/entity_f1", "valid/entity_f1"),
    Task("dialogue", "Dialogue", "TED", "test/action_f1", "valid/action_f1"),
)


def task_of(experiment: str) -> Task | None:
    """The task of an experiment; None for one that is not of the benchmark."""
    return next((task for task in TASKS if task.experiment == experiment), None)


def baselines(results: Path) -> dict[str, float]:
    """Task → value of its metric that the counted baseline reaches.

    Raises:
        BenchmarkError: the table is missing, or has no row for a task.
    """
    path = results / BASELINES
    if not path.is_file():
        raise BenchmarkError(f"There is no '{path}'. Write it: python scripts/counting.py benchmark --output {path}")
    found = {
        str(row["task"]): float(row["value"])
        for row in read_rows(path).to_dict("records")
        if row["counts"] == "targets"
    }
    if missing := [task.name for task in TASKS if task.name not in found]:
        raise BenchmarkError(f"'{path}' has no row of counted targets for {', '.join(missing)}.")
    return found
