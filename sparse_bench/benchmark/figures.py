"""Figures of the benchmark: a task's metric against density, scores over tasks against density or cost, profiles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sparse_bench.benchmark.cells import DENSE, RANDOM, SMALL_DENSE, Cell, Key, schemes_of
from sparse_bench.benchmark.statistics import Normal, interquartile_mean, of_scheme, profile, summary
from sparse_bench.benchmark.tasks import TASKS, Task
from sparse_bench.evidence import names
from sparse_bench.evidence.display import percent
from sparse_bench.figures.style import INK, MARKERS, MUTED, SERIES, Figure, file_stem, render

#: Number of schemes whose lines are coloured, in addition to the two references.
_BEST = 4
#: Least distance of two names at the lines' ends, as a share of the axis.
_APART = 0.055


@dataclass(frozen=True)
class _Line:
    """A scheme's line: horizontal positions, means, and ends of their intervals [points]."""

    scheme: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def task_figure(found: Mapping[Key, Cell], task: Task, pairs: float | None, own: Sequence[str] = ()) -> Figure | None:
    """A task's metric against density: a line a scheme, the best coloured, all names at the lines' ends.

    Args:
        found: the cells.
        task: the task.
        pairs: what counted pairs reach, for a horizontal line; None: unknown.
        own: schemes to colour in any case.

    Returns:
        None without sparse cells.
    """
    lines = []
    for scheme in schemes_of(key for key in found if key[0] == task.name):
        mine = [cell for (name, label, _), cell in found.items() if (name, label) == (task.name, scheme)]
        cells = sorted(mine, key=lambda cell: cell.density)
        means = [cell.interval for cell in cells]
        lines.append(
            _Line(
                scheme,
                [cell.density for cell in cells],
                [m.mean for m in means],
                [m.low for m in means],
                [m.high for m in means],
            )
        )
    dense = next((line.y[0] for line in lines if line.scheme == DENSE), None)
    sign = -1.0 if task.lower_is_better else 1.0
    caption = (
        f"{task.title}: {task.model}. Mean over seeds, with 95 % t-intervals of the coloured lines. Solid level: dense"
        f"{'' if pairs is None else '; dashed level: counts of pairs'}."
    )
    levels = [(dense, "-"), (pairs, "--")]
    return _figure(
        file_stem("benchmark", task.name),
        task.title,
        names.direction(task.metric),
        lines,
        [(y, dashes) for y, dashes in levels if y is not None],
        sign,
        caption,
        own,
        logarithmic=task.lower_is_better,
    )


def overall_figure(normal: Normal, own: Sequence[str] = ()) -> Figure | None:
    """Interquartile mean of the normalised scores against density, for schemes that ran on all tasks."""
    lines = []
    for scheme in schemes_of(normal):
        points = []
        for density in sorted({key[2] for key in normal if key[1] == scheme}):
            by_task = of_scheme(normal, scheme, density)
            if len(by_task) == len(TASKS):
                points.append((density, summary(by_task)))
        if points:
            parts = [one for _, one in points]
            lines.append(
                _Line(
                    scheme,
                    [density for density, _ in points],
                    [p.value for p in parts],
                    [p.low for p in parts],
                    [p.high for p in parts],
                )
            )
    caption = (
        "Interquartile mean over tasks and seeds of the normalised scores: 1 is the dense model, 0 what counting the "
        "targets reaches. Bars of the coloured lines: 95 % stratified bootstrap."
    )
    stem, axis = "benchmark--all-tasks", "normalised score (IQM), higher is better"
    return _figure(stem, "Every scheme over all tasks", axis, lines, [(1.0, "-")], 1.0, caption, own)


def profile_figure(normal: Normal, density: float, own: Sequence[str] = ()) -> Figure | None:
    """Performance profiles at a density: the share of runs with a score above each level."""
    levels = np.linspace(0.0, 1.1, 56).tolist()
    lines = []
    for scheme in schemes_of(normal):
        by_task = of_scheme(normal, scheme, density)
        if len(by_task) == len(TASKS):
            shares = profile(by_task, levels)
            lines.append(_Line(scheme, levels, shares, shares, shares))
    means = {
        line.scheme: float(interquartile_mean(np.concatenate(list(of_scheme(normal, line.scheme, density).values()))))
        for line in lines
    }
    caption = "Share of runs, on average over tasks, whose normalised score is above the level on the horizontal axis."
    return _figure(
        file_stem("benchmark", "profile", f"{density:g}"),
        f"Performance profiles at density {percent(density)}",
        "share of runs with a higher score",
        lines,
        [],
        1.0,
        caption,
        own,
        x="normalised score",
        densities=False,
        ranks=means,
    )


