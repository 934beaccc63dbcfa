"""Our numbers beside the published ones: figures that a paper's page describes and that know no paper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from sparse_bench.report import metric_names
from sparse_bench.report.arms import arms_of
from sparse_bench.report.figures import direction, legend, logarithmic_axis
from sparse_bench.report.learning_curves import Line, mean_line
from sparse_bench.report.measure import column_of, quantity
from sparse_bench.report.papers import Along, Epochs, Series
from sparse_bench.report.published import Published, read_published
from sparse_bench.report.selection import Evidence, Row, Runs, SelectionError, one_arm, remarks_on
from sparse_bench.report.statistics import Interval, mean_interval
from sparse_bench.report.style import INK, MARKERS, SERIES, Figure, file_stem, render
from sparse_bench.report.tables import DisplayTable, decimal


@dataclass(frozen=True)
class Shown:
    """What a described figure gives: a drawing (if there is anything of ours to draw), and the numbers in it.

    Attributes:
        figure: None where nothing has been run.
        table: ours beside the published ones; None for figures of curves.
        title: of the figure.
        lacking: labels of what has not been run.
    """

    figure: Figure | None
    table: DisplayTable | None
    title: str
    lacking: Sequence[str]


@dataclass(frozen=True)
class _Drawn:
    """A line: its points, intervals where several seeds allow them, and how it looks."""

    label: str
    x: np.ndarray
    y: np.ndarray
    half_width: np.ndarray | None
    colour: str
    marker: str
    published: bool = False
    seeds: Sequence[int] = (1,)  # of its points


def epochs_figure(spec: Epochs, evidence: Evidence, paper: str) -> Shown:
    """A metric per epoch, our arms drawn and the published curves dashed."""
    published = read_published(spec.published) if spec.published else None
    drawn, lacking, remarks = [], [], {}
    for series, (colour, marker) in zip(spec.series, _looks(spec.series), strict=True):
        remarks[series.label] = _remark(series, evidence)
        line = _learning_curve(series, spec.of, evidence)
        if line is not None:
            drawn.append(
                _Drawn(series.label, line.epochs, line.mean, line.half_width, colour, marker, seeds=[line.seeds])
            )
        elif series.experiment:
            lacking.append(_lacking(series, evidence))
        drawn += _published_line(series, published, colour)
    return _lines(spec, drawn, lacking, remarks, published, paper, "epoch", logarithmic=False)


def curve_figure(spec: Along, evidence: Evidence, paper: str) -> Shown:
    """A metric against a count, a label or a setting: the arms of a series joined, published points beside.

    A series of a benchmark's table joins its rows.
    """
    published = read_published(spec.published) if spec.published else None
    drawn, lacking, remarks = [], [], {}
    for series, (colour, marker) in zip(spec.series, _looks(spec.series), strict=True):
        remarks[series.label] = _remark(series, evidence)
        found = evidence.runs(Runs(series.experiment, series.where)) if series.experiment else None
        points = _points(found[1], spec) if found else _benchmark_points(series, spec, evidence)
        if points:
            half = [point.half_width or 0.0 for _, point in points]
            several = any(point.half_width is not None for _, point in points)
            x, y = np.array([x for x, _ in points]), np.array([point.mean for _, point in points])
            n = [point.n for _, point in points]
            drawn.append(_Drawn(series.label, x, y, np.array(half) if several else None, colour, marker, seeds=n))
        elif series.experiment or series.table:
            lacking.append(_lacking(series, evidence))
        drawn += _published_line(series, published, colour)
    axis = spec.below or ("density asked for" if spec.along == "density" else quantity(spec.along))
    return _lines(spec, drawn, lacking, remarks, published, paper, axis, logarithmic=spec.logarithmic)


def _lines(
    spec: Epochs | Along,
    drawn: Sequence[_Drawn],
    lacking: Sequence[str],
    remarks: Mapping[str, str],
    published: Published | None,
    paper: str,
    axis: str,
    *,
    logarithmic: bool,
) -> Shown:
    ours = [line for line in drawn if not line.published]
    compared = len({one.ink for one in spec.series}) == 2
    if not ours or (compared and all(line.colour == INK for line in ours)):  # what others are compared with, alone
        return Shown(None, None, spec.title, lacking)
    given = isinstance(spec, Along) and spec.axis
    value_name = given or metric_names.title(spec.of)
    measured = isinstance(spec, Along) and any(series.table for series in spec.series)

    def draw(canvas: Canvas, compact: bool) -> None:
        axes = canvas.add_subplot()
        for line in drawn:
            if line.published:
                dashes = (0, (4, 2))
                axes.plot(
                    line.x, line.y, linestyle=dashes, color=line.colour, linewidth=1.2, alpha=0.85, label=line.label
                )
                continue
            if line.half_width is not None and isinstance(spec, Epochs):
                low, high = line.y - line.half_width, line.y + line.half_width
                axes.fill_between(line.x, low, high, color=line.colour, alpha=0.13, linewidth=0)
            elif line.half_width is not None:
                axes.vlines(
                    line.x, line.y - line.half_width, line.y + line.half_width, color=line.colour, linewidth=1.2
                )
            marker = None if isinstance(spec, Epochs) else line.marker
            axes.plot(line.x, line.y, color=line.colour, marker=marker, label=line.label)
        values = np.concatenate([line.y for line in drawn])
        low, high = float(values.min()), float(values.max())
        margin = 0.08 * ((high - low) or abs(high) or 1.0)
        if isinstance(spec, Along) and spec.logarithmic_values:
            axes.set_yscale("log")
        else:
            axes.set_ylim(low - margin, high + margin)
        if logarithmic:
            logarithmic_axis(axes, [float(x) for line in drawn for x in line.x])
        elif all(float(x).is_integer() for line in drawn for x in line.x):  # epochs, layers
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.set_title(value_name if given else direction(spec.of))
        axes.set_xlabel(axis)
        legend(canvas, axes, compact)

    seeds = sorted({n for line in ours for n in line.seeds})
    counted = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    shape = "bands" if isinstance(spec, Epochs) else "bars"
    several = f"Means over {counted} seeds; {shape}: 95 % t-interval, cut at the axis."
    if seeds[0] == 1 and not measured:
        several += f" A {'line without a band' if shape == 'bands' else 'marker without a bar'} is a single run."
    caption = joined(
        [
            spec.note,
            several if seeds[-1] > 1 else "" if measured else "Single runs: there is no interval.",
            "Dashed: published." if len(ours) < len(drawn) else "",
            f"Not shown: {'; '.join(lacking)}." if lacking else "",
            remarked(remarks),
            source_of(published) if len(ours) < len(drawn) else "",
        ]
    )
    sentences = [
        f"{line.label}: {decimal(float(line.y[0]))} at first, {decimal(float(line.y[-1]))} at last." for line in drawn
    ]
    name = file_stem("beside", paper, spec.title)
    alt = " ".join([f"Line chart of {value_name} against {axis}.", *sentences])
    return Shown(render(name, spec.title, caption, alt, draw), None, spec.title, lacking)


def remarked(remarks: Mapping[str, str]) -> str:
    """What has to be known of the runs behind what a figure's labels name, as a sentence; empty ones left out."""
    told = [f"{label}: {text}" for label, text in remarks.items() if text]
    return f"Remarks: {'. '.join(told)}." if told else ""


