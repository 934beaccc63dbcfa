"""The figures that read a metric against weights or density, for any experiment."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from sparse_bench.report import metric_names
from sparse_bench.report.arms import DENSITY, SPARSE_SIZE, SPARSE_WEIGHTS, Arm, Curve, Study, percent
from sparse_bench.report.statistics import Interval
from sparse_bench.report.style import INK, MARKERS, MUTED, SERIES, SMALL_DENSE_MARKER, Figure, file_stem, render
from sparse_bench.report.tables import decimal, outside_weights, whole, with_warnings

#: Intervals may stretch the vertical axis by this share of the range of the runs; longer ones are cut at its edge.
_STRETCH = 0.5
#: Schemes at the same density stand this share of the axis apart.
_ASIDE = 0.014


@dataclass(frozen=True)
class LineStyle:
    """How a curve is drawn, the same in every figure of a study."""

    colour: str
    marker: str
    dashes: str


@dataclass(frozen=True)
class _Point:
    """An arm on a curve: where it lies, its mean and interval, and its single runs."""

    x: float
    interval: Interval
    runs: Sequence[tuple[float, float]]


def line_styles(study: Study) -> dict[Curve, LineStyle]:
    """A style for every curve: dense in ink, narrower dense models dashed, the others each with a hue and a marker.

    Where several schemes are compared over several densities, the hue tells the scheme and the marker the density.
    """
    sparse = [curve for curve in study.curves if curve.kind == "sparse"]
    families = list(dict.fromkeys((curve.scheme, curve.variant) for curve in sparse))
    densities = list(dict.fromkeys(curve.density for curve in sparse))
    crossed = len(families) > 1 and len(densities) > 1
    styles = {}
    for curve in study.curves:
        if curve.kind == "dense":
            styles[curve] = LineStyle(INK, "o", "-")
        elif curve.kind == "small_dense":
            styles[curve] = LineStyle(MUTED, SMALL_DENSE_MARKER, "--")
        else:
            hue = families.index((curve.scheme, curve.variant)) if crossed else sparse.index(curve)
            mark = densities.index(curve.density) if crossed else sparse.index(curve)
            styles[curve] = LineStyle(SERIES[hue % len(SERIES)], MARKERS[(mark + 1) % len(MARKERS)], "-")
    return styles


def study_figure(study: Study, metric: str) -> Figure | None:
    """Metric against the trainable weights in the sparse layers, on a logarithmic axis: one curve a density.

    This is the figure of the blog post on randomly connected layers, for whatever the study holds. If no curve has a
    second point (one width of model), the metric is drawn against the realised density instead.

    Args:
        study: the arms of one experiment.
        metric: its name in the results.

    Returns:
        None if fewer than two arms have both sparse layers and the metric.
    """
    by_density = study.one_width
    full = max((arm.mean(SPARSE_SIZE) or 0.0 for arm in study.arms if arm.kind != "small_dense"), default=0.0)
    curves = {}
    for curve in study.curves:
        found = [
            _point(arm, metric, full if by_density and curve.kind == "small_dense" else None, by_density)
            for arm in curve.arms
        ]
        points = [point for point in found if point is not None]
        if points:
            curves[curve] = points
    if sum(map(len, curves.values())) < 2:
        return None
    title = metric_names.title(metric)
    styles = line_styles(study)

    def draw(canvas: Canvas, compact: bool) -> None:
        axes = canvas.add_subplot()
        xs = [x for points in curves.values() for point in points for x, _ in (*point.runs, (point.x, 0.0))]
        if by_density:
            _draw_families(axes, curves, styles)
            _density_axis(axes, xs, sorted({point.x for points in curves.values() for point in points}))
            axes.set_xlabel("density" if compact else "density: share of the sparse layers' weights that exist")
        else:
            for curve, points in curves.items():
                _draw_line(axes, points, styles[curve], curve.told)
            logarithmic_axis(axes, xs)
            axes.set_xlabel(f"{'' if compact else 'trainable '}weights in the sparse layers (log scale)")
        _vertical_axis(axes, list(curves.values()), metric)
        legend(canvas, axes, compact)

    against = "density" if by_density else "weights in the sparse layers"
    name = file_stem("density" if by_density else "weights", study.experiment, *map(str, study.labels.values()), metric)
    return render(
        name, f"{title} against {against}", _caption(study, curves, by_density), _alt(curves, metric, against), draw
    )


def legend(canvas: Canvas, axes: Axes, compact: bool) -> None:
    """A legend outside the axes: to the right, or below them in the compact form."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    labels = [two_lines(label) for label in labels]
    if not compact:
        canvas.legend(handles, labels, loc="outside right upper", labelspacing=0.7)
        return
    columns = 2 if max(len(line) for label in labels for line in label.splitlines()) <= 20 else 1
    canvas.legend(handles, labels, loc="outside lower left", ncols=columns, columnspacing=1.2)


