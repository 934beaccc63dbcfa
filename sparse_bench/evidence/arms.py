"""Groups of runs: arms, curves and studies.

All groups are found from the results. The runs of an arm differ in their seed alone. Arms with the same scheme and
density that differ in the model's size form a curve. The curves of one model and dataset form a study.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from sparse_bench.evidence.csv_tables import grouped, is_missing, plain, sort_key
from sparse_bench.evidence.display import density_range, percent
from sparse_bench.evidence.names import DENSITY, FROZEN, SPARSE_SIZE, SPARSE_WEIGHTS, TRAINABLE
from sparse_bench.evidence.statistics import Interval, mean_interval
from sparse_bench.evidence.store import WARNINGS
from sparse_bench.record import FINISHED

Kind = Literal["dense", "sparse", "small_dense"]
#: Labels of the schemes that keep every weight of the configured model.
DENSE_SCHEMES = frozenset({"dense", "none"})
#: Label of the scheme that makes the model narrower and keeps it dense.
SMALL_DENSE_SCHEME = "small_dense"
#: Labels that distinguish the curves of one study. All other labels distinguish studies.
CURVE_LABELS = ("scheme", "density")

#: A realised density is shown where it differs from the nominal density by more than this share of the latter.
_ROUNDING = 0.01


@dataclass(frozen=True, eq=False)
class Arm:
    """Runs that differ in their seed alone.

    Attributes:
        experiment: name of the experiment.
        labels: model, dataset, scheme, density and any further label.
        settings: configuration values by dotted path; only settings that differ between the table's runs.
        runs: the rows of the finished runs.
        failed: number of failed runs.
        ids: ids of all runs, failed ones included.
    """

    experiment: str
    labels: Mapping[str, Any]
    settings: Mapping[str, Any]
    runs: pd.DataFrame
    failed: int
    ids: Sequence[str]

    def values(self, column: str) -> dict[int, float]:
        """A column's value by seed. A seed that was run several times has their mean. Empty cells are skipped."""
        if column not in self.runs.columns:
            return {}
        by_seed = self.runs[column].dropna().groupby(self.runs["seed"])
        return {int(seed): math.fsum(map(float, values)) / len(values) for seed, values in by_seed}

    def pairs(self, first: str, second: str) -> list[tuple[float, float]]:
        """Values of two columns, a pair for each seed that has both, in the order of the seeds."""
        one, other = self.values(first), self.values(second)
        return [(one[seed], other[seed]) for seed in one if seed in other]

    def interval(self, column: str) -> Interval | None:
        """Mean and t-interval of a column over seeds; None if no run has it."""
        values = list(self.values(column).values())
        return mean_interval(values) if values else None

    def mean(self, column: str) -> float | None:
        """Mean of a column over seeds; None if no run has it."""
        interval = self.interval(column)
        return None if interval is None else interval.mean

    @property
    def realised(self) -> float | None:
        """Realised density: the share of entries of the sparse layers that hold a weight, mean over seeds.

        None for a narrower dense model: its density refers to the full model, whose size its runs do not record.
        """
        return None if self.kind == "small_dense" else self.mean(DENSITY)

    @property
    def seeds(self) -> str:
        """Cell of a table: the number of finished seeds, then of failed runs and of runs with a warning."""
        noted = int(self.runs[WARNINGS].notna().sum()) if WARNINGS in self.runs else 0
        more = [f"{self.failed} failed"] if self.failed else []
        more += [f"{noted} with a warning"] if noted else []
        return f"{self.runs['seed'].nunique()}" + (f" ({', '.join(more)})" if more else "")

    @property
    def kind(self) -> Kind:
        """``dense``, ``sparse``, or ``small_dense`` for a narrower dense model."""
        scheme, density = self.labels.get("scheme"), self.labels.get("density")
        if scheme == SMALL_DENSE_SCHEME:
            return "small_dense"
        return "dense" if scheme in DENSE_SCHEMES or density == 1.0 else "sparse"

    @cached_property
    def full_size(self) -> int | None:
        """Trainable weights of the arm's model if its sparse layers were dense; a measure of its width."""
        parts = [self.mean(column) for column in (TRAINABLE, SPARSE_WEIGHTS, SPARSE_SIZE)]
        if any(part is None for part in parts):
            return None
        trainable, weights, size = (part or 0.0 for part in parts)
        frozen = self.mean(FROZEN) or 0.0  # not part of the trainable weights
        # The parts differ between seeds, their sum does not; rounding removes the error of taking means.
        return round(trainable + frozen - weights + size)


