"""Tables: the tidy files, and the ones that people read, from the same arms."""

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from sparse_bench.report import metric_names
from sparse_bench.report.arms import (
    SPARSE_WEIGHTS,
    TRAINABLE,
    WARNINGS,
    Arm,
    Curve,
    Study,
    arms_of,
    density_range,
    percent,
    warned,
)
from sparse_bench.report.statistics import CONFIDENCE, Interval, holm, log_average, mean_interval, p_different

#: Fixed number of significant digits, so that a table made again differs only where results differ.
FLOAT_FORMAT = "%.10g"
MISSING = "–"


@dataclass(frozen=True)
class DisplayTable:
    """A table of formatted text.

    Attributes:
        caption: what the numbers are.
        columns: headings.
        rows: cells, as many as columns each.
        numeric: for each column, whether it is set flush right.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[bool] = field(default_factory=tuple)


def runs_csv(runs: pd.DataFrame) -> str:
    """The tidy table of runs: one row a run, failed ones included; a column of warnings where there is any."""
    unused = ["folder", *([WARNINGS] if WARNINGS in runs and runs[WARNINGS].isna().all() else [])]
    return csv_text(runs.drop(columns=unused, errors="ignore"))


def summary_frame(runs: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """One row an arm.

    Columns: ``experiment``, ``label:*``, ``setting:*``, ``seeds`` (finished), ``failed``, means of all counts, of
    multiply-accumulates, seconds and throughput (``mean:*``), and ``metric:NAME:mean``, ``:half_width`` (of the 95 %
    t-interval over seeds; empty for a single seed) and ``:n`` for each metric; ``warnings`` where any run has one.
    """
    averaged = [column for column in runs.columns if column.startswith(("count:", "macs:", "seconds:"))]
    averaged += [
        column for column in ("tokens_per_second", "examples_per_second", "peak_memory_bytes") if column in runs
    ]
    rows = []
    for arm in arms_of(runs):
        row: dict[str, Any] = {"experiment": arm.experiment}
        row |= {f"label:{name}": value for name, value in arm.labels.items()}
        row |= {f"setting:{name}": value for name, value in arm.settings.items()}
        row |= {"seeds": arm.runs["seed"].nunique(), "failed": arm.failed}
        row |= {f"mean:{column.removeprefix('count:')}": arm.mean(column) for column in averaged}
        for metric in metrics:
            interval = arm.interval(f"metric:{metric}")
            row[f"metric:{metric}:mean"] = interval.mean if interval else None
            row[f"metric:{metric}:half_width"] = interval.half_width if interval else None
            row[f"metric:{metric}:n"] = interval.n if interval else 0
        if WARNINGS in runs:
            row[WARNINGS] = warned(arm.runs)
        rows.append(row)
    return pd.DataFrame(rows)


def summary_csv(runs: pd.DataFrame, metrics: Sequence[str]) -> str:
    """:func:`summary_frame` as text."""
    return csv_text(summary_frame(runs, metrics))


#: What a difference in a table is.
PAIRED = (
    "Paired over the seeds that both have: mean ± half-width of the 95 % t-interval of the differences. A star marks "
    "those that differ at the 5 % level after Holm's correction over the column."
)


def study_table(study: Study, metrics: Sequence[str]) -> DisplayTable:
    """The table that people read of one study: an arm a row."""
    settings, implied = study.settings
    short = _short_names(settings)
    columns = ["scheme", *DENSITIES, *short.values(), "weights in sparse layers"]
    columns += [metric_names.title(metric) for metric in metrics] + ["seeds", "trainable"]
    numeric = [False, True, True, *(all(_is_number(arm.settings[name]) for arm in study.arms) for name in settings)]
    numeric += [True] * (len(columns) - len(numeric))
    rows = [
        [
            str(arm.labels.get("scheme", MISSING)).replace("_", " "),
            *densities(arm, study.realised(arm)),
            *(setting(arm.settings[name]) for name in settings),
            whole(arm.mean(SPARSE_WEIGHTS)),
            *(mean_of_seeds(arm, metric) for metric in metrics),
            arm.seeds,
            whole(arm.mean(TRAINABLE)),
        ]
        for arm in study.arms
    ]
    caption = (
        "Mean over seeds ± half-width of the 95 % t-interval (n − 1 degrees of freedom); a single seed has none. "
        "Weights in sparse layers: mean over seeds of the realised mask sums. Trainable: every trainable weight of the "
        f"model that exists, biases included. {REALISED}"
    )
    if implied:
        caption += f" Settings that follow from the columns shown: {', '.join(implied)}."
    return DisplayTable(with_warnings(caption, study.arms), columns, rows, numeric)


#: Headings of :func:`densities`.
DENSITIES = ("density", "realised density")
REALISED = (
    "Density: as asked for. Realised: the share of the places in the sparse layers that hold a weight at the end; of a "
    "narrower dense model, its weights as a share of the full model's places, where these are known."
)


def densities(arm: Arm, realised: float | None) -> list[str]:
    """The density that was asked for and the realised one, as cells."""
    asked = arm.labels.get("density")
    return [MISSING if asked is None else percent(float(asked)), density_range([realised]) or MISSING]


def with_warnings(caption: str, arms: Sequence[Arm]) -> str:
    """A caption that also says the warnings of the arms' runs."""
    told = warned(*(arm.runs for arm in arms))
    return f"{caption} Warnings: {told}." if told else caption


