"""Figures of every study: metrics against weights or density, learning curves, the topology during training."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from sparse_bench.evidence import names
from sparse_bench.evidence.arms import Arm, Curve, Study
from sparse_bench.evidence.display import whole
from sparse_bench.evidence.statistics import Interval, mean_interval
from sparse_bench.evidence.store import RunKey
from sparse_bench.evidence.tables import with_warnings
from sparse_bench.figures.lines import LOG_FROM, Chart, Line, Look, Panel, diverged_beyond, line_chart, point_of
from sparse_bench.figures.style import INK, MARKERS, MUTED, SERIES, SMALL_DENSE_MARKER, Figure, file_stem

Histories = Mapping[RunKey, pd.DataFrame]
#: Distance between schemes at the same density, as a share of the axis.
_ASIDE = 0.014
#: Topology metrics that are drawn: name → title of the panel.
_FOLLOWED = {
    "topology/turnover": "turnover",
    "topology/overlap": "overlap with the start",
    "topology/exploration": "places ever connected",
}


def looks(study: Study) -> dict[Curve, Look]:
    """A look for every curve: dense in ink, narrower dense models dashed, every other one with a hue and a marker.

    If several schemes are compared at several densities, the hue stands for the scheme and the marker for the density.
    """
    sparse = [curve for curve in study.curves if curve.kind == "sparse"]
    families = list(dict.fromkeys((curve.scheme, curve.variant) for curve in sparse))
    densities = list(dict.fromkeys(curve.density for curve in sparse))
    crossed = len(families) > 1 and len(densities) > 1
    found = {}
    for curve in study.curves:
        if curve.kind == "dense":
            found[curve] = Look(INK, "o")
        elif curve.kind == "small_dense":
            found[curve] = Look(MUTED, SMALL_DENSE_MARKER, "--")
        else:
            hue = families.index((curve.scheme, curve.variant)) if crossed else sparse.index(curve)
            mark = densities.index(curve.density) if crossed else sparse.index(curve)
            found[curve] = Look(SERIES[hue % len(SERIES)], MARKERS[(mark + 1) % len(MARKERS)])
    return found


def metric_figure(study: Study, metric: str) -> Figure | None:
    """Draw a metric against the trainable weights in the sparse layers (log scale), one curve a density.

    The figure follows the blog post on randomly connected layers. If the study has a single width, the metric is drawn
    against the realised density instead.

    Returns:
        None if fewer than two arms have both sparse layers and the metric.
    """
    by_density = study.one_width
    full = max((arm.mean(names.SPARSE_SIZE) or 0.0 for arm in study.arms if arm.kind != "small_dense"), default=0.0)
    lines: dict[Curve, list[Line]] = {}
    for curve, look in looks(study).items():
        narrow = full if by_density and curve.kind == "small_dense" else 0.0
        pairs = [_pairs(arm, metric, narrow, by_density) for arm in curve.arms]
        found = [point_of(known) for known in pairs if known]
        lines[curve] = [Line(curve.title, [point], look, runs) for point, runs in found]
    drawn = [line for found in lines.values() for line in found]
    if len(drawn) < 2:
        return None
    # Against density, arms of one scheme form a line; against weights, arms of one density do.
    curves = _families(lines) if by_density else [_joined(found) for found in lines.values() if found]
    against = "density" if by_density else "weights in the sparse layers"
    counted = "realised density" if by_density else "number of existing weights"
    remarks = [f"Horizontal position: {counted}, mean over seeds."]
    if by_density and any(curve.kind == "small_dense" for curve in lines):
        remarks.append("For a narrower dense model it is the share of the full model's weights.")
    if by_density and any(line.level for line in curves):
        remarks.append("Dotted: the dense arm's mean.")
    if any(line.aside for line in curves):
        remarks.append("Arms of equal density are drawn side by side.")
    after = [_outside(study)]
    if missing := sum(len(curve.arms) for curve in study.curves) - len(drawn):
        after.append(
            f"Not drawn: {missing} arm{'' if missing == 1 else 's'} without sparse layers or without this metric."
        )
    x = "density: share of the sparse layers' weights that exist" if by_density else f"{against} (log scale)"
    axis = "density" if by_density else "logarithmic"
    chart = Chart([Panel("", curves)], x, names.direction(metric), axis, remarks=remarks)  # type: ignore[arg-type]
    stem = file_stem("density" if by_density else "weights", *study.names, metric)
    title = f"{names.title(metric)} against {against}"
    return line_chart(stem, title, chart, after=[*after, with_warnings("", study.arms)])


def learning_curves(study: Study, histories: Histories, metric: str) -> Figure | None:
    """Draw a metric per epoch: a panel a curve with a line a width, or one panel for a single width.

    Returns:
        None if no arm has two epochs of the metric.
    """
    panels, together = [], study.one_width
    for curve, look in looks(study).items():
        known = [(arm, points) for arm in curve.arms if (points := mean_curve(frames(arm.runs, histories), metric))]
        strengths = np.linspace(0.3, 1.0, len(known)) if len(known) > 1 else [1.0] * len(known)
        lines = []
        for (arm, points), strength in zip(known, map(float, strengths), strict=True):
            if not together:  # without bands: bands of one hue would hide one another
                points = [(epoch, Interval(mean.mean, None, mean.n)) for epoch, mean in points]
            lines.append(
                Line(f"{whole(arm.mean(names.SPARSE_WEIGHTS))} weights", points, replace(look, strength=strength))
            )
        panels += [Panel(curve.title, lines)] if lines else []
    if not panels:
        return None
    values = np.concatenate([line.y for panel in panels for line in panel.lines])
    values = values[np.abs(values) <= diverged_beyond(values.tolist())]
    logarithmic = bool(len(values) and values.min() > 0 and values.max() / values.min() > LOG_FROM)
    remarks = ["Drawn up to the last epoch that all runs of an arm reached."]
    if together:
        panels = [Panel("", _one_panel(panels))]
        if len({line.look.colour for line in panels[0].lines}) < len(panels[0].lines):
            remarks.append("Among lines of one hue, denser arms have stronger lines.")
    else:
        remarks.append("One line for each width of the model; stronger lines have more weights in the sparse layers.")
    direction = names.direction(metric)
    chart = Chart(panels, "epoch", direction, "whole", bands=True, logarithmic=logarithmic, remarks=remarks)
    height = 3.7 if len(panels) == 1 else 0.9 + 2.1 * -(-len(panels) // 3)
    stem = file_stem("curves", *study.names, metric)
    title, warnings = f"{names.title(metric)} during training", with_warnings("", study.arms)
    return line_chart(stem, title, chart, after=[warnings], height=height)


def evolution_figure(study: Study, histories: Histories) -> Figure | None:
    """Draw turnover, overlap with the start and exploration per epoch, a line a curve; None without two epochs."""
    panels = []
    for metric, title in _FOLLOWED.items():
        found = {curve: mean_curve(frames(curve.arms[-1].runs, histories), metric) for curve in study.curves}
        lines = [Line(curve.title, found[curve], look) for curve, look in looks(study).items() if found[curve]]
        panels += [Panel(title, lines)] if lines else []
    if not panels:
        return None
    remarks = [
        "Turnover: share of the connections that a rewiring removes and does not regrow, mean over the epoch's "
        "rewirings. Overlap: share of the initial connections that exist after the epoch. Places ever connected: share "
        "of all entries of the sparse layers that have held a connection."
    ]
    chart = Chart(panels, "epoch", "", "whole", bands=True, from_zero=True, shared=False, remarks=remarks)
    return line_chart(file_stem("topology", *study.names), "The topology during training", chart, height=2.9)


def followed_metrics(study: Study, histories: Histories, metrics: Sequence[str]) -> list[str]:
    """The logged metrics that match ``metrics``, then the training loss."""
    logged = sorted({name for arm in study.arms for frame in frames(arm.runs, histories) for name in frame.columns})
    found = [name for metric in metrics for name in names.matching(metric, logged)]
    return list(dict.fromkeys([*found, *(name for name in ("train/loss",) if name in logged)]))


def mean_curve(histories: Sequence[pd.DataFrame], metric: str) -> list[tuple[float, Interval]]:
    """A metric's mean over runs by epoch; empty if all runs share fewer than two finite epochs."""
    series = [frame[metric].dropna() for frame in histories if metric in frame.columns]
    joined = pd.concat(series, axis=1, join="inner") if series else pd.DataFrame()
    finite = joined[np.isfinite(joined.to_numpy(dtype=float)).all(axis=1)]
    points = [(float(epoch), mean_interval([float(v) for v in row])) for epoch, *row in finite.itertuples()]
    return points if len(points) > 1 else []