def cost_figure(normal: Normal, found: Mapping[Key, Cell], column: str, own: Sequence[str] = ()) -> Figure | None:
    """Mean score against a cost of training (macs, seconds or held), over the dense model's; means over all tasks."""
    lines = []
    for scheme in (name for name in schemes_of(normal) if name != DENSE):
        points = []
        for density in sorted({key[2] for key in normal if key[1] == scheme}):
            keys = [(task.name, scheme, density) for task in TASKS]
            shares = [_share(found, key, column) for key in keys]
            if any(share is None for share in shares) or not all(key in normal for key in keys):
                continue
            values = np.concatenate([np.array(list(normal[key].values())) for key in keys])
            points.append(
                (float(np.mean([share for share in shares if share is not None])), interquartile_mean(values))
            )
        if points:
            x, y = zip(*sorted(points), strict=True)
            lines.append(_Line(scheme, x, y, y, y))
    words = {
        "macs": "multiply-accumulates of training",
        "seconds": "processor seconds of training (existing weights only, where that was timed)",
        "held": "weights held while training",
    }[column]
    return _figure(
        file_stem("benchmark", "cost", column),
        f"Score against {words.split(' (')[0]}",
        "normalised score (IQM), higher is better",
        lines,
        [(1.0, "-")],
        1.0,
        f"Horizontal: {words}, as a share of the dense model's, mean over tasks. Points of a line: densities.",
        own,
        x=f"{words.split(' (')[0]}, share of dense",
    )


def _share(found: Mapping[Key, Cell], key: Key, column: str) -> float | None:
    cell, dense = found.get(key), found.get((key[0], DENSE, 1.0))
    if cell is None or dense is None:
        return None
    own = cell.kernel_seconds or cell.seconds if column == "seconds" else getattr(cell, column)
    full = dense.weights if column == "held" else getattr(dense, column)
    return float(np.mean(own) / np.mean(full)) if len(own) and len(full) else None


def _figure(
    stem: str,
    title: str,
    axis: str,
    lines: Sequence[_Line],
    levels: Sequence[tuple[float, str]],
    sign: float,
    caption: str,
    own: Sequence[str],
    *,
    x: str = "density",
    densities: bool = True,
    logarithmic: bool = False,
    ranks: Mapping[str, float] | None = None,
) -> Figure | None:
    """Draw lines with names at their ends; the best in colour, the references in ink, all others grey."""
    drawn = [line for line in lines if line.scheme != DENSE]
    if not drawn:
        return None
    known = ranks or {line.scheme: sign * float(np.mean(line.y[:3])) for line in drawn}
    rivals = [line.scheme for line in drawn if line.scheme not in (RANDOM, SMALL_DENSE)]
    best = sorted(rivals, key=lambda scheme: -known[scheme])[:_BEST]
    coloured = [*own, *(scheme for scheme in best if scheme not in own)][: len(SERIES)]
    looks: dict[str, dict[str, Any]] = {
        scheme: {"color": SERIES[place], "marker": MARKERS[place], "zorder": 4} for place, scheme in enumerate(coloured)
    }
    looks |= {RANDOM: {"color": INK, "linestyle": "--", "zorder": 3}, SMALL_DENSE: {"color": INK, "zorder": 3}}

    def draw(canvas: Canvas, compact: bool) -> None:
        axes = canvas.subplots()
        for line in drawn:
            look = looks.get(line.scheme, {"color": MUTED, "alpha": 0.35, "linewidth": 0.9, "zorder": 2})
            if not densities:
                look = {key: value for key, value in look.items() if key != "marker"}
            axes.plot(line.x, line.y, **look)
            if line.scheme in coloured:
                axes.vlines(line.x, line.low, line.high, color=look["color"], alpha=0.45, linewidth=1.2, zorder=2.5)
        for level, dashes in levels:
            axes.axhline(level, color=INK, linewidth=0.9, linestyle=dashes, zorder=1.5)
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        if densities:
            places = sorted({round(place, 4) for line in drawn for place in line.x})
            axes.set_xscale("log")
            if x == "density":
                axes.xaxis.set_major_locator(FixedLocator(places))
                axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value, digits=2)))
            axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
        axes.set_title(axis)
        axes.set_xlabel(x)
        _names(axes, drawn, looks)

    order = sorted(drawn, key=lambda line: -known[line.scheme])
    alt = f"{title}. Best first: {', '.join(line.scheme for line in order)}."
    return render(stem, title, caption, alt, draw, height=4.6)


def _names(axes: Axes, lines: Sequence[_Line], looks: Mapping[str, Mapping[str, Any]]) -> None:
    """Write each line's name at its right end, in a column without overlaps."""
    axes.get_xlim(), axes.get_ylim()  # matplotlib computes the limits when they are asked for
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = sorted((float(to_axes.transform((line.x[-1], line.y[-1]))[1]), line.scheme) for line in lines)
    heights = [height for height, _ in ends]
    for place in range(1, len(heights)):
        heights[place] = max(heights[place], heights[place - 1] + _APART)
    if heights and heights[-1] > 1.0:  # too high: push down from the top
        heights[-1] = 1.0
        for place in range(len(heights) - 2, -1, -1):
            heights[place] = min(heights[place], heights[place + 1] - _APART)
    for (true, scheme), height in zip(ends, heights, strict=True):
        colour = looks.get(scheme, {}).get("color", MUTED)
        axes.plot([1.0, 1.03], [true, height], color=colour, linewidth=0.5, transform=axes.transAxes, clip_on=False)
        axes.text(
            1.035, height, scheme.replace("_", " "), color=colour, fontsize=7.5, va="center", transform=axes.transAxes
        )