def comparison_table(study: Study, metrics: Sequence[str]) -> DisplayTable | None:
    """How the study's arms or curves compare: against dense at one width, over a common range of weights otherwise.

    None if there is nothing to compare.
    """
    return _against_dense(study, metrics) if study.one_width else _over_common_range(study, metrics)


def _against_dense(study: Study, metrics: Sequence[str]) -> DisplayTable | None:
    dense = [curve for curve in study.curves if curve.kind == "dense"]
    others = [(curve, arm) for curve in study.curves if curve.kind != "dense" for arm in curve.arms]
    if len(dense) != 1 or not others:
        return None
    reference = dense[0].arms[0]
    cells = {metric: differences([arm for _, arm in others], reference, metric) for metric in metrics}
    rows = [
        [
            curve.label,
            density_range([study.realised(arm)]) or MISSING,
            whole(arm.mean(SPARSE_WEIGHTS)),
            *(cells[metric][place] for metric in metrics),
        ]
        for place, (curve, arm) in enumerate(others)
    ]
    caption = with_warnings(f"Differences to the dense arm. {PAIRED}", study.arms)
    columns = [
        "arm",
        "realised density",
        "weights in sparse layers",
        *(metric_names.title(metric) for metric in metrics),
    ]
    return DisplayTable(caption, columns, rows, [False] + [True] * (len(columns) - 1))


def differences(arms: Sequence[Arm], reference: Arm, metric: str) -> list[str]:
    """Each arm's difference to the reference as text, with a star where it stands the correction."""
    column = f"metric:{metric}"
    second = reference.values(column)
    texts, p_values = [], []
    for arm in arms:
        first = arm.values(column)
        shared = sorted(first.keys() & second.keys())
        differences = [first[seed] - second[seed] for seed in shared]
        texts.append(interval(mean_interval(differences), signed=True) if shared else MISSING)
        p_values.append(p_different(differences) if shared else None)
    compared = [place for place, p in enumerate(p_values) if p is not None]
    for place, p in zip(compared, holm([p for p in p_values if p is not None]), strict=True):
        texts[place] += " *" if p <= 1.0 - CONFIDENCE else ""
    return texts


def _over_common_range(study: Study, metrics: Sequence[str]) -> DisplayTable | None:
    curves = [curve for curve in study.curves if len(curve.arms) > 1]
    if len(curves) < 2:
        return None
    averages: dict[str, dict[Curve, float]] = {}
    ranges: dict[str, tuple[float, float]] = {}
    for metric in metrics:
        points = {curve: _points(curve.arms, f"metric:{metric}") for curve in curves}
        points = {curve: found for curve, found in points.items() if len(found) > 1}
        low = max((min(found) for found in points.values()), default=0.0)
        high = min((max(found) for found in points.values()), default=0.0)
        if len(points) > 1 and low < high:
            ranges[metric] = (low, high)
            averages[metric] = {
                curve: log_average(list(found), list(found.values()), (low, high)) for curve, found in points.items()
            }
    if not averages:
        return None
    rows = [
        [
            curve.label,
            density_range(arm.realised for arm in curve.arms) or MISSING,
            *(decimal(averages[metric].get(curve)) for metric in averages),
        ]
        for curve in curves
        if any(curve in found for found in averages.values())
    ]
    shared = dict.fromkeys(f"{whole(low)} to {whole(high)}" for low, high in ranges.values())
    caption = (
        "Average height of each curve over the range of weights that all curves reach "
        f"({'; '.join(shared)} weights in sparse layers, logarithmic): area under the curve of means over the width of "
        "the range."
    )
    columns = ["curve", "realised density", *(metric_names.title(metric) for metric in averages)]
    return DisplayTable(with_warnings(caption, study.arms), columns, rows, [False] + [True] * (len(columns) - 1))


