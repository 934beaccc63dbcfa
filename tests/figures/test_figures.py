"""What a metric's figure draws and says: against weights, or against density."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from sparse_bench.evidence.arms import studies_of
from sparse_bench.evidence.store import RunTable, load
from sparse_bench.figures import lines
from sparse_bench.figures.lines import diverged_beyond
from sparse_bench.figures.study import looks, metric_figure
from sparse_bench.figures.style import Figure
from tests.evidence.runs import write_run, write_sweep


def figure_of(table: pd.DataFrame, metric: str) -> Figure:
    """The figure of the only study in a table."""
    (study,) = studies_of(table)
    figure = metric_figure(study, metric)
    assert figure is not None
    return figure


def scores(root: Path, values: dict[float, tuple[float, ...]]) -> pd.DataFrame:
    """SET at so many densities, with the test scores of its seeds."""
    for density, found in values.items():
        for seed, value in enumerate(found):
            write_run(root, scheme="set", density=density, seed=seed, metrics={"test/score": value}, history=False)
    return load([root])[0].runs


def curves(axes: Axes) -> dict[str, Line2D]:
    """The lines that the legend names."""
    named = [(str(line.get_label()).replace("\N{NO-BREAK SPACE}", " "), line) for line in axes.get_lines()]
    return {name: line for name, line in named if not name.startswith("_")}


def bars(axes: Axes) -> list[list[list[float]]]:
    return [segment.tolist() for collection in axes.collections for segment in collection.get_segments()]


def marked(axes: Axes, marker: str) -> list[tuple[list[float], list[float]]]:
    found = [line for line in axes.get_lines() if line.get_marker() == marker and line.get_linestyle() == "None"]
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in found]


def test_one_curve_a_density_on_a_logarithmic_axis(results: RunTable, drawn: list[Canvas]) -> None:
    figure = figure_of(results.runs, "test/intent_f1")
    axes = drawn[0].axes[0]
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "weights in the sparse layers (log scale)"
    assert axes.get_title(loc="left") == "intent F1 (test), higher is better"
    found = curves(axes)
    assert list(found) == ["dense", "small dense", "density 20 %", "density 5 %", "density 1 %"]
    assert list(found["dense"].get_xdata()) == [2560.0, 8192.0, 106496.0, 409600.0]
    assert found["small dense"].get_linestyle() == "--"
    assert figure.name == "weights--rasa-diet--diet--sara--test-intent-f1"


def test_means_bars_and_every_seed_are_drawn(tmp_path: Path, drawn: list[Canvas]) -> None:
    for width, values in ((8, (2.0, 4.0, 6.0)), (16, (1.0, 1.0, 1.0))):
        for seed, value in enumerate(values):
            weights = 100 * width + seed
            write_run(tmp_path, width=width, seed=seed, weights=weights, metrics={"test/score": value})
    figure_of(load([tmp_path])[0].runs, "test/score")
    axes = drawn[0].axes[0]
    ((places, values),) = marked(axes, "o")
    assert places == [800, 801, 802, 1600, 1601, 1602]
    assert values == [2, 4, 6, 1, 1, 1]
    (mean,) = curves(axes).values()
    assert list(mean.get_xdata()) == [801, 1601]
    assert list(mean.get_ydata()) == [4, 1]
    bar = next(bar for bar in bars(axes) if bar[0][0] == 801)
    assert np.array(bar).ravel() == pytest.approx([801, 4 - 4.968275, 801, 4 + 4.968275], abs=1e-5)


def test_the_caption_says_how_each_number_was_made(results: RunTable, drawn: list[Canvas]) -> None:
    caption = figure_of(results.runs, "test/intent_f1").caption
    for words in (
        "Means over 3 seeds.",
        "95 % t-interval",
        "number of existing weights",
        "Faint dots: single runs.",
        "Outside the sparse layers each model has between 3,700,008 and 3,701,024 trainable weights, all dense.",
    ):
        assert words in caption


def test_the_alternative_text_names_every_curve(results: RunTable, drawn: list[Canvas]) -> None:
    alt = figure_of(results.runs, "test/intent_f1").alt.replace("\N{NO-BREAK SPACE}", " ")
    assert alt.startswith("Line chart of intent F1 (test) against weights in the sparse layers")
    for name in ("dense", "small dense", "density 20 %", "density 5 %", "density 1 %"):
        assert re.search(rf"{name}: from 0\.\d+ to 0\.\d+", alt)


def test_one_width_is_drawn_against_density(compared: RunTable, drawn: list[Canvas]) -> None:
    figure = figure_of(compared.runs, "test/entity_f1")
    axes = drawn[0].axes[0]
    assert figure.name == "density--compare--diet--sara--test-entity-f1"
    assert axes.get_xlabel() == "density: share of the sparse layers' weights that exist"
    found = curves(axes)
    assert set(found) == {"dense", "small dense", "rigl", "set"}
    assert list(found["dense"].get_xdata()) == [1.0]
    # Schemes stand beside each other by a share of the axis that is the same at every density.
    left, right = (found[name].get_xdata() for name in ("rigl", "set"))
    ratios = [math.log(b / a) for a, b in zip(left, right, strict=True)]
    assert all(0 < ratio < 0.05 for ratio in ratios)
    # The narrower dense model stands at its weights as a share of the full model's, moved as far to the left.
    assert list(found["small dense"].get_xdata()) == pytest.approx([10_500 / 106_496], rel=0.05)
    assert "Dotted: the dense arm's mean." in figure.caption
    assert "Arms of equal density are drawn side by side." in figure.caption


def test_the_axis_says_the_densities_and_not_where_arms_are_drawn_aside(
    compared: RunTable, drawn: list[Canvas]
) -> None:
    figure_of(compared.runs, "test/entity_f1")
    axis = drawn[0].axes[0].xaxis
    told = [axis.get_major_formatter()(place) for place in sorted(axis.get_majorticklocs())]
    assert [text.replace("\N{NO-BREAK SPACE}", " ") for text in told] == ["5 %", "10 %", "30 %", "100 %"]


def test_single_runs_have_no_interval(tmp_path: Path, drawn: list[Canvas]) -> None:
    write_sweep(tmp_path, seeds=[0])
    caption = figure_of(load([tmp_path])[0].runs, "test/intent_f1").caption
    assert "there is no interval" in caption
    assert "t-interval" not in caption


def test_two_seeds_have_dots_and_no_bar(tmp_path: Path, drawn: list[Canvas]) -> None:
    figure = figure_of(scores(tmp_path, {0.1: (0.4, 0.6), 0.2: (0.5,), 0.5: (0.7,)}), "test/score")
    axes = drawn[0].axes[0]
    assert bars(axes) == []
    assert [values for _, values in marked(axes, "o")] == [[0.4, 0.6]]
    assert "Means over 1 to 2 seeds. Faint dots: single runs." in figure.caption
    assert "t-interval" not in figure.caption


def test_bars_that_leave_the_axis_are_cut_and_marked(tmp_path: Path, drawn: list[Canvas]) -> None:
    table = scores(tmp_path, {0.1: (0.4, 0.6, 0.41), 0.2: (0.5, 0.5001, 0.5002)})  # the first: 0.47 ± 0.28
    figure = figure_of(table, "test/score")
    axes = drawn[0].axes[0]
    low, high = axes.get_ylim()
    assert low == pytest.approx(0.4 - 0.56 * 0.2)
    assert high == pytest.approx(0.6 + 0.56 * 0.2)
    ((below, edge),) = marked(axes, "v")
    ((above, other),) = marked(axes, "^")
    assert (edge, other) == ([low], [high])
    assert below == above == [curves(axes)["set"].get_xdata()[0]]
    assert "Bars that leave the axis are cut (arrowheads)." in figure.caption


def test_bars_within_the_axis_have_no_arrowhead(tmp_path: Path, drawn: list[Canvas]) -> None:
    figure = figure_of(scores(tmp_path, {0.1: (0.4, 0.41, 0.42), 0.2: (0.6, 0.61, 0.62)}), "test/score")
    assert len(bars(drawn[0].axes[0])) == 2
    assert marked(drawn[0].axes[0], "v") == marked(drawn[0].axes[0], "^") == []
    assert "cut" not in figure.caption


def test_an_arm_that_diverged_is_left_out_and_named(tmp_path: Path, drawn: list[Canvas]) -> None:
    found = {0.05: (0.3, 2.9e294, 0.31), 0.1: (0.4, 0.41, 0.42), 0.2: (0.6, 0.61, 0.62)}
    figure = figure_of(scores(tmp_path, found), "test/score")
    axes = drawn[0].axes[0]
    assert list(curves(axes)["set"].get_ydata()) == pytest.approx([0.41, 0.61])
    assert axes.get_ylim()[1] < 1
    assert "Not drawn, because they diverged: set at 5\N{NO-BREAK SPACE}%." in figure.caption
    ((_, dots),) = marked(axes, "o")
    assert sorted(dots) == [0.3, 0.31, 0.4, 0.41, 0.42, 0.6, 0.61, 0.62]


def test_a_curve_that_diverged_all_along_is_named_alone(tmp_path: Path, drawn: list[Canvas]) -> None:
    for scheme, score in (("set", 0.5), ("rigl", 2.9e294)):
        write_run(tmp_path, scheme=scheme, metrics={"test/score": score}, history=False)
    figure = figure_of(load([tmp_path])[0].runs, "test/score")
    assert list(curves(drawn[0].axes[0])) == ["set"]
    assert "Not drawn, because they diverged: rigl." in figure.caption


@pytest.mark.parametrize(
    ("values", "bound"),
    [
        ([0.5, 0.6, 2.9e294], 0.6e6),
        ([0.5, 2.9e294], 0.5e6),  # the median of both would be half of the larger one
        ([2.9e294, 1e290, 0.5], 1e30),
        ([0.0, 0.0, 2.9e294], 1e30),
        ([], 1e30),
    ],
)
def test_where_a_mean_has_diverged(values: list[float], bound: float) -> None:
    assert diverged_beyond(values) == pytest.approx(bound)


def test_nothing_but_what_diverged_is_no_figure(tmp_path: Path) -> None:
    (study,) = studies_of(scores(tmp_path, {0.1: (2.9e294,), 0.2: (1e280,)}))
    assert metric_figure(study, "test/score") is None


def test_perplexity_says_that_lower_is_better(tmp_path: Path, drawn: list[Canvas]) -> None:
    for width in (8, 16):
        write_run(tmp_path, width=width, metrics={"test/perplexity": 100.0 + width})
    figure_of(load([tmp_path])[0].runs, "test/perplexity")
    assert drawn[0].axes[0].get_title(loc="left") == "perplexity (test), lower is better"


def test_runs_without_sparse_layers_are_said_to_be_missing(tmp_path: Path, drawn: list[Canvas]) -> None:
    for width in (8, 16, 32):
        write_run(tmp_path, width=width)
    counts = {"sparse_layers": 0, "sparse_layers_size": 0, "density": 0.0, "trainable": 5, "groups": {}}
    write_run(tmp_path, width=64, counts=counts)
    assert (
        "Not drawn: 1 arm without sparse layers or without this metric"
        in figure_of(load([tmp_path])[0].runs, "test/intent_f1").caption
    )


def test_a_figure_needs_two_arms(tmp_path: Path) -> None:
    write_run(tmp_path)
    (study,) = studies_of(load([tmp_path])[0].runs)
    assert metric_figure(study, "test/intent_f1") is None


def test_looks_tell_curves_apart(results: RunTable, compared: RunTable) -> None:
    for runs in (results.runs, compared.runs):
        (study,) = studies_of(runs)
        found = looks(study)
        assert len(set(found.values())) == len(study.curves)
    hues = {curve.scheme: found[curve].colour for curve in study.curves}
    assert len(set(hues.values())) == 4  # two schemes over three densities: the hue is the scheme's


def test_ticks() -> None:
    numbers = [lines._short(value) for value in (500, 1000, 20_000, 1e6, 2.5e9)]
    assert numbers == ["500", "1k", "20k", "1M", "2.5G"]


def test_a_figure_drawn_again_has_the_same_bytes(compared: RunTable) -> None:
    first, again = (figure_of(compared.runs, "test/entity_f1") for _ in range(2))
    assert first == again
    assert re.findall(r'<clipPath id="(\w+)"', first.svg) == ["clip1"]
    assert set(re.findall(r"url\(#(\w+)\)", first.svg)) == {"clip1"}
