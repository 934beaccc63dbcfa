"""The dot plot: single numbers, one a row, measured and published."""

import textwrap
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

#: Longest line of a label in the compact form, in letters.
_NARROW = 22


@dataclass(frozen=True)
class Dot:
    """A row.

    Attributes:
        label: text at the left.
        ours: the measurement; None if there is none.
        exact: whether the measurement has no error.
        published: the document's number, if it gives one.
        runs: values of single runs, drawn as faint dots.
        quartiles: the first and the third quartile of what the measurement is the median of, drawn as a line.
    """

    label: str
    ours: Interval | None
    exact: bool
    published: Number | None
    runs: Sequence[float] = ()
    quartiles: tuple[float, float] | None = None


def dot_plot(
    stem: str,
    title: str,
    dots: Sequence[Dot],
    axis: str,
    note: str,
    *,
    after: Sequence[str] = (),
    logarithmic: bool = False,
    level: float | None = None,
) -> Figure | None:
    """Draw the rows from top to bottom.

    Args:
        stem: stem of the file names.
        title: title of the figure.
        dots: the rows.
        axis: title of the horizontal axis.
        note: first sentence of the caption.
        after: last sentences of the caption.
        logarithmic: whether the horizontal axis is logarithmic.
        level: where a vertical reference line is drawn.

    Returns:
        None if no measurement of ours is left after diverged ones are removed.
    """
    # Diverged means would flatten all others, so they are listed in the caption instead.
    bound = diverged_beyond(_places(dots))
    diverged = [dot.label for dot in dots if dot.ours is not None and abs(dot.ours.mean) > bound]
    dots = [replace(dot, ours=None, runs=()) if dot.label in diverged else dot for dot in dots]
    if all(dot.ours is None for dot in dots):
        return None

    def draw(canvas: Canvas, compact: bool) -> None:
        axes = canvas.add_subplot()
        if level is not None:
            axes.axvline(level, color=INK, linewidth=1, linestyle=(0, (1, 1.6)), zorder=1.5)
        both = any(dot.published is not None for dot in dots)
        for place, dot in enumerate(reversed(dots)):
            # With both numbers, the published one is above the label's line and ours below; a single one is on it.
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
                if dot.quartiles is not None:
                    axes.plot(dot.quartiles, [place - aside] * 2, "-", color=SERIES[0], linewidth=1.2)
                if dot.ours.n >= ENOUGH:
                    axes.plot([dot.ours.low, dot.ours.high], [place - aside] * 2, "-", color=SERIES[0], linewidth=1.2)
                axes.plot(dot.ours.mean, place - aside, "o", color=SERIES[0], label=_once("measured", axes))
        # Beside long labels a phone would have no room for the dots.
        labels = [textwrap.fill(dot.label, _NARROW) if compact else dot.label for dot in reversed(dots)]
        axes.set_yticks(range(len(dots)), labels)
        axes.yaxis.set_tick_params(labelcolor=INK)
        axes.set_ylim(-0.6, len(dots) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
        if logarithmic:
            logarithmic_axis(axes, _places(dots))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=4 if compact else 7))
        axes.set_xlabel(axis)
        if both:
            legend(canvas, [axes], compact)

    # The caption explains only the marks that are drawn.
    seeds = {dot.ours.n for dot in dots if dot.ours is not None and not dot.exact}
    parts = [note]
    if any(n > 1 for n in seeds):
        parts.append("Dots: means over seeds.")
    if any(n >= ENOUGH for n in seeds):
        parts.append("Lines: 95 % t-interval, from three seeds on.")
    if any(dot.quartiles for dot in dots):
        parts.append("Dots: medians over rounds. Lines: quartiles.")
    if any(dot.runs for dot in dots):
        parts.append("Faint dots: single runs.")
    if 1 in seeds:
        parts.append("A dot without a line may be a single run.")
    # The text alternative repeats all numbers.
    sentences = [f"Dot plot of {axis}."]
    for dot in dots:
        text = f"published {decimal(dot.published.value)}, " if dot.published is not None else ""
        sentences.append(f"{dot.label}: {text}measured {decimal(dot.ours.mean if dot.ours else None)}.")
    caption = joined([*parts, left_out(diverged), *after])
    height = 1.3 + (0.45 if len(dots) <= 12 else 0.32) * len(dots)
    return render(stem, title, caption, " ".join(sentences), draw, height=height)


def _places(dots: Sequence[Dot]) -> list[float]:
    ours = [dot.ours.mean for dot in dots if dot.ours is not None]
    return ours + [dot.published.value for dot in dots if dot.published is not None]


def _once(label: str, axes: Axes) -> str:
    """The label for the legend, or the hidden label if the legend has it already."""
    return "_nolegend_" if label in axes.get_legend_handles_labels()[1] else label
