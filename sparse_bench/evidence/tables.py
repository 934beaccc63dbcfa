"""Tables of arms: measurements, differences to a reference arm, and the smallest density as good as dense."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from sparse_bench.errors import unknown_choice
from sparse_bench.evidence import names
from sparse_bench.evidence.arms import (
    Arm,
    Study,
    arms_of,
    identifying_settings,
    realised_density,
    realised_note,
    warned,
)
from sparse_bench.evidence.compare import SelectionError
from sparse_bench.evidence.csv_tables import grouped, is_missing, is_number
from sparse_bench.evidence.display import (
    MISSING,
    DisplayTable,
    decimal,
    density_range,
    duration,
    interval,
    percent,
    setting,
    whole,
    whole_range,
)
from sparse_bench.evidence.statistics import (
    CONFIDENCE,
    StatisticsError,
    holm,
    mean_interval,
    p_value,
    smallest_density_within,
)
from sparse_bench.evidence.store import ALTERED, WARNINGS, RunTable
from sparse_bench.record import FINISHED

#: Suffix of a metric that is read from the last epoch of the learning curves.
AT_LAST = " at the last epoch"
_DIFFERENCES = (
    "Paired over the seeds that both arms have: mean ± half-width of the 95 % t-interval of the differences. A star "
    "marks differences that are significant at the 5 % level after Holm's correction over the column."
)
_ARMS = (
    "Mean over seeds ± half-width of the 95 % t-interval; a single seed has no interval. Density: the nominal density. "
    "Realised density: the share of entries of the sparse layers that hold a weight after training; for a narrower "
    "dense model, its weights as a share of the full model's. Trainable: all trainable weights, biases included."
)
_TRAINING = (
    " Held: weights that training kept for the sparse layers, at its step that kept most. Average density: mean over "
    "the steps of training. Forward and backward: multiply-accumulates of all training steps, with those entries alone "
    "that a step needs."
)
#: Columns about training, for runs that have them: heading → column, and how its means are written.
_EFFORT: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "held": (names.HELD, whole),
    "average density": (names.AVERAGE_DENSITY, lambda mean: MISSING if mean is None else percent(mean)),
    "forward": (names.FORWARD, lambda mean: MISSING if mean is None else f"{mean:.3g}"),
    "backward": (names.BACKWARD, lambda mean: MISSING if mean is None else f"{mean:.3g}"),
}
_SMALLEST = (
    "The smallest realised density whose mean is worse than the dense arm's by at most the half-width of the dense "
    "arm's 95 % interval. None: no density qualifies. A dash: the dense arm has fewer than three seeds."
)


def measured_metrics(arms: Sequence[Arm], metrics: Sequence[str]) -> list[str]:
    """The ``metrics`` that at least one arm has."""
    return [metric for metric in metrics if any(arm.values(f"metric:{metric}") for arm in arms)]


def arms_table(arms: Sequence[Arm], metrics: Sequence[str]) -> DisplayTable:
    """One row an arm: its identifying settings, its weights, and the metrics that at least one arm has.

    There is a column for the experiment if there are several, and one for the device if the runs used several.
    """
    columns, cells = _identified(arms)
    several, metrics = len(_devices(arms)) > 1, measured_metrics(arms, metrics)
    effort = {name: known for name, known in _EFFORT.items() if any(arm.values(known[0]) for arm in arms)}
    rows = []
    for arm, own in zip(arms, cells, strict=True):
        trained = [written(arm.mean(column)) for column, written in effort.values()]
        counted = [
            whole(arm.mean(names.SPARSE_WEIGHTS)),
            *trained,
            *(_mean_of_seeds(arm, metric) for metric in metrics),
        ]
        rows.append(
            [*own, *counted, arm.seeds, whole(arm.mean(names.TRAINABLE)), *([made_on(arm.runs)] if several else [])]
        )
    text = len(columns)
    columns = [*columns, "weights in sparse layers", *effort, *map(names.title, metrics), "seeds", "trainable"]
    numeric = [all(_looks_numeric(row[i]) for row in rows) for i in range(text)] + [True] * (len(columns) - text)
    if several:
        columns, numeric = [*columns, "device"], [*numeric, False]
    return DisplayTable(with_warnings(_ARMS + (_TRAINING if effort else ""), arms), columns, rows, numeric)


def differences_table(arms: Sequence[Arm], reference: Arm, name: str, metrics: Sequence[str]) -> DisplayTable | None:
    """Differences of each arm to the reference, called ``name``, paired by seed; None if nothing can be compared."""
    others = [arm for arm in arms if set(arm.ids) != set(reference.ids)]
    measured = [metric for metric in metrics if reference.values(f"metric:{metric}")]
    if not others or not measured:
        return None
    columns, cells = _identified(others)
    found = {metric: _differences(others, reference, metric) for metric in measured}
    rows = [[*cells[place], *(found[metric][place] for metric in measured)] for place in range(len(others))]
    caption = f"Differences to {name}. {_DIFFERENCES}"
    if len(_devices([*others, reference])) > 1:
        caption += (
            " The runs used several devices. On different devices, runs of one seed drew different random numbers "
            "during training, so pairing removes little noise."
        )
    numeric = [False] * len(columns) + [True] * len(measured)
    columns = [*columns, *map(names.title, measured)]
    return DisplayTable(with_warnings(caption, [*others, reference]), columns, rows, numeric)


def _differences(arms: Sequence[Arm], reference: Arm, metric: str) -> list[str]:
    """Each arm's difference to the reference as text, with a star if it is significant after the correction."""
    column = f"metric:{metric}"
    second = reference.values(column)
    texts, p_values = [], []
    for arm in arms:
        first = arm.values(column)
        found = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
        texts.append(interval(mean_interval(found), signed=True) if found else MISSING)
        p_values.append(p_value(found) if found else None)
    compared = [place for place, p in enumerate(p_values) if p is not None]
    for place, p in zip(compared, holm([p for p in p_values if p is not None]), strict=True):
        texts[place] += " *" if p <= 1.0 - CONFIDENCE else ""
    return texts


