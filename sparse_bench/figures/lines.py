"""The line chart: means with intervals along an axis, in one or several panels, and its caption.

It draws learning curves, metrics against weights or density, published curves, and the topology during training.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from sparse_bench.evidence.display import decimal, joined, percent
from sparse_bench.evidence.statistics import ENOUGH, Interval, mean_interval
from sparse_bench.figures.style import INK, Figure, render

#: Intervals extend the vertical axis by at most this share of the range of the values; longer ones are cut.
_STRETCH = 0.5
#: Values that span more than this factor get a logarithmic axis.
LOG_FROM = 20.0
#: A mean counts as diverged beyond this many times the median of all means, and beyond this magnitude in any case.
_TIMES, _LARGEST = 1e6, 1e30


@dataclass(frozen=True)
class Look:
    """The look of a line; ``strength`` is its opacity, 0 to 1."""

    colour: str
    marker: str = ""
    dashes: str = "-"
    strength: float = 1.0


@dataclass(frozen=True)
class Line:
    """Means along the horizontal axis, from left to right.

    Attributes:
        label: text of the legend.
        points: x, and mean with its interval.
        look: colour, marker, dashes and opacity.
        runs: x and value of single runs, drawn as faint dots.
        published: whether the numbers are from a document.
        level: whether a horizontal reference line is drawn too.
        aside: shift to the right, as a share of a density axis, so that lines at equal densities do not overlap.
        mark: whether the points are places on other lines, such as crossings: rings, at which the axis has no ticks.
    """

    label: str
    points: Sequence[tuple[float, Interval]]
    look: Look
    runs: Sequence[tuple[float, float]] = ()
    published: bool = False
    level: bool = False
    aside: float = 0.0
    mark: bool = False

    @property
    def x(self) -> np.ndarray:
        """Horizontal positions [points]."""
        return np.array([x for x, _ in self.points], dtype=float)

    @property
    def y(self) -> np.ndarray:
        """Means [points]."""
        return np.array([mean.mean for _, mean in self.points], dtype=float)

    @property
    def half_width(self) -> np.ndarray:
        """Half-widths of the intervals [points]; zero for fewer than three seeds."""
        return np.array([(mean.half_width or 0.0) if mean.n >= ENOUGH else 0.0 for _, mean in self.points])

    @property
    def seeds(self) -> set[int]:
        """The numbers of seeds behind the points; exact points, such as timings, have none."""
        return {mean.n for _, mean in self.points if mean.n > 1 or mean.half_width is None}


def point_of(pairs: Sequence[tuple[float, float]]) -> tuple[tuple[float, Interval], Sequence[tuple[float, float]]]:
    """The point of an arm, and its single runs if there are several.

    Args:
        pairs: position and value of each seed.
    """
    places, values = zip(*pairs, strict=True)
    return (float(np.mean(places)), mean_interval(values)), pairs if len(pairs) > 1 else []


@dataclass(frozen=True)
class Panel:
    """Lines in one frame; a title where there are several frames."""

    title: str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Chart:
    """A line chart.

    Attributes:
        panels: one, or several on the same axes.
        x, y: titles of the axes; the vertical one is above the chart.
        axis: kind of the horizontal axis: whole numbers (epochs), any numbers, logarithmic, or densities.
        bands: whether intervals are bands around lines, instead of bars at markers.
        logarithmic: whether the vertical axis is logarithmic.
        from_zero: whether the vertical axis starts at zero.
        shared: whether all panels have the same vertical axis.
        alike: whether equal labels have the same look in all panels, so that one legend explains them.
        remarks: first sentences of the caption.
    """

    panels: Sequence[Panel]
    x: str
    y: str
    axis: Literal["whole", "linear", "logarithmic", "density"]
    bands: bool = False
    logarithmic: bool = False
    from_zero: bool = False
    shared: bool = True
    alike: bool = False
    remarks: Sequence[str] = field(default_factory=tuple)


def line_chart(stem: str, title: str, chart: Chart, *, after: Sequence[str] = (), height: float = 3.7) -> Figure | None:
    """Draw a chart.

    Args:
        stem: stem of the file names.
        title: title of the figure.
        chart: the panels and axes.
        after: last sentences of the caption.
        height: inches.

    Returns:
        None if no line of ours is left after diverged points are removed.
    """
    panels, diverged = _without_diverged(chart)
    lines = [line for panel in panels for line in panel.lines]
    if all(line.published for line in lines):
        return None
    limits = _limits(lines, chart)

    def draw(canvas: Canvas, compact: bool) -> None:
        columns = min(len(panels), 2 if compact and chart.shared else 1 if compact else 3)
        rows = -(-len(panels) // columns)
        grid = canvas.subplots(rows, columns, sharex=chart.shared, sharey=chart.shared, squeeze=False).ravel()
        for axes, panel in zip(grid, panels, strict=False):
            _draw(axes, panel, chart, limits if chart.shared else _limits(panel.lines, chart))
        for axes in grid[len(panels) :]:
            axes.remove()
        # The last panel of each column carries the numbers of a shared axis, and its title where a legend is below.
        for axes in grid[max(0, len(panels) - columns) : len(panels)]:
            axes.xaxis.set_tick_params(labelbottom=True)
            axes.set_xlabel(chart.x if chart.alike else "")
        if len(panels) == 1:
            grid[0].set_title(chart.y)
            grid[0].set_xlabel(chart.x)
        else:
            if chart.y:
                canvas.suptitle(chart.y, x=max(0.01, 0.06 / canvas.get_figwidth()), ha="left", fontsize=9.5)
            if not chart.alike:
                canvas.supxlabel(chart.x, fontsize=9.5)
        if len(panels) == 1 or not chart.shared:
            legend(canvas, grid[:1], compact)
        elif chart.alike:
            legend(canvas, grid[: len(panels)], compact)

    caption = joined([*chart.remarks, *_spread(lines, chart, limits), left_out(diverged), *after])
    # On a phone panels are in two columns and the legend is below them.
    labels = len({line.label for line in lines}) if chart.alike else 0
    tall = 1.4 + 1.75 * -(-len(panels) // 2) + 0.2 * labels if chart.alike and len(panels) > 1 else None
    return render(stem, title, caption, _alt(panels, chart), draw, height=height, compact_height=tall)


def diverged_beyond(values: Sequence[float]) -> float:
    """The magnitude beyond which a mean counts as diverged, given all means of a figure."""
    magnitudes = sorted(abs(value) for value in values)
    # The lower median, so that half of the values may have diverged.
    median = magnitudes[(len(magnitudes) - 1) // 2] if magnitudes else 0.0
    return min(_TIMES * median or _LARGEST, _LARGEST)


def left_out(diverged: Sequence[str]) -> str:
    """The sentence of a caption that lists diverged means; empty without any."""
    return f"Not drawn, because they diverged: {'; '.join(diverged)}." if diverged else ""


def legend(canvas: Canvas, grid: Iterable[Axes], compact: bool) -> None:
    """Add one legend of all ``grid`` outside the axes: to the right, or below them in the compact form."""
    found: dict[str, Artist] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if not found:
        return
    handles, labels = list(found.values()), list(map(_two_lines, found))
    if not compact:
        canvas.legend(handles, labels, loc="outside right upper", labelspacing=0.7)
        return
    columns = 2 if max(len(part) for label in labels for part in label.splitlines()) <= 20 else 1
    canvas.legend(handles, labels, loc="outside lower left", ncols=columns, columnspacing=1.2)


def _two_lines(label: str) -> str:
    """The label, with the realised density on a second line if it has one."""
    return label.replace(" (realised", "\n(realised")


def _draw(axes: Axes, panel: Panel, chart: Chart, limits: tuple[float, float]) -> None:
    places = _places(panel.lines)
    for line in panel.lines:
        look, x, y, half = line.look, _moved(line.x, line.aside, places), line.y, line.half_width
        low, high = y - half, y + half
        if chart.logarithmic:  # a logarithmic axis needs positive values
            low = np.maximum(low, y * 1e-3)
        if line.level:
            axes.axhline(float(y[0]), color=INK, linewidth=1, linestyle=(0, (1, 1.6)), zorder=1.5)
        if half.any() and chart.bands:
            axes.fill_between(x, low, high, color=look.colour, alpha=0.12, linewidth=0)
        elif half.any():
            axes.vlines(x, low, high, color=look.colour, alpha=0.45, linewidth=1.2, zorder=2.5)
        if line.runs:
            at, values = np.array(line.runs, dtype=float).T
            at = _moved(at, line.aside, places)
            axes.plot(at, values, "o", color=look.colour, alpha=0.4, markersize=3.6, markeredgewidth=0)
        for edge, cut, mark in ((limits[0], low < limits[0], "v"), (limits[1], high > limits[1], "^")):
            if not chart.bands and cut.any():  # an arrowhead where a bar leaves the axis
                axes.plot(x[cut], [edge] * cut.sum(), mark, color=look.colour, markersize=4, clip_on=False)
        dashes = (0, (4, 2)) if line.published else look.dashes
        width = 1.2 if line.published else 1.4 if chart.bands else 1.7
        marker = None if chart.bands or line.published else look.marker
        if line.mark:
            axes.plot(x, y, "o", color=look.colour, fillstyle="none", markersize=10, label=line.label, zorder=3.5)
            continue
        axes.plot(
            x, y, linestyle=dashes, marker=marker, color=look.colour, alpha=look.strength, linewidth=width,
            label=line.label, zorder=3,
        )  # fmt: skip
    axes.set_title(_two_lines(panel.title), fontsize=9)
    if chart.logarithmic:
        axes.set_yscale("log")
        _logarithmic_values(axes, limits)
    axes.set_ylim(*limits)
    _horizontal(axes, panel.lines, chart)


def _places(lines: Sequence[Line]) -> list[float]:
    return sorted({float(x) for line in lines if not line.mark for x in line.x})


def _moved(x: np.ndarray, share: float, places: Sequence[float]) -> np.ndarray:
    """Densities [points] shifted by a share of the axis, so that bars at equal densities do not overlap."""
    low, high = places[0], places[-1]
    if not share:
        return x
    return x * (high / low) ** share if _spans_decades(low, high) else x + (high - low) * share


def _horizontal(axes: Axes, lines: Sequence[Line], chart: Chart) -> None:
    places = _places(lines)
    if chart.axis == "whole":
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4 if len(chart.panels) > 1 else 6, integer=True))
    elif chart.axis == "logarithmic":
        logarithmic_axis(axes, places)
    elif chart.axis == "density":
        _density_axis(axes, places, narrow=len(chart.panels) > 1)


def logarithmic_axis(axes: Axes, places: Sequence[float]) -> None:
    """Make the horizontal axis logarithmic, with short numbers and room at both ends."""
    axes.set_xscale("log")
    low, high = min(places), max(places)
    axes.set_xlim(low / 1.25, high * 1.25)
    # Over one or two decades, ticks at powers of ten alone would be too few.
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 30 else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _logarithmic_values(axes: Axes, limits: tuple[float, float]) -> None:
    """Give the vertical axis plain numbers, close enough that any span of values has a few."""
    span = limits[1] / limits[0]
    if span > 3:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if span > 300 else (1.0, 2.0, 5.0)))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.yaxis.set_minor_locator(NullLocator())


def _density_axis(axes: Axes, places: Sequence[float], *, narrow: bool) -> None:
    low, high = places[0], places[-1]
    if _spans_decades(low, high):
        axes.set_xscale("log")
        axes.set_xlim(low / 1.2, high * 1.2)
    else:
        axes.set_xlim(low - 0.05 * high, 1.05 * high)
    kept: list[float] = []
    for tick in reversed(places):
        if not kept or kept[-1] / tick >= ((3 if narrow else 1.3) if _spans_decades(low, high) else 1.05):
            kept.append(tick)
    axes.xaxis.set_major_locator(FixedLocator(kept))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value, digits=3)))


def _spans_decades(low: float, high: float) -> bool:
    """Whether the span of densities needs a logarithmic axis."""
    return high / low >= 4


def _short(value: float) -> str:
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{suffix}"
    return f"{value:g}"


def _without_diverged(chart: Chart) -> tuple[list[Panel], list[str]]:
    """The panels without diverged points, and the names of what was removed."""
    bound = diverged_beyond([mean.mean for panel in chart.panels for line in panel.lines for _, mean in line.points])
    panels, gone = [], []
    for panel in chart.panels:
        kept = []
        for line in panel.lines:
            points = [(x, mean) for x, mean in line.points if abs(mean.mean) <= bound]
            runs = [(x, value) for x, value in line.runs if abs(value) <= bound]
            if points:
                kept.append(replace(line, points=points, runs=runs))
            if places := [x for x, mean in line.points if abs(mean.mean) > bound]:
                name = ", ".join(filter(None, (panel.title, line.label)))
                gone.append(f"{name} at {_span(places, chart)}" if points else name)
        panels += [Panel(panel.title, kept)] if kept else []
    return panels, gone


def _span(places: Sequence[float], chart: Chart) -> str:
    """First and last position as text: ``5 %``, or ``epoch 3 to 12``."""
    texts = [percent(x, digits=3) if chart.axis == "density" else f"{x:,.6g}" for x in (places[0], places[-1])]
    text = " to ".join(dict.fromkeys(texts))
    return f"{chart.x} {text}" if chart.axis == "whole" else text


def _limits(lines: Sequence[Line], chart: Chart) -> tuple[float, float]:
    """Limits of the vertical axis: room for all values, and for intervals up to a length (few seeds give huge ones)."""
    values = np.concatenate([*(line.y for line in lines), *([y for _, y in line.runs] for line in lines)])
    low, high = float(values.min()), float(values.max())
    if chart.logarithmic:
        return low / 1.15, high * 1.15
    spread = (high - low) or 0.1 * abs(high) or 1.0
    ends = [(float((line.y - line.half_width).min()), float((line.y + line.half_width).max())) for line in lines]
    bottom = max(min(end for end, _ in ends), low - _STRETCH * spread)
    top = min(max(end for _, end in ends), high + _STRETCH * spread)
    return 0.0 if chart.from_zero else bottom - 0.06 * spread, top + 0.06 * spread


def _spread(lines: Sequence[Line], chart: Chart, limits: tuple[float, float]) -> list[str]:
    """Sentences of the caption about seeds, intervals and published lines."""
    ours = [line for line in lines if not line.published]
    seeds = sorted(set[int]().union(*(line.seeds for line in ours)))
    shape, what = ("Bands", "line") if chart.bands else ("Bars", "marker")
    parts = []
    if seeds == [1]:
        parts.append("Single runs: there is no interval.")
    elif seeds:
        counted = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        parts.append(f"Means over {counted} seeds.")
        if any(line.half_width.any() for line in ours):
            parts.append(f"{shape}: 95 % t-interval, from three seeds on.")
        if any(line.runs for line in ours):
            parts.append("Faint dots: single runs.")
        if seeds[0] == 1:
            parts.append(f"A {what} without a {shape[:-1].lower()} may be a single run.")
    cut = [
        (line.y - line.half_width < limits[0]).any() or (line.y + line.half_width > limits[1]).any() for line in ours
    ]
    if any(cut) and chart.shared:
        parts.append(f"{shape} that leave the axis are cut{'' if chart.bands else ' (arrowheads)'}.")
    if len(ours) < len(lines):
        parts.append("Dashed: published.")
    if chart.logarithmic:
        parts.append("The vertical axis is logarithmic.")
    return parts


def _alt(panels: Sequence[Panel], chart: Chart) -> str:
    sentences = [f"Line chart of {chart.y.split(',')[0] or 'several metrics'} against {chart.x}."]
    for panel in panels:
        for line in panel.lines:
            name = ", ".join(filter(None, (panel.title, line.label)))
            sentences.append(f"{name}: from {decimal(float(line.y[0]))} to {decimal(float(line.y[-1]))}.")
    return " ".join(sentences)
