"""From the table of runs to cells: what each task, scheme and density measured, over seeds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sparse_bench.benchmark.tasks import DENSITIES, Task, task_of
from sparse_bench.evidence import names
from sparse_bench.evidence.arms import DENSE_SCHEMES
from sparse_bench.evidence.statistics import Interval, mean_interval
from sparse_bench.evidence.store import RunTable, key_of
from sparse_bench.record import FINISHED

DENSE, SMALL_DENSE, RANDOM = "dense", "small_dense", "random"
_SECONDS = "seconds:train_processor"
#: A density belongs to the unit that it differs from by at most this share.
_ROUNDING = 0.02
#: A cell whose share of weights differs by more than this share of its unit has no score.
_FAR = 0.2

#: Task, scheme and density.
Key = tuple[str, str, float]


@dataclass
class Cell:
    """The runs of a scheme at a density on a task.

    Attributes:
        task: the task.
        scheme: label of the scheme.
        density: density's unit; 1 for the dense model.
        values: seed → the task's metric.
        runs: seed → experiment and id of the run.
        weights: weights in the task's sparse layers, after training.
        realised: their share of the dense model's.
        held: weights that training kept for these layers at its fullest step.
        macs: multiply-accumulates of the training.
        seconds: processor seconds of the training; with full matrices and zeros where ``kernel_seconds`` are given too.
        kernel_seconds: processor seconds of the training that computes with existing weights only.
        rate: learning rate.
    """

    task: Task
    scheme: str
    density: float
    values: dict[int, float] = field(default_factory=dict)
    runs: dict[int, tuple[str, str]] = field(default_factory=dict)
    weights: list[float] = field(default_factory=list)
    realised: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)
    macs: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    kernel_seconds: list[float] = field(default_factory=list)
    rate: float = float("nan")

    @property
    def at_its_unit(self) -> bool:
        """Whether the number of weights is the density's but for 20 %; True if it is unknown."""
        return all(abs(density - self.density) <= _FAR * self.density for density in self.realised)

    @property
    def interval(self) -> Interval:
        """Mean and t-interval of the metric over seeds."""
        return mean_interval(list(self.values.values()))


def cells(table: RunTable, rates: Mapping[str, Mapping[str, float]] | None = None) -> dict[Key, Cell]:
    """The cells of all finished runs that follow the rules.

    Runs with a rate that is not in ``rates`` (task → scheme → learning rate) are skipped; without it, all runs count.
    Runs with ``sparsity.execution=kernel`` give their seconds alone, because all others use full matrices.
    """
    found: dict[Key, Cell] = {}
    for row in table.rows():
        task, config, density = task_of(str(row["experiment"])), table.config(row), density_of(row)
        if task is None or row["status"] != FINISHED or density is None:
            continue
        scheme, rate = str(row["label:scheme"]), float(config["optimizer.lr"])
        value = row.get(f"metric:{task.metric}")
        if value is None or (rates is not None and rate != rates.get(task.name, {}).get(scheme)):
            continue
        cell = found.setdefault((task.name, scheme, density), Cell(task, scheme, density, rate=rate))
        seconds = [float(row[_SECONDS])] if row.get(_SECONDS) is not None else []
        if config.get("sparsity.execution") == "kernel":
            cell.kernel_seconds += seconds
            continue
        seed = int(row["seed"])
        cell.values[seed], cell.runs[seed] = float(value), key_of(row)
        cell.seconds += seconds
        for name, column in (("weights", names.SPARSE_WEIGHTS), ("held", names.HELD)):
            if row.get(column) is not None:
                getattr(cell, name).append(float(row[column]))
        if row.get(names.FORWARD) is not None:
            cell.macs.append(float(row[names.FORWARD]) + float(row[names.BACKWARD]))
    found = {key: cell for key, cell in found.items() if cell.values}
    for cell in found.values():
        full = found.get((cell.task.name, DENSE, 1.0))
        if full is not None and full.weights:
            cell.realised = [weights / full.weights[0] for weights in cell.weights]
    return found


def density_of(row: Mapping[str, Any]) -> float | None:
    """The unit of a run: its nominal density, or the nearest unit; 1 for the dense model; None: no unit is near."""
    if row.get("label:scheme") in DENSE_SCHEMES:
        return 1.0
    asked = row.get("label:density")
    density = float(row[names.DENSITY]) if asked is None and row.get(names.DENSITY) is not None else asked
    if density is None:
        return None
    unit = min(DENSITIES, key=lambda one: abs(one - density))
    return unit if abs(unit - density) <= _ROUNDING * unit else None


def schemes_of(found: Iterable[Key]) -> list[str]:
    """The schemes of some cells: dense, small dense, random, then by name."""
    known = {scheme for _, scheme, _ in found}
    first = [scheme for scheme in (DENSE, SMALL_DENSE, RANDOM) if scheme in known]
    return [*first, *sorted(known - set(first))]