def density_table(study: Study, metrics: Sequence[str]) -> DisplayTable | None:
    """For each scheme and width with a dense arm, the smallest density that is as good as dense.

    Returns:
        None if no sparse arm has a dense arm of the same width.
    """
    dense = [arm for arm in study.arms if arm.kind == "dense" and arm.full_size and len(arm.runs)]
    settings = [name for name in study.settings[0] if not name.startswith("sparsity.")]
    # A family is a scheme at one width: its arms differ in density and share a dense arm.
    families: dict[tuple[str, Arm], dict[float, Arm]] = {}
    for curve in study.curves:
        for arm in curve.arms if curve.kind == "sparse" else ():
            partner, density = _dense_partner(arm, dense, settings), arm.mean(names.DENSITY)
            if partner is not None and density:
                words = [name for name in settings if isinstance(arm.settings[name], str)]
                texts = [f"{name.rsplit('.', 1)[-1].replace('_', ' ')} {arm.settings[name]}" for name in words]
                own = [text for text in texts if text not in curve.variant]
                name = ", ".join(filter(None, (curve.scheme.replace("_", " "), curve.variant, *own)))
                families.setdefault((name, partner), {})[density] = arm
    if not families:
        return None
    rows = []
    for (name, partner), arms in families.items():
        cells = [_smallest(arms, partner, metric) for metric in metrics]
        rows.append([name, whole(partner.mean(names.SPARSE_SIZE)), whole(partner.full_size), *cells])
    columns = ["scheme", "weights of the dense layers", "of the dense model"]
    columns += [f"{names.title(metric)}: smallest density as good as dense" for metric in metrics]
    return DisplayTable(with_warnings(_SMALLEST, study.arms), columns, rows, [False] + [True] * (len(columns) - 1))


def _dense_partner(arm: Arm, dense: Sequence[Arm], settings: Sequence[str]) -> Arm | None:
    """The dense arm of the same width; of several, the one with the same settings; else None."""
    wide = [other for other in dense if other.full_size == arm.full_size]
    if len(wide) > 1:
        wide = [other for other in wide if all(other.settings[name] == arm.settings[name] for name in settings)]
    return wide[0] if len(wide) == 1 else None


def _smallest(arms: Mapping[float, Arm], dense: Arm, metric: str) -> str:
    column = f"metric:{metric}"
    measured = {density: list(values.values()) for density, arm in arms.items() if (values := arm.values(column))}
    reference = list(dense.values(column).values())
    if not measured or not reference:
        return MISSING
    try:
        found = smallest_density_within(measured, reference, lower_is_better=names.lower_is_better(metric))
    except StatisticsError:
        return MISSING
    if found is None:
        return "none"
    asked = arms[found].labels.get("density")
    other = f" (nominal {percent(float(asked))})" if asked is not None and realised_note(asked, [found]) else ""
    return percent(found, digits=3) + other


