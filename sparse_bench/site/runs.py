"""The runs of a paper as entries of its pages: measurements, settings and learning curves."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from sparse_bench.evidence import names
from sparse_bench.evidence.arms import SMALL_DENSE_SCHEME, realised_note
from sparse_bench.evidence.display import decimal, density_range, duration, percent, setting, whole
from sparse_bench.evidence.names import quantity
from sparse_bench.evidence.store import WARNINGS, RunTable, key_of
from sparse_bench.papers.page import Paper
from sparse_bench.record import FINISHED

_WIDTH, _HEIGHT = 320.0, 150.0


def run_entries(paper: Paper, table: RunTable) -> list[dict[str, Any]]:
    """What the pages show of all runs of ``table``, in its order.

    Each entry has ``file``, the name of the run's page; ``experiment``, ``id``, ``seed`` and ``status``; as text,
    ``labels`` (model, dataset, scheme, density), ``headline`` (the paper's main metric), ``made`` (processor, device,
    version of torch, commit), ``error`` and ``warnings``, of which all but the first may be empty; name and text of
    each of ``measured`` (metrics, weights, time) and ``settings`` (those in which the paper's runs differ); and title
    and small drawing of each of ``curves``.
    """
    histories = table.histories
    main = [metric for section in paper.sections for metric in section.metrics]
    return [_entry(row, histories.get(key_of(row)), main) for row in table.rows()]


def _entry(row: dict[str, Any], history: Any, main: Sequence[str]) -> dict[str, Any]:
    labels = []
    # The label of a narrower dense model is a share of the full model's weights, which its row does not hold.
    density = None if row.get("label:scheme") == SMALL_DENSE_SCHEME else row.get(names.DENSITY)
    for column, value in row.items():
        if column == "label:density" and value is not None:
            labels.append(percent(float(value)) + realised_note(value, [density]))
        elif column.startswith("label:") and value is not None:
            labels.append(str(value).replace("_", " "))
    # Measurements: all metrics, the counts, the realised density, the time.
    metrics = {c.removeprefix("metric:"): v for c, v in row.items() if c.startswith("metric:") and v is not None}
    first = next((metric for metric in main if metric in metrics), None)
    measured = [(names.title(name), decimal(value)) for name, value in metrics.items()]
    counts = (names.SPARSE_WEIGHTS, names.HELD, names.TRAINABLE, names.FORWARD, names.BACKWARD)
    measured += [(quantity(column), whole(row[column])) for column in counts if row.get(column) is not None]
    if density is not None:
        measured.append(("realised density", density_range([density])))
    if (average := row.get(names.AVERAGE_DENSITY)) is not None:
        measured.append(("average density", percent(float(average))))
    if row.get("seconds:total") is not None:
        measured.append(("time", duration(row["seconds:total"])))
    settings = [
        (column.removeprefix("setting:"), setting(value))
        for column, value in row.items()
        if column.startswith("setting:") and value is not None
    ]
    known = {"processor": "{}", "device": "{}", "torch": "torch {}", "commit": "commit {:.12}"}
    made = [form.format(str(row[f"made:{name}"])) for name, form in known.items() if row.get(f"made:{name}")]
    # A curve needs two epochs.
    curves = []
    if history is not None:
        for name in history.columns:
            values = history[name].dropna()
            if len(values) > 1:
                curves.append((names.title(name), _drawing(values.index.tolist(), values.tolist(), name)))
    return {
        "file": f"{row['experiment']}-{row['id']}.html".replace("/", "-"),
        "experiment": row["experiment"],
        "id": row["id"],
        "seed": row["seed"],
        "status": row["status"],
        "labels": ", ".join(labels),
        "headline": f"{names.title(first)} {decimal(metrics[first])}" if first else "",
        "measured": measured,
        "settings": settings,
        "made": ", ".join(made),
        "error": str(row.get("error") or "") if row["status"] != FINISHED else "",
        "warnings": row.get(WARNINGS) or "",
        "curves": curves,
    }


def _drawing(epochs: Sequence[float], values: Sequence[float], name: str) -> Markup:
    """Draw a learning curve as SVG in the colours of the text.

    Args:
        epochs: epochs, at least two [points].
        values: values at these epochs [points].
        name: name of the metric, for the text alternative.
    """
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    width = (epochs[-1] - epochs[0]) or 1.0
    left, right, top, bottom = 54.0, _WIDTH - 8.0, 10.0, _HEIGHT - 24.0
    x = [left + (right - left) * (epoch - epochs[0]) / width for epoch in epochs]
    y = [bottom - (bottom - top) * (value - low) / span for value in values]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    words = f"{name}: {decimal(values[0])} at epoch {epochs[0]:.0f}, {decimal(values[-1])} at epoch {epochs[-1]:.0f}"
    texts = [(left - 6, top + 4, "end", decimal(high))] if high > low else []
    texts += [(left - 6, bottom + 4, "end", decimal(low))]
    texts += [(left, _HEIGHT - 6, "start", f"epoch {epochs[0]:.0f}"), (right, _HEIGHT - 6, "end", f"{epochs[-1]:.0f}")]
    labels = [Markup('<text x="{:.0f}" y="{:.0f}" text-anchor="{}">{}</text>').format(*text) for text in texts]
    return Markup(
        '<svg class="curve" role="img" aria-label="{}" viewBox="0 0 {:.0f} {:.0f}">'
        '<path class="axes" d="M{} {}V{}H{}"/><polyline points="{}"/>{}</svg>'
    ).format(words, _WIDTH, _HEIGHT, left, top, bottom, right, points, Markup("").join(labels))
