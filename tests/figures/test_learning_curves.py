"""Metric per epoch by arm."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure as Canvas

from sparse_bench.evidence.arms import Study, studies_of
from sparse_bench.evidence.store import load
from sparse_bench.figures.study import Histories, followed_metrics, learning_curves, mean_curve
from tests.evidence.runs import write_run


def study_of(root: Path) -> tuple[Study, Histories]:
    table, _ = load([root])
    (study,) = studies_of(table.runs)
    return study, table.histories


def history(values: list[float], metric: str = "test/f1") -> pd.DataFrame:
    return pd.DataFrame({metric: values}, index=range(1, len(values) + 1))


def histories_of(study: Study, *values: list[float], metric: str = "test/f1") -> Histories:
    """A history for each run of the study's first arm."""
    keys = [("rasa/diet", run) for run in study.arms[0].ids]
    return {key: history(one, metric) for key, one in zip(keys, values, strict=True)}


def test_the_mean_at_epochs_that_all_seeds_reached(tmp_path: Path, drawn: list[Canvas]) -> None:
    for seed in range(3):
        write_run(tmp_path, seed=seed, metrics={"test/f1": 0.5})
    study, _ = study_of(tmp_path)
    histories = histories_of(study, [0.0, 0.2, 0.4], [0.1, 0.3], [0.2, 0.4, 0.6])
    figure = learning_curves(study, histories, "test/f1")
    assert figure is not None
    axes = drawn[0].axes[0]
    (line,) = axes.get_lines()
    assert list(line.get_xdata()) == [1, 2]
    assert list(line.get_ydata()) == pytest.approx([0.1, 0.3])
    assert "Means over 3 seeds" in figure.caption
    assert "Bands: 95 % t-interval, from three seeds on." in figure.caption
    (band,) = axes.collections
    # 0.2, 0.3, 0.4: deviation 0.1; t(0.975, 2) = 4.302653, over √3
    top = max(float(y) for path in band.get_paths() for _, y in np.asarray(path.vertices))
    assert top == pytest.approx(0.3 + 4.302653 * 0.1 / 3**0.5, abs=1e-5)
    assert "Bands that leave the axis are cut." in figure.caption


def test_two_seeds_have_no_band(tmp_path: Path, drawn: list[Canvas]) -> None:
    for seed in range(2):
        write_run(tmp_path, seed=seed, metrics={"test/f1": 0.5})
    study, _ = study_of(tmp_path)
    figure = learning_curves(study, histories_of(study, [0.0, 0.2], [0.2, 0.4]), "test/f1")
    assert figure is not None
    assert len(drawn[0].axes[0].collections) == 0
    assert "Means over 2 seeds." in figure.caption
    assert "interval" not in figure.caption


def test_a_panel_for_each_curve_and_a_line_for_each_width(tmp_path: Path, drawn: list[Canvas]) -> None:
    for density in (1.0, 0.2):
        for width in (16, 32, 64):
            write_run(tmp_path, density=density, width=width, metrics={"test/f1": 0.5})
    study, histories = study_of(tmp_path)
    figure = learning_curves(study, histories, "test/f1")
    assert figure is not None
    panels = drawn[0].axes
    titles = [axes.get_title(loc="left").replace("\N{NO-BREAK SPACE}", " ") for axes in panels]
    assert titles == ["dense", "density 20 %"]
    assert [len(axes.get_lines()) for axes in panels] == [3, 3]
    strengths = [line.get_alpha() for line in panels[0].get_lines()]
    assert strengths == pytest.approx([0.3, 0.65, 1.0])
    assert "Single runs" in figure.caption
    assert "stronger lines have more weights in the sparse layers" in figure.caption


def test_lines_of_several_widths_have_neither_bands_nor_bars(tmp_path: Path, drawn: list[Canvas]) -> None:
    for seed in range(3):
        for width in (16, 32):
            write_run(tmp_path, seed=seed, width=width, metrics={"test/f1": 0.5})
    study, histories = study_of(tmp_path)
    figure = learning_curves(study, histories, "test/f1")
    assert figure is not None
    assert len(drawn[0].axes[0].collections) == 0
    assert "Means over 3 seeds." in figure.caption
    assert "interval" not in figure.caption


def test_lines_of_one_hue_are_told_apart_by_their_strength(tmp_path: Path, drawn: list[Canvas]) -> None:
    for scheme in ("set", "rigl"):
        for density in (0.1, 0.2):
            write_run(tmp_path, scheme=scheme, density=density, metrics={"test/f1": 0.5})
    study, histories = study_of(tmp_path)
    figure = learning_curves(study, histories, "test/f1")
    assert figure is not None
    looks = [(line.get_color(), line.get_alpha()) for line in drawn[0].axes[0].get_lines()]
    assert len(set(looks)) == 4
    assert len({colour for colour, _ in looks}) == 2
    assert "denser arms have stronger lines" in figure.caption


def test_values_over_decades_stand_on_a_logarithmic_axis(tmp_path: Path, drawn: list[Canvas]) -> None:
    write_run(tmp_path, metrics={"test/perplexity": 100.0})
    study, _ = study_of(tmp_path)
    histories = histories_of(study, [5000.0, 300.0, 100.0], metric="test/perplexity")
    figure = learning_curves(study, histories, "test/perplexity")
    assert figure is not None
    assert drawn[0].axes[0].get_yscale() == "log"
    assert "logarithmic" in figure.caption
    assert "from 5,000.000 to 100.000" in figure.alt


def test_epochs_that_diverged_are_left_out_and_named(tmp_path: Path, drawn: list[Canvas]) -> None:
    write_run(tmp_path, metrics={"train/loss": 0.5})
    study, _ = study_of(tmp_path)
    figure = learning_curves(
        study, histories_of(study, [0.5, 0.4, 0.3, 1e20, 2.9e294], metric="train/loss"), "train/loss"
    )
    assert figure is not None
    (line,) = drawn[0].axes[0].get_lines()
    assert list(line.get_ydata()) == [0.5, 0.4, 0.3]
    assert drawn[0].axes[0].get_yscale() == "linear"
    caption = figure.caption.replace("\N{NO-BREAK SPACE}", " ")
    assert "Not drawn, because they diverged: density 20 % at epoch 4 to 5." in caption


def test_followed_metrics(tmp_path: Path) -> None:
    write_run(tmp_path, metrics={"valid/f1": 0.5, "valid/other": 0.1})
    study, histories = study_of(tmp_path)
    assert followed_metrics(study, histories, ["test/f1"]) == ["valid/f1", "train/loss"]
    assert followed_metrics(study, histories, ["valid/other", "test/none"]) == ["valid/other", "train/loss"]


def test_no_curve_without_two_epochs(tmp_path: Path) -> None:
    write_run(tmp_path, epochs=1)
    study, histories = study_of(tmp_path)
    assert learning_curves(study, histories, "test/intent_f1") is None
    assert learning_curves(study, {}, "test/intent_f1") is None


def test_an_epoch_that_is_no_number_in_any_seed_is_left_out() -> None:
    found = mean_curve([history([0.1, float("inf"), 0.3]), history([0.3, 0.2, 0.5])], "test/f1")
    assert [(epoch, mean.mean, mean.n) for epoch, mean in found] == [(1, 0.2, 2), (3, 0.4, 2)]