def each_run_table(runs: pd.DataFrame, columns: Mapping[str, str]) -> DisplayTable:
    """One row a finished run: experiment, seed, the chosen columns, and warnings if any run has one.

    Args:
        runs: rows of a table of runs.
        columns: heading → name of the column.

    Raises:
        SelectionError: a column does not exist.
    """
    finished = runs[runs["status"] == FINISHED]
    if warned(finished):
        columns = {**columns, "warnings": WARNINGS}
    for column in columns.values():
        if column not in runs.columns:
            known = unknown_choice("column", column, map(str, runs.columns))
            raise SelectionError(f"In a table of single runs: {known}")
    rows = [
        [str(row["experiment"]), str(row["seed"]), *(_cell(row[column]) for column in columns.values())]
        for row in finished.to_dict("records")
    ]
    numeric = [pd.api.types.is_numeric_dtype(finished[column]) for column in columns.values()]
    return DisplayTable("Single runs.", ["experiment", "seed", *columns], rows, [False, True, *numeric])


def with_last_epochs(table: RunTable, metrics: Sequence[str]) -> tuple[RunTable, list[str]]:
    """Add a column for each metric that only learning curves hold, such as training accuracy.

    The column has the value at the run's last epoch; its name ends with :data:`AT_LAST`.

    Returns:
        The table, and the names of all ``metrics`` in it.
    """
    runs, found = table.runs, []
    for metric in metrics:
        column, followed = f"metric:{metric}", table.curves[table.curves["metric"] == metric]
        if (column in runs and bool(runs[column].notna().any())) or followed.empty:
            found.append(metric)
            continue
        last = followed.sort_values("epoch").groupby(["experiment", "id"])["value"].last()
        values = [last.get(key, math.nan) for key in zip(runs["experiment"], runs["id"], strict=True)]
        runs = runs.assign(**{f"{column}{AT_LAST}": values})
        found.append(f"{metric}{AT_LAST}")
    return replace(table, runs=runs), found


def facts(runs: pd.DataFrame, metrics: Sequence[str]) -> list[tuple[str, str]]:
    """A summary of the runs: name and text of each fact."""
    finished = runs[runs["status"] == FINISHED]
    failed = len(runs) - len(finished)
    found = [("runs", f"{len(finished)} finished" + (f", {failed} failed" if failed else ""))]
    altered = finished[finished[ALTERED].notna()] if ALTERED in finished else finished[:0]
    if len(altered):
        what = " / ".join(sorted(set(altered[ALTERED])))
        found.append(("altered settings, so not compared with published values", f"{len(altered)} runs ({what})"))
    if warnings := warned(finished):
        found.append(("warnings", warnings))
    if made := made_on(finished):
        found.append(("device", made))
    columns = {metric: f"metric:{metric}" for metric in metrics}
    lacking = [m for m, column in columns.items() if column not in finished or finished[column].isna().all()]
    if lacking and len(finished):
        found.append(("not recorded by these runs", ", ".join(map(names.title, lacking))))
    found.append(("seeds", ", ".join(str(seed) for seed in sorted(set(runs["seed"])))))
    for name in ("epochs", "steps"):
        values = [int(value) for value in finished[name].dropna()] if name in finished else []
        found += [(name, whole_range(values))] if values else []
    if "seconds:total" in runs.columns:
        found.append(("total time of all runs", duration(float(runs["seconds:total"].fillna(0.0).sum()))))
    return found


def provenance(runs: pd.DataFrame) -> list[tuple[str, Sequence[tuple[str, int]]]]:
    """Code, machine and data of the runs: each name with its values and their numbers of runs, most frequent first."""
    titles = {
        "made:commit": "code, at commit", "made:dirty": "uncommitted changes in the code",
        "made:processor": "processor", "made:vectors": "vector instructions", names.DEVICE: "device",
        "made:threads": "threads", "made:python": "Python", "made:torch": "torch",
        "made:data": "data, digest of checksums",
    }  # fmt: skip
    found: list[tuple[str, Sequence[tuple[str, int]]]] = []
    for column, title in titles.items():
        if column in runs.columns:
            counts = Counter("unknown" if is_missing(value) else str(value) for value in runs[column])
            found.append((title, sorted(counts.items(), key=lambda item: (-item[1], item[0]))))
    return found