def _remark(series: Series, evidence: Evidence) -> str:
    found = evidence.runs(Runs(series.experiment, series.where)) if series.experiment else None
    return "; ".join(remarks_on(found[1])) if found else ""


def _lacking(series: Series, evidence: Evidence) -> str:
    """A series that cannot be drawn, and why."""
    run = series.experiment is not None and evidence.runs(Runs(series.experiment, series.where)) is not None
    return f"{series.label} ({'not measured' if run else 'not run'})"


def _looks(series: Sequence[Series]) -> list[tuple[str, str]]:
    """A colour and a marker for each series: hues in order, ink for the one that the others are compared with."""
    hues, looks = iter(range(len(series))), []
    for place, one in enumerate(series):
        looks.append((INK if one.ink else SERIES[next(hues) % len(SERIES)], MARKERS[place % len(MARKERS)]))
    return looks


def _published_line(series: Series, published: Published | None, colour: str) -> list[_Drawn]:
    if series.published is None or published is None:
        return []
    numbers = published.get(series.published)
    x = np.array([number.x if number.x is not None else np.nan for number in numbers])
    y = np.array([number.value for number in numbers])
    return [_Drawn(f"{series.label}, published", x, y, None, colour, "", published=True)]


def _learning_curve(series: Series, metric: str, evidence: Evidence) -> Line | None:
    if series.experiment is None:
        return None
    found = evidence.runs(Runs(series.experiment, series.where))
    if found is None:
        return None
    tables, runs = found
    one_arm(runs)  # a mean over anything else would say nothing
    histories = tables.histories
    keys = zip(runs["experiment"], runs["id"], strict=True)
    return mean_line([histories[key] for key in keys if key in histories], metric)


def _points(runs: pd.DataFrame, spec: Along) -> list[tuple[float, Interval]]:
    """Mean of the metric for each arm, at the mean of what it is drawn against, from left to right."""
    metric, axis = column_of(spec.of), column_of(spec.along)
    if axis not in runs.columns:
        axis = next((name for name in (f"label:{spec.along}", f"setting:{spec.along}") if name in runs.columns), axis)
    found = []
    for arm in arms_of(runs):
        values, places = arm.values(metric), arm.values(axis)
        shared = sorted(values.keys() & places.keys())
        if shared:
            x = float(np.mean([places[seed] for seed in shared]))
            found.append((x, mean_interval([values[seed] for seed in shared])))
    return sorted(found, key=lambda point: point[0])


def _benchmark_points(series: Series, spec: Along, evidence: Evidence) -> list[tuple[float, Interval]]:
    """A benchmark's rows; a timing is one number, which knows no interval."""
    if series.table is None:
        return []
    rows = evidence.rows(Row(series.table, series.where))
    for name in (spec.of, spec.along):
        if any(not isinstance(row.get(name), int | float) for row in rows):
            raise SelectionError(f"In {series.table}: '{name}' is no column of numbers.")
    points = [(float(row[spec.along]), mean_interval([float(row[spec.of])])) for row in rows]
    return sorted(points, key=lambda point: point[0])


def source_of(published: Published | None) -> str:
    """Where the published numbers of a figure stand, as a sentence."""
    return f"Published numbers: {published.source.rstrip('.')}." if published else ""


def joined(parts: Sequence[str]) -> str:
    """Sentences, the empty ones left out."""
    return " ".join(part for part in parts if part)