def _points(arms: Sequence[Arm], column: str) -> dict[float, float]:
    """Mean metric by mean weights, for arms that have both; equal weights keep the last."""
    pairs = ((arm.mean(SPARSE_WEIGHTS), arm.mean(column)) for arm in arms)
    return {weights: value for weights, value in pairs if weights and value is not None}


def outside_weights(study: Study) -> tuple[float, float] | None:
    """Fewest and most trainable weights outside the sparse layers, over the study's runs."""
    outside = [
        trainable - weights
        for arm in study.arms
        for trainable, weights in zip(arm.values(TRAINABLE).values(), arm.values(SPARSE_WEIGHTS).values(), strict=True)
    ]
    return (min(outside), max(outside)) if outside else None


def markdown(table: DisplayTable) -> str:
    """A Markdown table with its caption above."""
    numeric = table.numeric or [False] * len(table.columns)
    lines = [
        "| " + " | ".join(map(_escape, table.columns)) + " |",
        "|" + "|".join("---:" if right else "---" for right in numeric) + "|",
        *("| " + " | ".join(map(_escape, row)) + " |" for row in table.rows),
    ]
    return f"{table.caption}\n\n" + "\n".join(lines) + "\n"


def plain_text(table: DisplayTable) -> str:
    """The table in columns for a terminal, without its caption."""
    lines = [table.columns, *table.rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(table.columns))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, table.numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def whole(value: float | None) -> str:
    """Rounded, with thousands separators."""
    return MISSING if value is None or not math.isfinite(value) else f"{round(value):,}"


#: Below this three decimals would show a spread as none.
_SMALLEST_SHOWN = 0.0005


def decimal(value: float | None, *, signed: bool = False) -> str:
    """Three decimals; thousands separators where it is large."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:+,.3f}" if signed else f"{value:,.3f}"
    if text.endswith("-0.000"):
        return "+0.000" if signed else "0.000"
    return text.replace("-", "−")


def interval(value: Interval | None, *, signed: bool = False) -> str:
    """``0.843 ± 0.012``; a single seed's value alone, marked."""
    if value is None:
        return MISSING
    mean = decimal(value.mean, signed=signed)
    if value.half_width is None:
        return f"{mean} (n = 1)"
    half = f"{value.half_width:.1g}" if 0.0 < value.half_width < _SMALLEST_SHOWN else decimal(value.half_width)
    return f"{mean} ± {half}"


def mean_of_seeds(arm: Arm, metric: str) -> str:
    """A metric's :func:`interval`, with the number of its runs if some of the arm's runs lack the metric."""
    found = arm.interval(f"metric:{metric}")
    text = interval(found)
    fewer = found is not None and 1 < found.n < arm.runs["seed"].nunique()
    return f"{text} (n = {found.n})" if found is not None and fewer else text


def setting(value: Any) -> str:
    """A configuration value as text."""
    if value is None:
        return MISSING
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _short_names(paths: Sequence[str]) -> dict[str, str]:
    """The last part of each dotted path, or the whole path where two would share it."""
    last = {path: path.rsplit(".", 1)[-1] for path in paths}
    return {
        path: (name if list(last.values()).count(name) == 1 else path).replace("_", " ") for path, name in last.items()
    }


def csv_text(frame: pd.DataFrame) -> str:
    """A table as CSV: no index, ten significant digits, newlines of Unix."""
    text: str = frame.to_csv(index=False, float_format=FLOAT_FORMAT, lineterminator="\n")
    return text


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