@dataclass(frozen=True, eq=False)
class Curve:
    """Arms of one scheme and density, ordered by the number of weights in the sparse layers.

    Attributes:
        label: name of the curve, with the nominal density.
        kind: decides how it is drawn.
        scheme: the scheme's label.
        density: the nominal density; None for narrower dense models, whose density varies along the curve.
        variant: settings other than the model's size that distinguish this curve, as text; often empty.
        arms: at least one.
    """

    label: str
    kind: Kind
    scheme: str
    density: float | None
    variant: str
    arms: Sequence[Arm]

    @property
    def title(self) -> str:
        """The label, with the realised density where it differs from the nominal one."""
        return self.label + realised_note(self.density, (arm.realised for arm in self.arms))


@dataclass(frozen=True, eq=False)
class Study:
    """The comparable arms of one experiment: same model, same data.

    Attributes:
        experiment: name of the experiment.
        labels: labels that all arms share (model, dataset, …).
        arms: in the order of the table of runs.
    """

    experiment: str
    labels: Mapping[str, Any]
    arms: Sequence[Arm]

    @property
    def names(self) -> list[str]:
        """The experiment and the labels as text, for titles and names of files."""
        return [self.experiment, *map(str, self.labels.values())]

    @cached_property
    def curves(self) -> list[Curve]:
        """Curves in legend order: dense, narrower dense, then by scheme with falling density."""
        return _curves([arm for arm in self.arms if len(arm.runs)])

    @property
    def one_width(self) -> bool:
        """Whether every curve has a single point. The metric is then drawn against density."""
        return all(len(curve.arms) == 1 for curve in self.curves if curve.kind != "small_dense")

    @cached_property
    def settings(self) -> tuple[list[str], list[str]]:
        """Settings that vary in the study; see :func:`identifying_settings`."""
        return identifying_settings(self.arms)


def arms_of(runs: pd.DataFrame) -> list[Arm]:
    """Group runs over seeds, in the order of the table.

    Args:
        runs: the rows of :class:`sparse_bench.evidence.store.RunTable`.
    """
    labels = [column for column in runs.columns if column.startswith("label:")]
    settings = [column for column in runs.columns if column.startswith("setting:")]
    columns = ["experiment", *labels, *settings]
    keys = [tuple(map(sort_key, values)) for values in zip(*(runs[column] for column in columns), strict=True)]
    arms = []
    for positions in grouped(range(len(runs)), keys.__getitem__):
        members = runs.iloc[positions]
        first = {column: _present(members[column].iloc[0]) for column in columns}
        finished = members[members["status"] == FINISHED]
        arms.append(
            Arm(
                experiment=str(first["experiment"]),
                labels={column.removeprefix("label:"): first[column] for column in labels},
                settings={column.removeprefix("setting:"): first[column] for column in settings},
                runs=finished.reset_index(drop=True),
                failed=len(members) - len(finished),
                ids=list(members["id"]),
            )
        )
    return arms


def studies_of(runs: pd.DataFrame) -> list[Study]:
    """Split a table of runs into studies: one for each experiment and combination of labels.

    The labels ``scheme`` and ``density`` do not count: they distinguish the curves of a study.
    """

    def shared(arm: Arm) -> dict[str, Any]:
        return {name: value for name, value in arm.labels.items() if name not in CURVE_LABELS and value is not None}

    groups = grouped(arms_of(runs), lambda arm: (arm.experiment, *((k, sort_key(v)) for k, v in shared(arm).items())))
    return [Study(arms[0].experiment, shared(arms[0]), arms) for arms in groups]


def identifying_settings(arms: Sequence[Arm]) -> tuple[list[str], list[str]]:
    """Split the varying settings of ``arms`` into those that identify an arm and those that follow from these.

    A setting follows if arms with equal labels and equal identifying settings always agree in it. For instance, the
    width of a feed-forward layer follows from that of the model.
    """
    names = [
        name
        for name in sorted(arms[0].settings)
        if len({sort_key(arm.settings[name]) for arm in arms}) > 1 and not _repeats_label(name, arms)
    ]
    # Class names come last, so that they identify an arm only where no ordinary setting does.
    names.sort(key=lambda name: name.rsplit(".", 1)[-1].startswith("_"))
    chosen: list[str] = []
    implied: list[str] = []

    def known(arm: Arm) -> tuple[Any, ...]:
        return (*map(sort_key, arm.labels.values()), *(sort_key(arm.settings[other]) for other in chosen))

    for name in names:
        same = grouped(arms, known)
        free = any(len({sort_key(arm.settings[name]) for arm in group}) > 1 for group in same)
        (chosen if free else implied).append(name)
    return chosen, implied


