"""What the figures draw and say."""

import math
import re
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure as Canvas

from sparse_bench.report import figures
from sparse_bench.report.arms import studies_of
from sparse_bench.report.figures import line_styles, study_figure
from sparse_bench.report.load import Results, load
from sparse_bench.report.style import Figure
from tests.report.runs import write_run, write_sweep


def density_figure(table: pd.DataFrame, metric: str) -> Figure:
    """The figure of the only study in a table."""
    (study,) = studies_of(table)
    figure = study_figure(study, metric)
    assert figure is not None
    return figure


def test_one_curve_a_density_on_a_logarithmic_axis(results: Results, drawn: list[Canvas]) -> None:
    figure = density_figure(results.runs, "test/intent_f1")
    axes = drawn[0].axes[0]
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "trainable weights in the sparse layers (log scale)"
    assert axes.get_title(loc="left") == "intent F1 (test), higher is better"
    curves = {str(line.get_label()): line for line in axes.get_lines() if not str(line.get_label()).startswith("_")}
    names = [name.replace("\N{NO-BREAK SPACE}", " ") for name in curves]
    assert names == ["dense", "small dense", "density 20 %", "density 5 %", "density 1 %"]
    assert list(curves["dense"].get_xdata()) == [2560.0, 8192.0, 106496.0, 409600.0]
    assert curves["small dense"].get_linestyle() == "--"
    assert figure.name == "weights--rasa-diet--diet--sara--test-intent-f1"


def test_means_bars_and_every_seed_are_drawn(tmp_path: Path, drawn: list[Canvas]) -> None:
    for width, values in ((8, (2.0, 4.0, 6.0)), (16, (1.0, 1.0, 1.0))):
        for seed, value in enumerate(values):
            weights = 100 * width + seed
            write_run(tmp_path, width=width, seed=seed, weights=weights, metrics={"test/score": value})
    density_figure(load([tmp_path]).runs, "test/score")
    lines = drawn[0].axes[0].get_lines()
    dots = next(line for line in lines if len(line.get_xdata()) == 6)
    assert list(dots.get_xdata()) == [800, 801, 802, 1600, 1601, 1602]
    assert list(dots.get_ydata()) == [2, 4, 6, 1, 1, 1]
    mean = next(line for line in lines if str(line.get_label()).startswith("density"))
    assert list(mean.get_xdata()) == [801, 1601]
    assert list(mean.get_ydata()) == [4, 1]
    bar = next(line for line in lines if list(line.get_xdata()) == [801, 801])
    assert list(bar.get_ydata()) == pytest.approx([4 - 4.968275, 4 + 4.968275], abs=1e-5)


def test_the_caption_says_how_each_number_was_made(results: Results, drawn: list[Canvas]) -> None:
    caption = density_figure(results.runs, "test/intent_f1").caption
    for words in (
        "mean over 3 seeds",
        "95 % t-interval",
        "realised mask sums",
        "Outside the sparse layers each model has between 3,700,008 and 3,701,024 trainable weights, all dense.",
    ):
        assert words in caption


def test_the_alternative_text_names_every_curve(results: Results, drawn: list[Canvas]) -> None:
    alt = density_figure(results.runs, "test/intent_f1").alt.replace("\N{NO-BREAK SPACE}", " ")
    assert alt.startswith("Line chart of intent F1 (test) against weights in the sparse layers, 5 curves.")
    for name in ("dense", "small dense", "density 20 %", "density 5 %", "density 1 %"):
        assert re.search(rf"{name}: 0\.\d+ at [\d,]+, 0\.\d+ at [\d,]+", alt)


def test_one_width_is_drawn_against_density(compared: Results, drawn: list[Canvas]) -> None:
    figure = density_figure(compared.runs, "test/entity_f1")
    axes = drawn[0].axes[0]
    assert figure.name == "density--compare--diet--sara--test-entity-f1"
    assert axes.get_xlabel() == "density: share of the sparse layers' weights that exist"
    curves = {str(line.get_label()): line for line in axes.get_lines() if not str(line.get_label()).startswith("_")}
    assert set(curves) == {"dense", "small dense", "rigl", "set"}
    assert list(curves["dense"].get_xdata()) == [1.0]
    # Schemes stand beside each other by a share of the axis that is the same at every density.
    left, right = (curves[name].get_xdata() for name in ("rigl", "set"))
    ratios = [math.log(b / a) for a, b in zip(left, right, strict=True)]
    assert all(0 < ratio < 0.05 for ratio in ratios)
    # The narrower dense model stands at its weights as a share of the full model's, moved as far to the left.
    assert list(curves["small dense"].get_xdata()) == pytest.approx([10_500 / 106_496], rel=0.05)
    assert "dotted line is the dense arm's mean" in figure.caption


def test_single_runs_have_no_interval(tmp_path: Path, drawn: list[Canvas]) -> None:
    write_sweep(tmp_path, seeds=[0])
    caption = density_figure(load([tmp_path]).runs, "test/intent_f1").caption
    assert "there is no interval" in caption
    assert "t-interval" not in caption


def test_enormous_intervals_do_not_flatten_the_figure(tmp_path: Path, drawn: list[Canvas]) -> None:
    for width, values in ((8, (0.4, 0.6)), (16, (0.5, 0.52))):
        for seed, value in enumerate(values):
            write_run(tmp_path, width=width, seed=seed, metrics={"test/score": value})
    figure = density_figure(load([tmp_path]).runs, "test/score")  # the first bar is 0.5 ± 1.27
    low, high = drawn[0].axes[0].get_ylim()
    assert low == pytest.approx(0.4 - 0.56 * 0.2)
    assert high == pytest.approx(0.6 + 0.56 * 0.2)
    assert "Bars that leave the axis are cut" in figure.caption


def test_perplexity_says_that_lower_is_better(tmp_path: Path, drawn: list[Canvas]) -> None:
    for width in (8, 16):
        write_run(tmp_path, width=width, metrics={"test/perplexity": 100.0 + width})
    density_figure(load([tmp_path]).runs, "test/perplexity")
    assert drawn[0].axes[0].get_title(loc="left") == "perplexity (test), lower is better"


def test_runs_without_sparse_layers_are_said_to_be_missing(tmp_path: Path, drawn: list[Canvas]) -> None:
    for width in (8, 16, 32):
        write_run(tmp_path, width=width)
    counts = {"sparse_layers": 0, "sparse_layers_size": 0, "density": 0.0, "trainable": 5, "groups": {}}
    write_run(tmp_path, width=64, counts=counts)
    assert (
        "Not drawn, for want of sparse layers or of this metric: 1 arm"
        in density_figure(load([tmp_path]).runs, "test/intent_f1").caption
    )


def test_a_figure_needs_two_arms(tmp_path: Path) -> None:
    write_run(tmp_path)
    (study,) = studies_of(load([tmp_path]).runs)
    assert study_figure(study, "test/x") is None


def test_styles_tell_curves_apart(results: Results, compared: Results) -> None:
    for runs in (results.runs, compared.runs):
        (study,) = studies_of(runs)
        styles = line_styles(study)
        assert len(set(styles.values())) == len(study.curves)
    hues = {curve.scheme: styles[curve].colour for curve in study.curves}
    assert len(set(hues.values())) == 4  # two schemes over three densities: the hue is the scheme's


def test_ticks() -> None:
    numbers = [figures._compact_number(value) for value in (500, 1000, 20_000, 1e6, 2.5e9)]
    assert numbers == ["500", "1k", "20k", "1M", "2.5G"]
