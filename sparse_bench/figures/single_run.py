"""Figures of one run: degree distributions before and after training, or trained weights."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter
from scipy import special

from sparse_bench.evidence.arms import Study
from sparse_bench.evidence.display import decimal
from sparse_bench.evidence.folders import Problem
from sparse_bench.evidence.single_runs import Content, Portrait, connections, first_portrait
from sparse_bench.evidence.store import RunTable
from sparse_bench.figures.lines import legend
from sparse_bench.figures.style import INK, MUTED, SERIES, Figure, file_stem, render

#: Key in the record → title of its panel.
_SIDES = {"in_degree": "in-degree of outputs", "out_degree": "out-degree of inputs"}
#: Most layers in one figure; more would hide one another.
_MOST_TOPOLOGIES, _MOST_HISTOGRAMS = 12, 8


def portrait_figure(portrait: Portrait, label: str, stem: str) -> Figure:
    """Draw a portrait; ``label`` names the arm in the title, and ``stem`` ends the file names."""
    if portrait.kind == "weights":
        return weight_figure(f"trained--{stem}", label, portrait.content, portrait.seed)
    return degree_figure(f"degrees--{stem}", label, portrait.content, portrait.seed)


def study_portraits(study: Study, table: RunTable, problems: list[Problem]) -> list[Figure]:
    """Degrees and weights of a run of each curve's widest model, read from the run folders.

    Each figure shows the first seed with data. Unreadable files are added to ``problems``.
    """
    figures = []
    for curve in study.curves:
        stem = file_stem(*study.names, curve.label)
        for kind in ("degrees", "weights"):
            portrait = first_portrait(kind, curve.arms[-1].runs, table.folders, problems)
            figures += [portrait_figure(portrait, curve.title, stem)] if portrait is not None else []
    return figures


def degree_figure(stem: str, label: str, content: Content, seed: int) -> Figure:
    """Draw the degree distributions of every layer before and after training, with power-law fits of the latter."""
    first, last = content["first"], content["last"]
    names = list(first["layers"])[:_MOST_TOPOLOGIES]

    def draw(canvas: Canvas, compact: bool) -> None:
        shape = (len(_SIDES), 1) if compact else (1, len(_SIDES))
        grid = np.atleast_1d(canvas.subplots(*shape))
        for axes, (side, title) in zip(grid, _SIDES.items(), strict=True):
            for layer in names:
                _draw_distribution(axes, first["layers"][layer][side], MUTED)
                _draw_distribution(axes, last["layers"][layer][side], SERIES[0])
                _draw_fit(axes, last["layers"][layer][side])
            _logarithmic(axes)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("degree k")
        grid[0].set_ylabel("share of units of degree ≥ k")
        # The legend has an entry for each kind of line, not for each layer.
        grid[0].plot([], [], "-", color=MUTED, linewidth=1.1, label="first")
        grid[0].plot([], [], "-", color=SERIES[0], linewidth=1.1, label=f"after epoch {last['epoch']}")
        grid[0].plot([], [], ":", color=INK, linewidth=1.0, label="power-law fit")
        legend(canvas, grid[:1], compact)

    title = f"Degrees before and after training: {label}"
    alt = _alt(first, last, names, label)
    return render(stem, title, _caption(first, last, names, seed), alt, draw, height=3.4)


def weight_figure(stem: str, label: str, summary: Content, seed: int) -> Figure:
    """Draw histograms of the existing weights by layer, and a map of mean magnitudes of the largest layer."""
    # The largest layers are drawn; names[0] is the one whose map was kept.
    edges, layers = np.asarray(summary["edges"]), summary["layers"]
    names = sorted(layers, key=lambda name: -sum(layers[name]["counts"]))
    shown = [name for name in names[:_MOST_HISTOGRAMS] if sum(layers[name]["counts"])]

    def draw(canvas: Canvas, compact: bool) -> None:
        histogram, heat = canvas.subplots(*((2, 1) if compact else (1, 2)))
        for name in shown:
            counts = np.asarray(layers[name]["counts"], dtype=float)
            histogram.stairs(counts / counts.sum(), edges, linewidth=1.0, label=name)
        for side in (-summary["small"], summary["small"]):
            histogram.axvline(side, color=INK, linewidth=0.8, linestyle=":")
        histogram.set_xlabel("weight")
        histogram.set_ylabel("share of the layer's weights")
        histogram.xaxis.set_major_locator(MaxNLocator(nbins=4))
        image = heat.imshow(np.asarray(layers[names[0]]["map"]), aspect="auto", cmap="viridis", vmin=0)
        heat.set_title(textwrap.fill(names[0], 30, break_long_words=True), fontsize=9)
        heat.set_xlabel("inputs")
        heat.set_ylabel("outputs")
        heat.set_xticks([])
        heat.set_yticks([])
        canvas.colorbar(image, ax=heat, label="mean magnitude")
        # Layer names are long, so the legend is below the panels.
        handles, labels = histogram.get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside lower left", ncols=1 if compact else 2)

    shares = [f"{name} {100 * layers[name]['share_small']:.0f} %" for name in shown]
    more = f" Shown: the {len(shown)} largest of {len(names)} layers." if len(shown) < len(names) else ""
    small = f"Below {summary['small']}: {', '.join(shares)}." if shares else "No weight exists."
    caption = (
        f"Left: histograms of the existing weights after training (seed {seed}); dotted: ±{summary['small']}. Right: "
        f"mean magnitude over the entries of one matrix; missing entries count as 0. {small}{more}"
    )
    largest = decimal(float(edges[-1]))
    alt = f"Histograms of the weights of {len(shown)} layers, from −{largest} to {largest}, and a map of {names[0]}."
    height = 2.9 + 0.13 * len(shown)
    return render(stem, f"Weights after training: {label}", caption, alt, draw, height=height)


def _tail_function(described: Content) -> tuple[np.ndarray, np.ndarray]:
    """Degrees k of the connected units, and the share of these units with at least k connections."""
    degrees, counts = (np.array(described[key]) for key in ("degrees", "counts"))
    degrees, counts = degrees[degrees > 0], counts[degrees > 0]
    return degrees, counts[::-1].cumsum()[::-1] / max(1, counts.sum())


def _draw_distribution(axes: Axes, described: Content, colour: str) -> None:
    degrees, shares = _tail_function(described)
    axes.step(degrees, shares, where="pre", color=colour, linewidth=1.1, alpha=0.8)


def _draw_fit(axes: Axes, described: Content) -> None:
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


def _fitted(snapshot: Content, names: Sequence[str], side: str) -> list[Content]:
    """The degrees of the layers that have a fit."""
    return [snapshot["layers"][name][side] for name in names if snapshot["layers"][name][side]["power_law"] is not None]


def _favoured(described: Sequence[Content]) -> int:
    """The number of layers that a power law describes better than both other distributions."""
    return sum(degrees["power_law"]["favoured"] for degrees in described)


def _caption(first: Content, last: Content, names: Sequence[str], seed: int) -> str:
    parts = [
        f"Seed {seed}, a line for each layer, without unconnected units. Dotted: the maximum-likelihood discrete power "
        "law above the x_min with the smallest Kolmogorov-Smirnov distance (Clauset, Shalizi & Newman 2009)."
    ]
    for side, title in _SIDES.items():
        described = _fitted(last, names, side)
        if not described:
            parts.append(f"No fit for the {title}: too few units.")
            continue
        alphas = [degrees["power_law"]["alpha"] for degrees in described]
        share = float(np.median([degrees["power_law"]["tail"] / sum(degrees["counts"]) for degrees in described]))
        parts.append(
            f"After training, {title}: α is {min(alphas):.1f} to {max(alphas):.1f}; the tail holds {100 * share:.0f} % "
            "of the units (median). A power law is likelier than both an exponential and a Poisson distribution "
            f"(p < 0.1) in {_favoured(described)} of {_count(len(names), 'layer')}, before training in "
            f"{_favoured(_fitted(first, names, side))}."
        )
    if len(names) < len(first["layers"]):
        parts.append(f"The first {len(names)} of {len(first['layers'])} layers are drawn.")
    before, after = connections(first), connections(last)
    if before != after:
        parts.append(f"Connections: {before:,} before training, {after:,} after.")
    return " ".join(parts)


def _alt(first: Content, last: Content, names: Sequence[str], label: str) -> str:
    sentences = [f"Degree distributions on logarithmic axes, {label}, {_count(len(names), 'layer')}."]
    for side, title in _SIDES.items():
        for moment, snapshot in (("before training", first), ("after training", last)):
            ratios = [snapshot["layers"][name][side]["variance_to_mean"] for name in names]
            largest = max(max(snapshot["layers"][name][side]["degrees"]) for name in names)
            spread = decimal(float(np.mean(ratios)))
            sentences.append(f"{title} {moment}: variance to mean {spread} on average, largest degree {largest}.")
    return " ".join(sentences)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
