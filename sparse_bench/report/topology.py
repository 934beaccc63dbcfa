"""What rewiring did to a topology: turnover, overlap and exploration per epoch, and degrees first against last."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter
from scipy import special

from sparse_bench.record import FINISHED, RunFolder
from sparse_bench.report.arms import Arm, Curve, Study
from sparse_bench.report.figures import LineStyle, legend, line_styles
from sparse_bench.report.learning_curves import Histories, Line, RunKey, mean_line
from sparse_bench.report.load import Problem, Results
from sparse_bench.report.style import INK, MUTED, SERIES, Figure, file_stem, render
from sparse_bench.report.tables import decimal

#: Kinds of figures, the first part of their files' names.
KINDS = ("topology", "degrees")
#: What is followed: name in the metrics → title of its panel.
_FOLLOWED = {
    "topology/turnover": "turnover",
    "topology/overlap": "overlap with the start",
    "topology/exploration": "places ever connected",
}
#: Key in the record → title of its panel.
_SIDES = {"in_degree": "in-degree of outputs", "out_degree": "out-degree of inputs"}
#: Layers drawn in a figure at most; more would hide one another.
_MOST_LAYERS = 12


@dataclass(frozen=True)
class Snapshot:
    """All sparse layers of a run at one moment, as its ``topology.jsonl`` has them."""

    epoch: int
    layers: Mapping[str, Mapping[str, Any]]

    @property
    def connections(self) -> int:
        """Of all layers together."""
        return sum(int(layer["active"]) for layer in self.layers.values())


@dataclass(frozen=True)
class Change:
    """What training did to a run's topology.

    Attributes:
        first: before the first epoch.
        last: the last one with as many connections as the first, else the last of all: after its last epoch SET
            removes connections and grows none.
    """

    first: Snapshot
    last: Snapshot


#: Of the runs whose topology has changed.
Changes = Mapping[RunKey, Change]


def read_topologies(results: Results) -> tuple[Changes, list[Problem]]:
    """How the topologies of all finished runs changed, and records that cannot be read."""
    changes, problems = {}, []
    finished = results.runs[results.runs["status"] == FINISHED]
    for experiment, run, folder in zip(finished["experiment"], finished["id"], finished["folder"], strict=True):
        try:
            change = read_topology(RunFolder(folder))
        except ValueError as error:
            problems.append(Problem(f"{experiment}/{run}", f"Its topology cannot be read: {error}"))
            continue
        if change is not None:
            changes[experiment, run] = change
    return changes, problems


def read_topology(folder: RunFolder) -> Change | None:
    """How a run's topology changed; None if it did not. An unfinished last line is passed over.

    Raises:
        ValueError: a line before the last is no record of a topology.
    """
    path = folder.topology.path
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    first = same = last = None
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            last = Snapshot(int(entry["epoch"]), dict(entry["layers"]))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path.name}, line {number}: not valid JSON ({error})") from error
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path.name}, line {number}: no record of a topology ({error!r})") from error
        if first is None:
            first = last
        elif last.connections == first.connections:
            same = last
    if first is None or last is None or last is first:
        return None
    return Change(first, same or last)


def topology_figures(study: Study, histories: Histories, changes: Changes) -> list[Figure]:
    """The figures of a study's dynamic arms; none where there are none.

    Where a curve has several widths of model, the widest is drawn.
    """
    figures = [evolution_figure(study, histories)]
    styles = line_styles(study)
    for curve in study.curves:
        runs = curve.arms[-1].runs.sort_values("seed")
        for experiment, run, seed in zip(runs["experiment"], runs["id"], runs["seed"], strict=True):
            if (experiment, run) in changes:
                stem = file_stem("degrees", study.experiment, *map(str, study.labels.values()), curve.label)
                change = changes[experiment, run]
                figures.append(degree_figure(stem, curve.told, change, int(seed), styles[curve].colour))
                break
    return [figure for figure in figures if figure is not None]


def evolution_figure(study: Study, histories: Histories) -> Figure | None:
    """Turnover, overlap with the start and exploration per epoch: a line for each curve; None without two epochs."""
    styles = line_styles(study)
    panels: dict[str, list[tuple[Curve, Line]]] = {}
    for metric in _FOLLOWED:
        found = [(curve, mean_line(_frames(curve.arms[-1], histories), metric)) for curve in study.curves]
        panels[metric] = [(curve, line) for curve, line in found if line is not None]
    if not any(panels.values()):
        return None

    def draw(canvas: Canvas, compact: bool) -> None:
        grid = np.atleast_1d(canvas.subplots(len(panels) if compact else 1, 1 if compact else len(panels)))
        for axes, (metric, lines) in zip(grid, panels.items(), strict=True):
            for curve, line in lines:
                _draw_line(axes, line, styles[curve], curve.told)
            axes.set_title(_FOLLOWED[metric], fontsize=9)
            axes.set_ylim(bottom=0)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        canvas.supxlabel("epoch", fontsize=9.5)
        legend(canvas, grid[0], compact)

    seeds = sorted({line.seeds for lines in panels.values() for _, line in lines})
    counted = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    caption = [
        "Turnover: share of the connections that a rewiring takes away and does not put back (mean of the epoch's "
        "rewirings). Overlap: share of the first connections that are there after the epoch. Places ever connected: "
        "share of all entries of the sparse layers.",
        "Single runs." if seeds == [1] else f"Mean over {counted} seeds, with 95 % t-intervals.",
    ]
    alt = ["Three line charts per epoch."]
    for metric, lines in panels.items():
        for curve, line in lines:
            first, last = decimal(float(line.mean[0])), decimal(float(line.mean[-1]))
            alt.append(f"{curve.told}, {_FOLLOWED[metric]}: {first} at first, {last} at last.")
    name = file_stem("topology", study.experiment, *map(str, study.labels.values()))
    return render(name, "The topology during training", " ".join(caption), " ".join(alt), draw, height=2.9)


def degree_figure(stem: str, label: str, change: Change, seed: int, colour: str = SERIES[0]) -> Figure:
    """Degree distributions of every layer, first against last, with the last one's power-law fits.

    Args:
        stem: name of the figure's files.
        label: of the arm.
        change: of one run.
        seed: the run's.
        colour: of the last distributions.
    """
    first, last = change.first, change.last
    names = list(first.layers)[:_MOST_LAYERS]

    def draw(canvas: Canvas, compact: bool) -> None:
        shape = (len(_SIDES), 1) if compact else (1, len(_SIDES))
        grid = np.atleast_1d(canvas.subplots(*shape))
        for axes, (side, title) in zip(grid, _SIDES.items(), strict=True):
            for layer in names:
                _draw_distribution(axes, first.layers[layer][side], MUTED)
                _draw_distribution(axes, last.layers[layer][side], colour)
                _draw_fit(axes, last.layers[layer][side])
            _logarithmic(axes)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("degree k")
        grid[0].set_ylabel("share of units of degree ≥ k")
        # One entry a kind of line, not one a layer.
        grid[0].plot([], [], "-", color=MUTED, linewidth=1.1, label="first")
        grid[0].plot([], [], "-", color=colour, linewidth=1.1, label=f"after epoch {last.epoch}")
        grid[0].plot([], [], ":", color=INK, linewidth=1.0, label="power-law fit")
        legend(canvas, grid[0], compact)

    title = f"Degrees at first and at last: {label}"
    alt = _alt(first, last, names, label)
    return render(stem, title, _caption(first, last, names, seed), alt, draw, height=3.4)


def _frames(arm: Arm, histories: Histories) -> list[Any]:
    keys = zip(arm.runs["experiment"], arm.runs["id"], strict=True)
    return [histories[key] for key in keys if key in histories]


def _draw_line(axes: Axes, line: Line, style: LineStyle, label: str) -> None:
    if line.half_width is not None:
        low, high = line.mean - line.half_width, line.mean + line.half_width
        axes.fill_between(line.epochs, low, high, color=style.colour, alpha=0.12, linewidth=0)
    axes.plot(line.epochs, line.mean, style.dashes, color=style.colour, linewidth=1.4, label=label)


def _tail_function(described: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Degrees k of the units that are not dead, and the share of these units with at least k connections."""
    degrees, counts = (np.array(described[key]) for key in ("degrees", "counts"))
    degrees, counts = degrees[degrees > 0], counts[degrees > 0]
    return degrees, counts[::-1].cumsum()[::-1] / max(1, counts.sum())


