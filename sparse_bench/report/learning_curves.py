"""Learning curves: a metric per epoch, to see whether the arms had converged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator
from scipy import stats

from sparse_bench.record import FINISHED
from sparse_bench.report import metric_names
from sparse_bench.report.arms import SPARSE_WEIGHTS, Arm, Study
from sparse_bench.report.figures import LineStyle, direction, legend, line_styles, two_lines
from sparse_bench.report.load import Problem, Results, read_history
from sparse_bench.report.statistics import CONFIDENCE
from sparse_bench.report.style import Figure, file_stem, render
from sparse_bench.report.tables import decimal, whole, with_warnings

#: A run is known by its experiment and id.
RunKey = tuple[str, str]
Histories = Mapping[RunKey, pd.DataFrame]

#: Values that span more than this factor are drawn on a logarithmic axis.
_LOG_FROM = 20.0


@dataclass(frozen=True)
class Line:
    """The mean over an arm's seeds at each epoch that all of them reached, and half the width of its t-interval."""

    epochs: np.ndarray
    mean: np.ndarray
    half_width: np.ndarray | None
    seeds: int


@dataclass(frozen=True)
class _Panel:
    title: str
    lines: Sequence[tuple[Line, LineStyle, float, str]]


def read_histories(results: Results) -> tuple[Histories, list[Problem]]:
    """The learning curves of all finished runs, and those that cannot be read."""
    histories, problems = {}, []
    finished = results.runs[results.runs["status"] == FINISHED]
    for experiment, run, folder in zip(finished["experiment"], finished["id"], finished["folder"], strict=True):
        try:
            histories[experiment, run] = read_history(folder)
        except ValueError as error:
            reason = f"Its learning curve cannot be read: {str(error).removeprefix(str(folder)).lstrip('/')}"
            problems.append(Problem(f"{experiment}/{run}", reason))
    return histories, problems


def followed_metrics(study: Study, histories: Histories, metrics: Sequence[str]) -> list[str]:
    """Metrics that were logged during training and that belong to ``metrics``; then the training loss."""
    logged = sorted({name for arm in study.arms for frame in _frames(arm, histories) for name in frame.columns})
    found = [name for metric in metrics for name in metric_names.matching(metric, logged)]
    return list(dict.fromkeys([*found, *(name for name in ("train/loss",) if name in logged)]))


