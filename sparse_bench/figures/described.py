"""Figures described in a paper's page.yaml: our measurements with the published numbers."""

from collections.abc import Mapping, Sequence

from sparse_bench.evidence import names
from sparse_bench.evidence.arms import arms_of
from sparse_bench.evidence.compare import Evidence, Sample, SelectionError, measure, one_arm, remarks_on
from sparse_bench.evidence.csv_tables import is_finite
from sparse_bench.evidence.display import MISSING, DisplayTable, interval, joined, whole
from sparse_bench.evidence.statistics import Interval
from sparse_bench.figures.dots import Dot, dot_plot
from sparse_bench.figures.lines import Chart, Line, Look, Panel, line_chart, point_of
from sparse_bench.figures.study import frames, mean_curve
from sparse_bench.figures.style import INK, MARKERS, SERIES, Figure, file_stem
from sparse_bench.papers.page import Along, Dots, Epochs, Paper, Series
from sparse_bench.papers.published import Number, read_published
from sparse_bench.papers.schema import Target

_Points = list[tuple[float, Interval]]
_Runs = list[tuple[float, float]]


def lines_figure(spec: Epochs | Along, evidence: Evidence, paper: Paper) -> Figure | None:
    """Draw a metric per epoch, or against a count, a label or a setting. Published numbers are dashed.

    Returns:
        None if nothing of ours was run.
    """
    published = read_published(paper.folder, spec.published)
    lines: list[Line] = []
    lacking, remarks = [], {}
    for series, look in zip(spec.series, _looks(spec.series), strict=True):
        target = series.only()
        points, runs, remarks[series.label] = _measured(target, spec, evidence) if target is not None else ([], [], "")
        if points:
            lines.append(Line(series.label, points, look, runs))
        elif target is not None:
            lacking.append(f"{series.label} ({'not measured' if evidence.exists(target, spec.of) else 'not run'})")
        printed = [(n.x, Interval(n.value, None, 1)) for n in published.get(series.published) if n.x is not None]
        if printed:
            lines.append(Line(f"{series.label}, published", printed, Look(look.colour), published=True))
    ours = [line for line in lines if not line.published]
    compared = len({one.ink for one in spec.series}) == 2
    # A reference line without the lines that it is compared with is not worth a figure.
    if not ours or (compared and all(line.look.colour == INK for line in ours)):
        return None
    after = [f"Not shown: {'; '.join(lacking)}." if lacking else "", _remarked(remarks)]
    after.append(published.source if len(ours) < len(lines) else "")
    if isinstance(spec, Epochs):
        chart = Chart([Panel("", lines)], "epoch", names.direction(spec.of), "whole", bands=True, remarks=[spec.note])
    else:
        whole_places = all(float(x).is_integer() for line in lines for x in line.x)
        axis = "logarithmic" if spec.logarithmic else "whole" if whole_places else "linear"
        below = spec.below or ("nominal density" if spec.along == "density" else names.quantity(spec.along))
        chart = Chart(
            [Panel("", lines)], below, spec.axis or names.direction(spec.of), axis,  # type: ignore[arg-type]
            logarithmic=spec.logarithmic_values, remarks=[spec.note],
        )  # fmt: skip
    return line_chart(file_stem("beside", paper.name, spec.title), spec.title, chart, after=after)


def dots_figure(spec: Dots, evidence: Evidence, paper: Paper) -> tuple[Figure | None, DisplayTable]:
    """Draw single numbers, one a row: ours with its interval, the published one hollow.

    Returns:
        The figure, None if nothing of ours was run; and the same numbers as a table.
    """
    published = read_published(paper.folder, spec.published)
    dots, lacking, remarks = [], [], {}
    for row in spec.rows:
        sample = measure(row.comparison, evidence) if row.comparison is not None else None
        known = sample if isinstance(sample, Sample) else None
        if known is None and row.comparison is not None:
            lacking.append(row.label)
        remarks[row.label] = known.remark if known is not None else ""
        ours = known.interval if known is not None else None
        exact = known is not None and known.exact
        runs = known.values if known is not None and not exact and len(known.values) > 1 else ()
        dots.append(Dot(row.label, ours, exact, published.one(row.published), runs))
    after = [f"Not run: {'; '.join(lacking)}." if lacking else "", _remarked(remarks), published.source]
    table = _table(joined([spec.note, _remarked(remarks), published.source]), dots, with_published=bool(spec.published))
    stem = file_stem("dots", paper.name, spec.title)
    figure = dot_plot(stem, spec.title, dots, spec.axis, spec.note, after=after, logarithmic=spec.logarithmic)
    return figure, table