def made_on(runs: pd.DataFrame) -> str:
    """The number of runs on each device, as text; empty if no device is known."""
    devices = runs[names.DEVICE].dropna() if names.DEVICE in runs else pd.Series(dtype="object")
    return ", ".join(f"{n} on {'a CPU' if name == 'cpu' else name}" for name, n in devices.value_counts().items())


def with_warnings(caption: str, arms: Sequence[Arm]) -> str:
    """The caption, followed by the warnings of the arms' runs."""
    warnings = warned(*(arm.runs for arm in arms))
    return f"{caption} Warnings: {warnings}." if warnings else caption


def summary_frame(runs: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """One row an arm, for ``summary.csv``.

    Columns: ``experiment``, ``label:*``, ``setting:*``, ``seeds`` (finished), ``failed``; ``mean:*``, the means of
    counts, multiply-accumulates, seconds and throughput; for each metric ``metric:NAME:mean``, ``:half_width`` of the
    95 % t-interval (empty for a single seed) and ``:n``; and ``warnings`` where any run has one.
    """
    averaged = [column for column in runs.columns if column.startswith(("count:", "macs:", "seconds:"))]
    averaged += [name for name in ("tokens_per_second", "examples_per_second", "peak_memory_bytes") if name in runs]
    rows = []
    for arm in arms_of(runs):
        row: dict[str, Any] = {"experiment": arm.experiment}
        row |= {f"label:{name}": value for name, value in arm.labels.items()}
        row |= {f"setting:{name}": value for name, value in arm.settings.items()}
        row |= {"seeds": arm.runs["seed"].nunique(), "failed": arm.failed}
        row |= {WARNINGS: warned(arm.runs)} if WARNINGS in runs else {}
        row |= {f"mean:{column.removeprefix('count:')}": arm.mean(column) for column in averaged}
        for metric in metrics:
            found = arm.interval(f"metric:{metric}")
            row[f"metric:{metric}:mean"] = found.mean if found else None
            row[f"metric:{metric}:half_width"] = found.half_width if found else None
            row[f"metric:{metric}:n"] = found.n if found else 0
        rows.append(row)
    return pd.DataFrame(rows)


def _mean_of_seeds(arm: Arm, metric: str) -> str:
    """A metric's interval, with its number of seeds if some of the arm's seeds do not have the metric."""
    found = arm.interval(f"metric:{metric}")
    fewer = found is not None and 1 < found.n < arm.runs["seed"].nunique()
    return f"{interval(found)} (n = {found.n})" if found is not None and fewer else interval(found)


def _identified(arms: Sequence[Arm]) -> tuple[list[str], list[list[str]]]:
    """Columns that identify arms, and each arm's cells."""
    chosen = [name for name in identifying_settings(arms)[0] if not name.rsplit(".", 1)[-1].startswith("_")]
    # A setting that differs only between experiments needs no column: the experiment's name identifies it.
    together = grouped(arms, lambda arm: arm.experiment)
    chosen = [name for name in chosen if any(len({str(a.settings[name]) for a in group}) > 1 for group in together)]
    last = [name.rsplit(".", 1)[-1] for name in chosen]
    short = [(own if last.count(own) == 1 else name).replace("_", " ") for name, own in zip(chosen, last, strict=True)]
    several = len(together) > 1
    cells = []
    for arm in arms:
        asked = arm.labels.get("density")
        own = [arm.experiment] if several else []
        own += [str(arm.labels.get("scheme", MISSING)).replace("_", " ")]
        own += [
            MISSING if asked is None else percent(float(asked)),
            density_range([realised_density(arm, arms)]) or MISSING,
        ]
        cells.append([*own, *(setting(arm.settings[name]) for name in chosen)])
    return [*(["experiment"] if several else []), "scheme", "density", "realised density", *short], cells


def _devices(arms: Sequence[Arm]) -> set[str]:
    """The known devices of the arms' runs."""
    return {str(device) for arm in arms if names.DEVICE in arm.runs for device in arm.runs[names.DEVICE].dropna()}


def _looks_numeric(cell: str) -> bool:
    return cell == MISSING or cell[:1].isdigit() or cell[:1] in "−-"


def _cell(value: Any) -> str:
    if is_missing(value):
        return MISSING
    if not is_number(value):
        return str(value)
    return whole(value) if value == round(value) else decimal(value)
