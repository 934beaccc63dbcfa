"""The one dot plot: single numbers, a row each, ours beside the published one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from sparse_bench.evidence.display import decimal, joined
from sparse_bench.evidence.statistics import ENOUGH, Interval
from sparse_bench.figures.lines import diverged_beyond, left_out, legend, logarithmic_axis
from sparse_bench.figures.style import INK, MUTED, SERIES, Figure, render
from sparse_bench.papers.published import Number


@dataclass(frozen=True)
class Dot:
    """A row.

    Attributes:
        label: at its left.
        ours: what was measured; None where nothing was.
        exact: whether it is known without error.
        published: the document's number, if it gives one.
        runs: values of single runs, drawn as faint dots.
    """

    label: str
    ours: Interval | None
    exact: bool
    published: Number | None
    runs: Sequence[float] = ()


def dot_plot(
    stem: str,
    title: str,
    dots: Sequence[Dot],
    axis: str,
    note: str,
    *,
    after: Sequence[str] = (),
    logarithmic: bool = False,
) -> Figure | None:
    """Draw the rows from top to bottom; None if nothing of ours is left to draw.

    Args:
        stem: name of the figure's files.
        title: a few words.
        dots: the rows.
        axis: title of the horizontal axis.
        note: what begins the caption.
        after: sentences that end it.
        logarithmic: the horizontal axis is.
    """
    bound = diverged_beyond(_places(dots))
    diverged = [dot.label for dot in dots if dot.ours is not None and abs(dot.ours.mean) > bound]
    dots = [replace(dot, ours=None, runs=()) if dot.label in diverged else dot for dot in dots]
    if all(dot.ours is None for dot in dots):
        return None

    def draw(canvas: Canvas, compact: bool) -> None:
        axes = canvas.add_subplot()
        both = any(dot.published is not None for dot in dots)
        for place, dot in enumerate(reversed(dots)):
            # A published number stands as far above the label's line as ours below it; alone, a number stands on it.
            aside = 0.14 if both else 0.0
            if dot.published is not None:
                spread = dot.published.spread or 0.0
                ends = [dot.published.value - spread, dot.published.value + spread]
                axes.plot(ends, [place + aside] * 2, "-", color=MUTED, linewidth=1.2)
                label = _once("published", axes)
                axes.plot(dot.published.value, place + aside, "D", color=MUTED, markerfacecolor="none", label=label)
            if dot.ours is not None:
                if dot.runs:
                    places = [place - aside] * len(dot.runs)
                    axes.plot(dot.runs, places, "o", color=SERIES[0], alpha=0.4, markersize=3.6, markeredgewidth=0)
                if dot.ours.n >= ENOUGH:
                    axes.plot([dot.ours.low, dot.ours.high], [place - aside] * 2, "-", color=SERIES[0], linewidth=1.2)
                axes.plot(dot.ours.mean, place - aside, "o", color=SERIES[0], label=_once("measured", axes))
        axes.set_yticks(range(len(dots)), [dot.label for dot in reversed(dots)])
        axes.yaxis.set_tick_params(labelcolor=INK)
        axes.set_ylim(-0.6, len(dots) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
        if logarithmic:
            logarithmic_axis(axes, _places(dots))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=4 if compact else 7))
        axes.set_xlabel(axis)
        legend(canvas, axes, compact)

    seeds = {dot.ours.n for dot in dots if dot.ours is not None and not dot.exact}
    parts = [note]
    if any(n > 1 for n in seeds):
        parts.append("Dots: means over seeds.")
    if any(n >= ENOUGH for n in seeds):
        parts.append("Lines: 95 % t-interval, from three seeds on.")
    if any(dot.runs for dot in dots):
        parts.append("Faint dots: single runs.")
    if 1 in seeds:
        parts.append("A dot without a line may be a single run.")
    sentences = [f"Dot plot of {axis}."]
    for dot in dots:
        told = f"published {decimal(dot.published.value)}, " if dot.published is not None else ""
        sentences.append(f"{dot.label}: {told}measured {decimal(dot.ours.mean if dot.ours else None)}.")
    caption = joined([*parts, left_out(diverged), *after])
    return render(stem, title, caption, " ".join(sentences), draw, height=1.3 + 0.45 * len(dots))


def _places(dots: Sequence[Dot]) -> list[float]:
    ours = [dot.ours.mean for dot in dots if dot.ours is not None]
    return ours + [dot.published.value for dot in dots if dot.published is not None]


def _once(label: str, axes: Axes) -> str:
    """A label for the legend; hidden where it has been given already."""
    return "_nolegend_" if label in axes.get_legend_handles_labels()[1] else label