def realised_density(arm: Arm, arms: Sequence[Arm]) -> float | None:
    """:attr:`Arm.realised`; for a narrower dense model its weights as a share of the full model's, if known."""
    sizes = {other.mean(SPARSE_SIZE) for other in arms if other.kind != "small_dense"}
    weights, size = arm.mean(SPARSE_WEIGHTS), sizes.pop() if len(sizes) == 1 else None
    return weights / size if arm.kind == "small_dense" and weights is not None and size else arm.realised


def by_density(arms: Iterable[Arm]) -> dict[float, list[float | None]]:
    """Realised densities of arms by nominal density, in rising order. Arms without a nominal density are skipped."""
    found: dict[float, list[float | None]] = {}
    for arm in arms:
        if isinstance(asked := arm.labels.get("density"), int | float):
            found.setdefault(float(asked), []).append(arm.realised)
    return dict(sorted(found.items()))


def realised_note(asked: Any, realised: Iterable[float | None]) -> str:
    """`` (realised 14 %)`` where the realised density differs from the nominal one by more than rounding; else empty.

    Args:
        asked: the nominal density; empty text is returned if it is no number.
        realised: realised densities of the arms with that label.
    """
    known = [density for density in realised if density is not None]
    if not isinstance(asked, int | float) or all(abs(one - asked) <= _ROUNDING * asked for one in known):
        return ""
    return f" (realised {density_range(known)})"


def warned(*runs: pd.DataFrame) -> str:
    """The distinct warnings of finished runs, each with its number of runs; empty without warnings."""
    found = [part.loc[part["status"] == FINISHED, WARNINGS].dropna() for part in runs if WARNINGS in part]
    counts = Counter(str(text) for texts in found for text in texts)
    return "; ".join(f"{text} ({count} run{'' if count == 1 else 's'})" for text, count in counts.items())


def _curves(arms: list[Arm]) -> list[Curve]:
    def scheme_and_density(arm: Arm) -> tuple[Any, ...]:
        return arm.labels.get("scheme"), None if arm.kind == "small_dense" else arm.labels.get("density")

    found = [variant for group in grouped(arms, scheme_and_density) for variant in _variants(group)]
    sparse_schemes = {str(group[0].labels.get("scheme")) for _, group in found if group[0].kind == "sparse"}
    curves = []
    for variant, group in found:
        kind, scheme = group[0].kind, str(group[0].labels.get("scheme"))
        density = None if kind == "small_dense" else group[0].labels.get("density")
        readable = scheme.replace("_", " ")
        if kind == "dense":
            label = "dense" if scheme in DENSE_SCHEMES or len(sparse_schemes) < 2 else f"{readable}, {percent(1.0)}"
        elif kind == "small_dense":
            label = "small dense"
        elif density is None:
            label = readable
        else:
            label = f"density {percent(density)}" if len(sparse_schemes) == 1 else f"{readable}, {percent(density)}"
        ordered = sorted(group, key=lambda arm: (arm.mean(SPARSE_WEIGHTS) or 0.0, arm.full_size or 0.0))
        label = f"{label}, {variant}" if variant else label
        curves.append(Curve(label, kind, scheme, density, variant, ordered))
    rank = {"dense": 0, "small_dense": 1, "sparse": 2}
    curves.sort(key=lambda c: (rank[c.kind], c.scheme, c.variant, -(c.density if c.density is not None else 2.0)))
    return curves


def _variants(arms: list[Arm]) -> list[tuple[str, list[Arm]]]:
    """Split arms by the settings in which arms of equal width differ; each combination of values is a curve."""
    names = set[str]()
    for same_width in grouped(arms, lambda arm: (arm.full_size, *map(sort_key, arm.labels.values()))):
        if len(same_width) > 1:
            names |= set(identifying_settings(same_width)[0])
    ordered = sorted(names)
    variants = grouped(arms, lambda arm: tuple(sort_key(arm.settings[name]) for name in ordered))
    return [(_setting_text({name: group[0].settings[name] for name in ordered}), group) for group in variants]


def _repeats_label(name: str, arms: Sequence[Arm]) -> bool:
    """Whether a setting holds the same values as a label (``sparsity.density`` and ``density``)."""
    label = name.rsplit(".", 1)[-1]
    return all(sort_key(arm.labels.get(label)) == sort_key(arm.settings[name]) for arm in arms)


def _setting_text(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.rsplit('.', 1)[-1].replace('_', ' ')} {plain(value)}" for name, value in settings.items())


def _present(value: Any) -> Any:
    if is_missing(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