def frames(runs: pd.DataFrame, histories: Histories) -> list[pd.DataFrame]:
    """The learning curves of those ``runs`` that have any."""
    keys = zip(runs["experiment"], runs["id"], strict=True)
    return [histories[key] for key in keys if key in histories]


def _pairs(arm: Arm, metric: str, full: float, by_density: bool) -> list[tuple[float, float]]:
    """Position and value of an arm's seeds: its weights, its realised density, or its weights over ``full``."""
    pairs = arm.pairs(names.DENSITY if by_density and not full else names.SPARSE_WEIGHTS, f"metric:{metric}")
    if any(place <= 0 for place, _ in pairs):
        return []
    return [(place / full, value) for place, value in pairs] if full else pairs


def _joined(lines: Sequence[Line], label: str = "") -> Line:
    """Join lines into one, with the look of the first."""
    points = sorted((point for line in lines for point in line.points), key=lambda point: point[0])
    return Line(label or lines[0].label, points, lines[0].look, [run for line in lines for run in line.runs])


def _families(lines: Mapping[Curve, Sequence[Line]]) -> list[Line]:
    """Lines against density: arms of one scheme are joined, and a dense arm becomes a reference level."""
    dense = [replace(line, level=True) for curve, found in lines.items() for line in found if curve.kind == "dense"]
    families: dict[str, list[Line]] = {}
    for curve, found in lines.items():
        if curve.kind != "dense" and found:
            scheme = ", ".join(filter(None, (curve.scheme.replace("_", " "), curve.variant)))
            families.setdefault(scheme if curve.kind == "sparse" else curve.label, []).extend(found)
    joined = [_joined(found, name) for name, found in families.items()]
    middle = (len(joined) - 1) / 2
    return dense + [replace(line, aside=(number - middle) * _ASIDE) for number, line in enumerate(joined)]


def _one_panel(panels: Sequence[Panel]) -> list[Line]:
    """The lines of several panels. Lines with the same hue get different opacity, the densest the highest."""
    hues = [panel.lines[0].look.colour for panel in panels]
    lines = []
    for place, panel in enumerate(panels):
        strength = 1.0 - 0.75 * hues[:place].count(hues[place]) / hues.count(hues[place])
        for line in panel.lines:
            label = panel.title if len(panel.lines) == 1 else f"{panel.title}, {line.label}"
            lines.append(replace(line, label=label, look=replace(line.look, strength=strength)))
    return lines


def _outside(study: Study) -> str:
    """The number of trainable weights outside the sparse layers, as a sentence."""
    outside = [
        trained - sparse for arm in study.arms for trained, sparse in arm.pairs(names.TRAINABLE, names.SPARSE_WEIGHTS)
    ]
    if not outside:
        return ""
    low, high = whole(min(outside)), whole(max(outside))
    amount = low if low == high else f"between {low} and {high}"
    return f"Outside the sparse layers each model has {amount} trainable weights, all dense."