def _measured(target: Target, spec: Epochs | Along, evidence: Evidence) -> tuple[_Points, _Runs, str]:
    """The points of a series, from left to right, its single runs, and remarks on the runs or rows.

    All are empty without runs or measurements.
    """
    if target.table:
        return _benchmark(target, spec, evidence)
    found = evidence.runs(target)
    if found is None:
        return [], [], ""
    runs, remark = found.runs, "; ".join(remarks_on(found.runs))
    if isinstance(spec, Epochs):
        one_arm(runs)  # a mean over several arms has no meaning
        return mean_curve(frames(runs, found.histories), spec.of), [], remark
    metric, axis = names.column_of(spec.of), names.column_of(spec.along)
    if axis not in runs.columns:
        axis = next((name for name in (f"label:{spec.along}", f"setting:{spec.along}") if name in runs.columns), axis)
    measured = [point_of(pairs) for arm in arms_of(runs) if (pairs := arm.pairs(axis, metric))]
    points = sorted((point for point, _ in measured), key=lambda point: point[0])
    return points, [run for _, single in measured for run in single], remark


def _benchmark(target: Target, spec: Epochs | Along, evidence: Evidence) -> tuple[_Points, _Runs, str]:
    """The points of a benchmark's rows, which have neither intervals nor runs, and where a number is missing."""
    if isinstance(spec, Epochs):
        raise SelectionError(f"'{spec.title}': a benchmark has no epochs.")
    rows = evidence.rows(target)
    for name in (spec.of, spec.along):
        if rows and not any(is_finite(row.get(name)) for row in rows):
            raise SelectionError(f"In {target.table}: '{name}' is not a column of numbers.")
    kept = [(row[spec.along], row[spec.of]) for row in rows if is_finite(row[spec.of]) and is_finite(row[spec.along])]
    points = [(float(x), Interval.exact(float(y))) for x, y in kept]
    without = [f"{spec.along} {row[spec.along]}" for row in rows if not is_finite(row[spec.of])]
    remark = f"no number at {', '.join(without)}" if without else ""
    return sorted(points, key=lambda point: point[0]), [], remark


def _looks(series: Sequence[Series]) -> list[Look]:
    """A colour and a marker for each series: hues in order, ink for the reference series."""
    hues, found = iter(range(len(series))), []
    for place, one in enumerate(series):
        colour = INK if one.ink else SERIES[next(hues) % len(SERIES)]
        found.append(Look(colour, MARKERS[place % len(MARKERS)]))
    return found


def _remarked(remarks: Mapping[str, str]) -> str:
    """The remarks on a figure's series or rows, by label, as a sentence of the caption."""
    texts = [f"{label}: {text}" for label, text in remarks.items() if text]
    return f"Remarks: {'. '.join(texts)}." if texts else ""


def _table(caption: str, dots: Sequence[Dot], *, with_published: bool) -> DisplayTable:
    columns = ["", *(["published"] if with_published else []), "measured", "seeds"]
    rows = []
    for dot in dots:
        # A count or a timing has neither interval nor seeds.
        ours, seeds = interval(dot.ours), str(dot.ours.n) if dot.ours else MISSING
        if dot.ours is not None and dot.exact:
            mean = dot.ours.mean
            ours, seeds = whole(mean) if mean == round(mean) else f"{mean:.3g}", MISSING
        rows.append([dot.label, *([printed(dot.published)] if with_published else []), ours, seeds])
    return DisplayTable(caption, columns, rows, [False] + [True] * (len(columns) - 1))


def printed(number: Number | None) -> str:
    """A published number as text."""
    if number is None:
        return MISSING
    value = f"{number.value:,.4g}" if abs(number.value) < 1e4 else f"{number.value:,.0f}"
    return value if number.spread is None else f"{value} ± {number.spread:g}"
