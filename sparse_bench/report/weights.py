"""What the weights of a run look like: a histogram of each layer, and a map of the largest one."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from sparse_bench.record import FINISHED, RunFolder
from sparse_bench.report.arms import Study
from sparse_bench.report.figures import legend
from sparse_bench.report.learning_curves import RunKey
from sparse_bench.report.load import Problem, Results
from sparse_bench.report.style import INK, Figure, file_stem, render
from sparse_bench.report.tables import decimal

#: Kind of figures, the first part of their files' names.
KIND = "values"
#: Layers drawn in a histogram at most; more would hide one another.
_MOST_LAYERS = 8

#: Summary of each run that has one, as its ``weights.json`` has it.
Summaries = Mapping[RunKey, Mapping[str, Any]]


def read_summaries(results: Results) -> tuple[Summaries, list[Problem]]:
    """The weight summaries of all finished runs that have one, and those that cannot be read."""
    found: dict[RunKey, Mapping[str, Any]] = {}
    problems = []
    finished = results.runs[results.runs["status"] == FINISHED]
    for experiment, run, folder in zip(finished["experiment"], finished["id"], finished["folder"], strict=True):
        try:
            summary = read_summary(RunFolder(folder))
        except ValueError as error:
            problems.append(Problem(f"{experiment}/{run}", f"Its weight summary {error}"))
            continue
        if summary is not None:
            found[experiment, run] = summary
    return found, problems


def read_summary(folder: RunFolder) -> Mapping[str, Any] | None:
    """The weight summary of a run; None if it has none, or no weights to summarise.

    Raises:
        ValueError: it cannot be read, or lacks a part; says so in words that follow "Its weight summary".
    """
    path = folder.weight_summary
    if not path.exists():
        return None
    try:
        summary: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing = {"edges", "layers", "small"} - summary.keys()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"cannot be read: {error}") from error
    if missing:
        raise ValueError(f"lacks {', '.join(sorted(missing))}.")
    return summary if summary["layers"] else None


def weight_figures(study: Study, summaries: Summaries) -> list[Figure]:
    """A figure for each curve, of the first seed of its widest model; none where nothing is known."""
    figures = []
    for curve in study.curves:
        runs = curve.arms[-1].runs.sort_values("seed")
        for experiment, run, seed in zip(runs["experiment"], runs["id"], runs["seed"], strict=True):
            if (experiment, run) in summaries:
                stem = file_stem(KIND, study.experiment, *map(str, study.labels.values()), curve.label)
                figures.append(weight_figure(stem, curve.told, summaries[experiment, run], int(seed)))
                break
    return figures


def weight_figure(stem: str, label: str, summary: Mapping[str, Any], seed: int) -> Figure:
    """Histograms of the existing weights of every layer, and mean magnitudes over the matrix that holds most of them.

    Args:
        stem: name of the figure's files.
        label: of the arm.
        summary: of one run.
        seed: the run's.
    """
    edges, layers = np.asarray(summary["edges"]), summary["layers"]
    names = sorted(layers, key=lambda name: -sum(layers[name]["counts"]))
    shown = [name for name in names[:_MOST_LAYERS] if sum(layers[name]["counts"])]

    def draw(canvas: Canvas, compact: bool) -> None:
        histogram, heat = canvas.subplots(*((2, 1) if compact else (1, 2)))
        for name in shown:
            counts = np.asarray(layers[name]["counts"], dtype=float)
            histogram.stairs(counts / counts.sum(), edges, linewidth=1.0, label=name)
        for side in (-summary["small"], summary["small"]):
            histogram.axvline(side, color=INK, linewidth=0.8, linestyle=":")
        histogram.set_xlabel("weight")
        histogram.set_ylabel("share of the layer's weights")
        image = heat.imshow(np.asarray(layers[names[0]]["map"]), aspect="auto", cmap="viridis", vmin=0)
        heat.set_title(names[0], fontsize=9)
        heat.set_xlabel("inputs")
        heat.set_ylabel("outputs")
        heat.set_xticks([])
        heat.set_yticks([])
        canvas.colorbar(image, ax=heat, label="mean magnitude")
        legend(canvas, histogram, compact)

    shares = [f"{name} {100 * layers[name]['share_small']:.0f} %" for name in shown]
    more = f" The {len(shown)} layers with most weights of {len(names)}." if len(shown) < len(names) else ""
    small = f"Below {summary['small']}: {', '.join(shares)}." if shares else "No weight exists."
    caption = (
        f"Left: existing weights after training (seed {seed}); dotted: ±{summary['small']}. Right: mean magnitude over "
        f"the entries of a matrix, missing ones being 0. {small}{more}"
    )
    largest = decimal(float(edges[-1]))
    alt = f"Histograms of the weights of {len(shown)} layers, from −{largest} to {largest}, and a map of {names[0]}."
    return render(stem, f"Weights after training: {label}", caption, alt, draw, height=3.2)
