"""Single numbers of ours beside the published ones, as a dot plot and a table."""

from collections.abc import Container, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from sparse_bench.report.beside import Shown, joined, remarked, source_of
from sparse_bench.report.figures import legend, logarithmic_axis
from sparse_bench.report.measure import Sample, Unavailable, measure_sides
from sparse_bench.report.papers import Place, Value, Values
from sparse_bench.report.published import Number, read_published
from sparse_bench.report.selection import Evidence, Row, Runs
from sparse_bench.report.statistics import Interval
from sparse_bench.report.style import INK, MUTED, SERIES, file_stem, render
from sparse_bench.report.tables import MISSING, DisplayTable, interval, whole


def values_figure(spec: Values, evidence: Evidence, paper: str) -> Shown:
    """Single numbers, one a row: ours with its interval, the published one hollow."""
    published = read_published(spec.published) if spec.published else None
    rows: list[tuple[str, Interval | None, Number | None]] = []
    exact, lacking, remarks = set(), [], {}
    for row in spec.rows:
        sample = _measured(row, evidence)
        ours = sample.interval if isinstance(sample, Sample) else None
        if isinstance(sample, Sample) and sample.exact:
            exact.add(row.label)
        if isinstance(sample, Sample) and sample.remark:
            remarks[row.label] = sample.remark
        if ours is None and row.sides:
            lacking.append(row.label)
        rows.append((row.label, ours, published.one(row.published) if published and row.published else None))
    remark = remarked(remarks)
    table = _table(joined([spec.note, remark, source_of(published)]), rows, exact, with_published=published is not None)
    if all(ours is None for _, ours, _ in rows):
        return Shown(None, table, spec.title, lacking)

    def draw(canvas: Canvas, compact: bool) -> None:
        axes = canvas.add_subplot()
        for place, (_, ours, number) in enumerate(reversed(rows)):
            if number is not None:
                low, high = number.value - (number.spread or 0.0), number.value + (number.spread or 0.0)
                axes.plot([low, high], [place + 0.16] * 2, "-", color=MUTED, linewidth=1.2)
                axes.plot(
                    [number.value],
                    [place + 0.16],
                    "D",
                    color=MUTED,
                    markerfacecolor="none",
                    label=_once("published", axes),
                )
            if ours is not None:
                axes.plot([ours.low, ours.high], [place - 0.16] * 2, "-", color=SERIES[0], linewidth=1.2)
                axes.plot([ours.mean], [place - 0.16], "o", color=SERIES[0], label=_once("measured", axes))
        axes.set_yticks(range(len(rows)), [label for label, _, _ in reversed(rows)])
        axes.yaxis.set_tick_params(labelcolor=INK)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
        if spec.logarithmic:
            places = [ours.mean for _, ours, _ in rows if ours] + [number.value for _, _, number in rows if number]
            logarithmic_axis(axes, places)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=4 if compact else 7))
        axes.set_xlabel(spec.axis)
        legend(canvas, axes, compact)

    sentences = [
        f"{label}: {f'published {_printed(number)}, ' if published else ''}measured {_ours(ours, label in exact)[0]}."
        for label, ours, number in rows
    ]
    caption = joined(
        [
            spec.note,
            "Dots: mean over seeds with the 95 % t-interval." if any(r[1] and r[1].n > 1 for r in rows) else "",
            "A dot without a line is a single run."
            if any(r[1] and r[1].n == 1 for r in rows if r[0] not in exact)
            else "",
            f"Not run: {'; '.join(lacking)}." if lacking else "",
            remark,
            source_of(published),
        ]
    )
    name = file_stem("values", paper, spec.title)
    height = 1.3 + 0.45 * len(rows)
    figure = render(name, spec.title, caption, " ".join([f"Dot plot of {spec.axis}.", *sentences]), draw, height=height)
    return Shown(figure, table, spec.title, lacking)


def _table(
    caption: str,
    rows: Sequence[tuple[str, Interval | None, Number | None]],
    exact: Container[str],
    *,
    with_published: bool,
) -> DisplayTable:
    columns = ["", *(["published"] if with_published else []), "measured", "seeds"]
    cells = [
        [label, *([_printed(number)] if with_published else []), *_ours(ours, label in exact)]
        for label, ours, number in rows
    ]
    return DisplayTable(caption, columns, cells, [False] + [True] * (len(columns) - 1))


def _ours(found: Interval | None, exact: bool) -> tuple[str, str]:
    """What was measured, and over how many seeds: a count or a timing is one number without an interval."""
    if found is None or not exact:
        return interval(found), str(found.n) if found else MISSING
    return whole(found.mean) if found.mean == round(found.mean) else f"{found.mean:.3g}", MISSING


def _measured(row: Value, evidence: Evidence) -> Sample | Unavailable | None:
    sides = [_side(side) for side in row.sides]
    return measure_sides(row.measure, row.of, sides, evidence, epochs=row.epochs) if sides else None


def _side(place: Place) -> Runs | Row:
    if place.experiment is not None:
        return Runs(place.experiment, place.where)
    assert place.table is not None, "one of both is there"
    return Row(place.table, place.where)


def _printed(number: Number | None) -> str:
    if number is None:
        return MISSING
    value = f"{number.value:,.4g}" if abs(number.value) < 1e4 else f"{number.value:,.0f}"
    return value if number.spread is None else f"{value} ± {number.spread:g}"


def _once(label: str, axes: Axes) -> str:
    """A label for the legend; hidden where it has been given already."""
    return "_nolegend_" if label in axes.get_legend_handles_labels()[1] else label