def two_lines(label: str) -> str:
    """A label with the realised density, if it tells one, on a line of its own."""
    return label.replace(" (realised", "\n(realised")


def direction(metric: str) -> str:
    """A metric's title with the direction in which it gets better; a topology is neither good nor bad."""
    if metric.startswith("topology/"):
        return metric_names.title(metric)
    return f"{metric_names.title(metric)}, {'lower' if metric_names.lower_is_better(metric) else 'higher'} is better"


def _point(arm: Arm, metric: str, full: float | None, by_density: bool) -> _Point | None:
    """Place an arm: at its weights, at its realised density, or at its weights as a share of ``full``."""
    values = arm.values(f"metric:{metric}")
    places = arm.values(DENSITY if by_density and full is None else SPARSE_WEIGHTS)
    if full:
        places = {seed: weights / full for seed, weights in places.items()}
    interval, seeds = arm.interval(f"metric:{metric}"), sorted(values.keys() & places.keys())
    if interval is None or not seeds or min(places.values()) <= 0:
        return None
    x = float(np.mean([places[seed] for seed in seeds]))
    return _Point(x, interval, [(places[seed], values[seed]) for seed in seeds])


def _draw_line(axes: Axes, points: Sequence[_Point], style: LineStyle, label: str) -> None:
    runs = np.array([run for point in points if len(point.runs) > 1 for run in point.runs]).reshape(-1, 2)
    axes.plot(runs[:, 0], runs[:, 1], "o", color=style.colour, alpha=0.4, markersize=3.6, markeredgewidth=0, zorder=2.7)
    for point in points:
        if point.interval.half_width is not None:
            ends = [point.interval.low, point.interval.high]
            axes.plot([point.x, point.x], ends, "-", color=style.colour, alpha=0.45, linewidth=1.2, zorder=2.5)
    axes.plot(
        [point.x for point in points],
        [point.interval.mean for point in points],
        color=style.colour,
        marker=style.marker,
        linestyle=style.dashes,
        label=label,
        zorder=3,
    )


def _draw_families(axes: Axes, curves: dict[Curve, list[_Point]], styles: dict[Curve, LineStyle]) -> None:
    """Against density: arms of one scheme are joined; the dense arm is a level to compare with."""
    families: dict[str, tuple[list[_Point], LineStyle]] = {}
    for curve, points in curves.items():
        if curve.kind == "dense":
            for point in points:
                axes.axhline(point.interval.mean, color=INK, linewidth=1, linestyle=(0, (1, 1.6)), zorder=1.5)
            _draw_line(axes, points, styles[curve], curve.label)
            continue
        name = curve.label
        if curve.kind == "sparse":
            name = ", ".join(filter(None, (curve.scheme.replace("_", " "), curve.variant)))
        # The first member's style stands for the family: its hue if hues tell schemes, else the first hue.
        families.setdefault(name, ([], styles[curve]))[0].extend(points)
    xs = [point.x for points, _ in families.values() for point in points]
    for number, (name, (points, style)) in enumerate(families.items()):
        aside = (number - (len(families) - 1) / 2) * _ASIDE
        moved = [_aside(point, aside, xs) for point in sorted(points, key=lambda point: point.x)]
        _draw_line(axes, moved, style, name)


def _aside(point: _Point, share: float, xs: Sequence[float]) -> _Point:
    """The point moved by a share of the axis, so that bars of schemes at the same density stand side by side."""
    low, high = min(xs), max(xs)
    if _is_logarithmic(low, high):
        factor = (high / low) ** share
        return _Point(point.x * factor, point.interval, [(x * factor, y) for x, y in point.runs])
    step = (high - low) * share
    return _Point(point.x + step, point.interval, [(x + step, y) for x, y in point.runs])


def _is_logarithmic(low: float, high: float) -> bool:
    """Whether densities span enough to stand on a logarithmic axis."""
    return high / low >= 4