def _draw_distribution(axes: Axes, described: Mapping[str, Any], colour: str) -> None:
    degrees, shares = _tail_function(described)
    axes.step(degrees, shares, where="pre", color=colour, linewidth=1.1, alpha=0.8)


def _draw_fit(axes: Axes, described: Mapping[str, Any]) -> None:
    fitted = described["power_law"]
    if fitted is None:
        return
    degrees, shares = _tail_function(described)
    k = degrees[degrees >= fitted["xmin"]]
    zeta = special.zeta(fitted["alpha"], k.astype(float)) / special.zeta(fitted["alpha"], float(fitted["xmin"]))
    start = shares[degrees >= fitted["xmin"]][0]
    axes.plot(k, start * zeta, ":", color=INK, linewidth=1.0)


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _fitted(snapshot: Snapshot, names: Sequence[str], side: str) -> list[Mapping[str, Any]]:
    """The degrees of the layers that have a fit."""
    return [snapshot.layers[name][side] for name in names if snapshot.layers[name][side]["power_law"] is not None]


def _favoured(described: Sequence[Mapping[str, Any]]) -> int:
    """How many of them a power law describes better than both other distributions."""
    return sum(degrees["power_law"]["favoured"] for degrees in described)


def _caption(first: Snapshot, last: Snapshot, names: Sequence[str], seed: int) -> str:
    parts = [
        f"Seed {seed}, a line for each layer, units without a connection left out. Dotted: the discrete power law of "
        "highest likelihood, from the x_min with the least Kolmogorov-Smirnov distance on (Clauset, Shalizi & Newman "
        "2009)."
    ]
    for side, title in _SIDES.items():
        described = _fitted(last, names, side)
        if not described:
            parts.append(f"No fit of the {title}: too few units.")
            continue
        alphas = [degrees["power_law"]["alpha"] for degrees in described]
        share = float(np.median([degrees["power_law"]["tail"] / sum(degrees["counts"]) for degrees in described]))
        parts.append(
            f"At last, {title}: α from {min(alphas):.1f} to {max(alphas):.1f}, for a tail of {100 * share:.0f} % of "
            "the units (median); a power law is likelier than both an exponential and a Poisson distribution "
            f"(p < 0.1) in {_favoured(described)} of {_count(len(names), 'layer')}, at first in "
            f"{_favoured(_fitted(first, names, side))}."
        )
    if len(names) < len(first.layers):
        parts.append(f"The first {len(names)} of {len(first.layers)} layers are drawn.")
    if last.connections != first.connections:
        parts.append(f"Connections: {first.connections:,} at first, {last.connections:,} at last.")
    return " ".join(parts)


def _alt(first: Snapshot, last: Snapshot, names: Sequence[str], label: str) -> str:
    sentences = [f"Degree distributions on logarithmic axes, {label}, {_count(len(names), 'layer')}."]
    for side, title in _SIDES.items():
        for moment, snapshot in (("at first", first), ("at last", last)):
            ratios = [snapshot.layers[name][side]["variance_to_mean"] for name in names]
            largest = max(max(snapshot.layers[name][side]["degrees"]) for name in names)
            spread = decimal(float(np.mean(ratios)))
            sentences.append(f"{title} {moment}: variance to mean {spread} on average, largest degree {largest}.")
    return " ".join(sentences)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
