"""Metric per epoch by arm."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure as Canvas

from sparse_bench.report.arms import Study, studies_of
from sparse_bench.report.learning_curves import Histories, followed_metrics, learning_curves
from sparse_bench.report.load import load, read_history
from tests.report.runs import write_run


def study_of(root: Path) -> tuple[Study, Histories]:
    runs = load([root]).runs
    (study,) = studies_of(runs)
    keys = zip(runs["experiment"], runs["id"], runs["folder"], strict=True)
    return study, {(experiment, run): read_history(folder) for experiment, run, folder in keys}


def history(values: list[float], metric: str = "test/f1") -> pd.DataFrame:
    return pd.DataFrame({metric: values}, index=range(1, len(values) + 1))


def test_the_mean_at_epochs_that_all_seeds_reached(tmp_path: Path, drawn: list[Canvas]) -> None:
    for seed in range(2):
        write_run(tmp_path, seed=seed, metrics={"test/f1": 0.5})
    study, _ = study_of(tmp_path)
    first, second = study.arms[0].runs["id"]
    histories = {("rasa/diet", first): history([0.0, 0.2, 0.4]), ("rasa/diet", second): history([0.2, 0.4])}
    figure = learning_curves(study, histories, "test/f1")
    assert figure is not None
    (line,) = drawn[0].axes[0].get_lines()
    assert list(line.get_xdata()) == [1, 2]
    assert list(line.get_ydata()) == pytest.approx([0.1, 0.3])
    assert "Mean over 2 seeds" in figure.caption
    (band,) = drawn[0].axes[0].collections
    # 0, 0.2: deviation √0.02; t(0.975, 1) = 12.706205, over √2
    top = max(float(y) for path in band.get_paths() for _, y in np.asarray(path.vertices))
    assert top == pytest.approx(0.3 + 12.706205 * 0.1, abs=1e-5)


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
    assert figure.caption.startswith("Single runs.")
    assert "the more weights in the sparse layers, the stronger the line" in figure.caption


def test_values_over_decades_stand_on_a_logarithmic_axis(tmp_path: Path, drawn: list[Canvas]) -> None:
    write_run(tmp_path, metrics={"test/perplexity": 100.0})
    study, _ = study_of(tmp_path)
    run = ("rasa/diet", study.arms[0].ids[0])
    figure = learning_curves(study, {run: history([5000.0, 300.0, 100.0], "test/perplexity")}, "test/perplexity")
    assert figure is not None
    assert drawn[0].axes[0].get_yscale() == "log"
    assert "logarithmic" in figure.caption
    assert "5,000.000 at first, 100.000 at last" in figure.alt


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
