"""How far the density can go down: the smallest one within an interval of dense, and the area under a curve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparse_bench.report import metric_names
from sparse_bench.report.arms import DENSITY, SPARSE_SIZE, SPARSE_WEIGHTS, Arm, Study, percent, unlike
from sparse_bench.report.statistics import StatisticsError, log_average, smallest_density_within
from sparse_bench.report.tables import MISSING, DisplayTable, decimal, whole, with_warnings


@dataclass(frozen=True)
class _Family:
    """Arms of one scheme and one width of model, by realised density, and the dense arm of that width."""

    name: str
    width: int  # trainable weights of the dense model
    dense: Arm
    arms: Mapping[float, Arm]


def density_table(study: Study, metrics: Sequence[str]) -> DisplayTable | None:
    """For each scheme and width of model that has a dense arm: how each metric depends on the density.

    The smallest density whose mean is within the dense arm's interval, and the area under the curve of means over a
    logarithmic axis of densities, divided by the width of the range that all schemes of that width reach.

    Returns:
        None if no sparse arm has a dense one of its width.
    """
    families = _families(study)
    if not families:
        return None
    rows = []
    for family in families:
        cells = []
        for metric in metrics:
            rivals = [f for f in families if f.width == family.width]
            cells += [_smallest(family, metric), _area(family, rivals, metric)]
        size = family.dense.mean(SPARSE_SIZE) or 0.0
        rows.append([family.name, whole(size), whole(family.width), *cells])
    columns = ["scheme", "weights of the dense layers", "of the dense model"]
    for metric in metrics:
        columns += [
            f"{metric_names.title(metric)}: smallest density within dense",
            f"{metric_names.title(metric)}: area",
        ]
    caption = (
        "Smallest density within dense: the smallest realised density whose mean is no worse than the dense arm's by "
        "more than half the width of the dense arm's 95 % interval; none where no density is, and a dash where the "
        "dense arm has a single seed; with the density that was asked for where it is another. Area: average height of "
        "the metric along a logarithmic axis of densities, over the range that all schemes of that width share."
    )
    caption = with_warnings(caption, study.arms)
    return DisplayTable(caption, columns, rows, [False] + [True] * (len(columns) - 1))


def _families(study: Study) -> list[_Family]:
    dense = [arm for arm in study.arms if arm.kind == "dense" and arm.full_size and len(arm.runs)]
    names = [name for name in study.settings[0] if not name.startswith("sparsity.")]
    words = [name for name in names if len({arm.settings[name] for arm in study.arms}) > 1]
    words = [name for name in words if all(isinstance(arm.settings[name], str) for arm in study.arms)]
    groups: dict[tuple[str, Arm], dict[float, Arm]] = {}
    for curve in study.curves:
        if curve.kind == "dense":
            continue
        for arm in curve.arms:
            partner = _partner(arm, dense, names)
            if partner is None:
                continue
            density = arm.mean(DENSITY)
            if curve.kind == "small_dense":
                full = partner.mean(SPARSE_SIZE)
                density = (arm.mean(SPARSE_WEIGHTS) or 0.0) / full if full else None
            if density:
                told = [f"{name.rsplit('.', 1)[-1].replace('_', ' ')} {arm.settings[name]}" for name in words]
                told = [text for text in told if text not in curve.variant]
                name = ", ".join(filter(None, (curve.scheme.replace("_", " "), curve.variant, *told)))
                groups.setdefault((name, partner), {})[density] = arm
    return [_Family(name, partner.full_size or 0, partner, arms) for (name, partner), arms in groups.items()]


def _partner(arm: Arm, dense: Sequence[Arm], names: Sequence[str]) -> Arm | None:
    """The dense arm of its width; of several the one with the same settings ``names``, and none if there is no such."""
    if arm.kind == "small_dense":  # narrower: it belongs to the one width that it stands beside
        wide = list(dense) if len({other.full_size for other in dense}) == 1 else []
    else:
        wide = [other for other in dense if other.full_size == arm.full_size]
    if len(wide) > 1:
        wide = [other for other in wide if all(other.settings[name] == arm.settings[name] for name in names)]
    return wide[0] if len(wide) == 1 else None


def _smallest(family: _Family, metric: str) -> str:
    column = f"metric:{metric}"
    values = {density: list(arm.values(column).values()) for density, arm in family.arms.items()}
    dense = list(family.dense.values(column).values())
    measured = {density: found for density, found in values.items() if found}
    if not measured or not dense:
        return MISSING
    try:
        found = smallest_density_within(measured, dense, lower_is_better=metric_names.lower_is_better(metric))
    except StatisticsError:
        return MISSING
    if found is None:
        return "none"
    asked = family.arms[found].labels.get("density")
    other = f" (asked for: {percent(float(asked))})" if asked is not None and unlike(asked, [found]) else ""
    return percent(found, digits=3) + other


def _area(family: _Family, rivals: Sequence[_Family], metric: str) -> str:
    points = _means(family, metric)
    if len(points) < 2:
        return MISSING
    curves = [means for rival in rivals if len(means := _means(rival, metric)) > 1]
    bounds = max(min(means) for means in curves), min(max(means) for means in curves)
    try:
        return decimal(log_average(list(points), list(points.values()), bounds))
    except StatisticsError:
        return MISSING


def _means(family: _Family, metric: str) -> dict[float, float]:
    found = {density: arm.mean(f"metric:{metric}") for density, arm in family.arms.items()}
    return {density: mean for density, mean in found.items() if mean is not None}