def logarithmic_axis(axes: Axes, xs: Sequence[float]) -> None:
    """A horizontal axis of powers of ten, with short numbers and room at both ends."""
    axes.set_xscale("log")
    low, high = min(xs), max(xs)
    axes.set_xlim(low / 1.25, high * 1.25)
    # Within a decade or two, a tick at every power of ten would be too few.
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 30 else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _compact_number(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _density_axis(axes: Axes, xs: Sequence[float], ticks: Sequence[float]) -> None:
    low, high = min(xs), max(xs)
    if _is_logarithmic(low, high):
        axes.set_xscale("log")
        axes.set_xlim(low / 1.2, high * 1.2)
        apart = 1.3
    else:
        axes.set_xlim(low - 0.05 * high, 1.05 * high)
        apart = 1.05
    kept: list[float] = []
    for tick in reversed(ticks):
        if not kept or kept[-1] / tick >= apart:
            kept.append(tick)
    axes.xaxis.set_major_locator(FixedLocator(kept))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value, digits=3)))


def _vertical_axis(axes: Axes, curves: Sequence[Sequence[_Point]], metric: str) -> None:
    axes.set_title(direction(metric))
    low, high = _limits(curves)
    axes.set_ylim(low, high)


def _limits(curves: Sequence[Sequence[_Point]]) -> tuple[float, float]:
    """Room for every run and for intervals of reasonable length (two seeds can give enormous ones)."""
    points = [point for curve in curves for point in curve]
    values = [value for point in points for _, value in point.runs]
    low, high = min(values), max(values)
    spread = (high - low) or 0.1 * abs(high) or 1.0
    room = _STRETCH * spread
    bottom = max(min(point.interval.low for point in points), low - room)
    top = min(max(point.interval.high for point in points), high + room)
    return bottom - 0.06 * spread, top + 0.06 * spread


def _caption(study: Study, curves: dict[Curve, list[_Point]], by_density: bool) -> str:
    points = [point for found in curves.values() for point in found]
    seeds = sorted({point.interval.n for point in points})
    counted = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    parts = []
    if seeds[-1] > 1:
        parts.append(
            f"Each marker is the mean over {counted} seeds, its bar the 95 % t-interval; faint dots are single runs."
        )
        if seeds[0] == 1:
            parts.append("A marker without a bar is a single run.")
    else:
        parts.append("Each marker is a single run: there is no interval.")
    low, high = _limits(list(curves.values()))
    if any(point.interval.low < low or point.interval.high > high for point in points):
        parts.append("Bars that leave the axis are cut; the table has them in full.")
    if by_density:
        parts.append("Densities are realised mask sums over the size of the full layers.")
        if len({(curve.scheme, curve.variant) for curve in curves if curve.kind != "dense"}) > 1:
            parts.append("Arms of equal density stand side by side.")
        if any(curve.kind == "dense" for curve in curves):
            parts.append("The dotted line is the dense arm's mean.")
        if any(curve.kind == "small_dense" for curve in curves):
            parts.append("A narrower dense model stands at its weights as a share of the full model's.")
    else:
        parts.append("The horizontal place is the mean of the realised mask sums.")
    outside = outside_weights(study)
    if outside:
        low_text, high_text = whole(outside[0]), whole(outside[1])
        amount = low_text if low_text == high_text else f"between {low_text} and {high_text}"
        parts.append(f"Outside the sparse layers each model has {amount} trainable weights, all dense.")
    missing = sum(len(curve.arms) for curve in study.curves) - len(points)
    if missing:
        parts.append(f"Not drawn, for want of sparse layers or of this metric: {missing} arms.")
    return with_warnings(" ".join(parts), study.arms)


def _alt(curves: dict[Curve, list[_Point]], metric: str, against: str) -> str:
    sentences = [f"Line chart of {metric_names.title(metric)} against {against}, {len(curves)} curves."]
    for curve, points in curves.items():
        first, last = points[0], points[-1]
        place = percent if against == "density" else whole
        text = f"{curve.told}: {decimal(first.interval.mean)} at {place(first.x)}"
        if len(points) > 1:
            text += f", {decimal(last.interval.mean)} at {place(last.x)}"
        sentences.append(f"{text}.")
    return " ".join(sentences)


def _compact_number(value: float) -> str:
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{suffix}"
    return f"{value:g}"