def learning_curves(study: Study, histories: Histories, metric: str) -> Figure | None:
    """Metric per epoch: a panel for each curve with a line for each width, or one panel if there is one width.

    None if fewer than two epochs of the metric are known for every arm.
    """
    panels = _panels(study, histories, metric)
    if not panels:
        return None
    lines = [line for panel in panels for line, *_ in panel.lines]
    values = np.concatenate([line.mean for line in lines])
    logarithmic = bool(values.min() > 0 and values.max() / values.min() > _LOG_FROM)

    def draw(canvas: Canvas, compact: bool) -> None:
        columns = min(len(panels), 2 if compact else 3)
        rows = -(-len(panels) // columns)
        grid = np.atleast_1d(canvas.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)).ravel()
        for axes, panel in zip(grid, panels, strict=False):
            _draw(axes, panel, logarithmic)
        _limit(grid[0], values, logarithmic)
        for axes in grid[len(panels) :]:
            axes.remove()
        # The last panel of each column carries the numbers of the shared axis.
        for axes in grid[max(0, len(panels) - columns) : len(panels)]:
            axes.xaxis.set_tick_params(labelbottom=True)
        if len(panels) == 1:
            grid[0].set_title(direction(metric))
            grid[0].set_xlabel("epoch")
            legend(canvas, grid[0], compact)
        else:
            canvas.suptitle(direction(metric), x=0.01, ha="left", fontsize=9.5)
            canvas.supxlabel("epoch", fontsize=9.5)

    caption = with_warnings(_caption(panels, logarithmic), study.arms)
    title = f"{metric_names.title(metric)} during training"
    name = file_stem("curves", study.experiment, *map(str, study.labels.values()), metric)
    height = 3.7 if len(panels) == 1 else 0.9 + 2.1 * -(-len(panels) // 3)
    return render(name, title, caption, _alt(panels, metric), draw, height=height)


def _frames(arm: Arm, histories: Histories) -> list[pd.DataFrame]:
    keys = zip(arm.runs["experiment"], arm.runs["id"], strict=True)
    return [histories[key] for key in keys if key in histories]


def mean_line(frames: Sequence[pd.DataFrame], metric: str) -> Line | None:
    """A metric's mean over runs by epoch; None if fewer than two epochs of it are known to all of them."""
    series = [frame[metric].dropna() for frame in frames if metric in frame.columns]
    joined = pd.concat(series, axis=1, join="inner") if series else pd.DataFrame()
    values = joined.to_numpy(dtype=np.float64)
    finite = np.isfinite(values).all(axis=1)
    if finite.sum() < 2:
        return None
    values, n = values[finite], values.shape[1]
    half_width = None
    if n > 1:
        half_width = stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * values.std(axis=1, ddof=1) / np.sqrt(n)
    return Line(joined.index.to_numpy()[finite], values.mean(axis=1), half_width, n)


def _panels(study: Study, histories: Histories, metric: str) -> list[_Panel]:
    styles = line_styles(study)
    panels: list[_Panel] = []
    for curve in study.curves:
        drawn = [(arm, mean_line(_frames(arm, histories), metric)) for arm in curve.arms]
        known = [(arm, line) for arm, line in drawn if line is not None]
        strengths = np.linspace(0.3, 1.0, len(known)) if len(known) > 1 else [1.0] * len(known)
        lines = []
        for (arm, line), strength in zip(known, strengths, strict=True):
            lines.append((line, styles[curve], float(strength), f"{whole(arm.mean(SPARSE_WEIGHTS))} weights"))
        if lines:
            panels.append(_Panel(curve.told, lines))
    if not study.one_width or not panels:
        return panels
    together = []
    hues = [panel.lines[0][1].colour for panel in panels]
    for place, panel in enumerate(panels):
        # Arms that share a hue, densities of one scheme from the highest down, are told apart by their strength.
        strength = 1.0 - 0.75 * hues[:place].count(hues[place]) / hues.count(hues[place])
        for line, style, _, weights in panel.lines:
            label = panel.title if len(panel.lines) == 1 else f"{panel.title}, {weights}"
            together.append((line, style, strength, label))
    return [_Panel("", together)]


def _draw(axes: Axes, panel: _Panel, logarithmic: bool) -> None:
    for line, style, strength, label in panel.lines:
        if not panel.title and line.half_width is not None:
            low, high = line.mean - line.half_width, line.mean + line.half_width
            # A logarithmic axis has no place for zero or less; this floor is far below what is shown.
            low = np.maximum(low, line.mean * 1e-3) if logarithmic else low
            axes.fill_between(line.epochs, low, high, color=style.colour, alpha=0.12, linewidth=0)
        axes.plot(line.epochs, line.mean, style.dashes, color=style.colour, alpha=strength, linewidth=1.4, label=label)
    axes.set_title(two_lines(panel.title), fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))


def _caption(panels: Sequence[_Panel], logarithmic: bool) -> str:
    drawn = [line for panel in panels for line in panel.lines]
    seeds = sorted({line.seeds for line, *_ in drawn})
    counted = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    parts = [f"Mean over {counted} seeds at each epoch that all of an arm's runs reached."]
    if seeds == [1]:
        parts = ["Single runs."]
    if len(panels) > 1:
        parts.append("One line a width of the model; the more weights in the sparse layers, the stronger the line.")
    elif seeds[-1] > 1:
        parts.append("Bands: 95 % t-interval over seeds, cut at the axis.")
    if len(panels) == 1 and len({style.colour for _, style, *_ in drawn}) < len(drawn):
        parts.append("Lines of one hue: the denser the arm, the stronger its line.")
    if logarithmic:
        parts.append("The vertical axis is logarithmic.")
    return " ".join(parts)


def _limit(axes: Axes, values: np.ndarray, logarithmic: bool) -> None:
    """Room for every mean; the axis is shared, so this sets all panels."""
    low, high = float(values.min()), float(values.max())
    if logarithmic:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.15, high * 1.15)
    else:
        margin = 0.08 * ((high - low) or abs(high) or 1.0)
        axes.set_ylim(low - margin, high + margin)


def _alt(panels: Sequence[_Panel], metric: str) -> str:
    sentences = [f"Learning curves of {metric_names.title(metric)} per epoch."]
    for panel in panels:
        for line, _, _, label in panel.lines:
            name = ", ".join(filter(None, (panel.title, label)))
            sentences.append(
                f"{name}: {decimal(float(line.mean[0]))} at first, {decimal(float(line.mean[-1]))} at last."
            )
    return " ".join(sentences)
