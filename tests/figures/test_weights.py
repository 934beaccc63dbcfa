"""Figures of weights, from the summaries that runs leave."""

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.transforms import Bbox

from sparse_bench.evidence.arms import studies_of
from sparse_bench.evidence.folders import Problem
from sparse_bench.evidence.store import load
from sparse_bench.figures import style
from sparse_bench.figures.single_run import study_portraits, weight_figure
from sparse_bench.figures.style import Figure
from tests.evidence.runs import write_run
from tests.figures.records import LAYER, SUMMARY, write_dynamic_run, write_summary

EMPTY = {"counts": [0, 0, 0], "share_small": 0.0, "map": [[0.0]]}


def write(root: Path, summary: Any, **settings: Any) -> None:
    write_summary(write_run(root, **settings), summary)


def portraits(root: Path) -> tuple[list[Figure], list[Problem]]:
    """The figures of single runs in the only study of a folder."""
    table, problems = load([root])
    (study,) = studies_of(table.runs)
    return study_portraits(study, table, problems), problems


def test_a_figure_for_each_curve_of_the_first_seed_that_has_left_one(tmp_path: Path, drawn: list[Canvas]) -> None:
    write(tmp_path, SUMMARY, seed=1, density=0.2)
    write_run(tmp_path, seed=0, density=0.2)
    write_run(tmp_path, seed=0, density=0.5)
    (figure,), problems = portraits(tmp_path)
    assert problems == []
    assert "seed 1" in figure.caption
    assert "a.weight 75 %" in figure.caption
    assert figure.name == "trained--rasa-diet--diet--sara--density-20"


def test_a_model_without_any_weight(drawn: list[Canvas]) -> None:
    """Density 0 is a run like any other."""
    figure = weight_figure("stem", "none", {**SUMMARY, "layers": {"empty": EMPTY}}, 0)
    assert "No weight exists." in figure.caption


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    write(tmp_path, "{", seed=0)
    write(tmp_path, {"edges": []}, seed=1)
    write(tmp_path, {**SUMMARY, "layers": {}}, seed=2)
    found, problems = portraits(tmp_path)
    assert found == []
    reasons = [problem.reason for problem in problems]
    assert "weights.json cannot be read" in reasons[0]
    assert "weights.json lacks layers, small" in reasons[1]


def test_weights_that_cannot_be_read_do_not_hide_the_topology(tmp_path: Path, drawn: list[Canvas]) -> None:
    write_summary(write_dynamic_run(tmp_path), "{")
    found, problems = portraits(tmp_path)
    assert [figure.name.split("--")[0] for figure in found] == ["degrees"]
    assert len(problems) == 1


def test_an_empty_layer_is_left_out(drawn: list[Canvas]) -> None:
    figure = weight_figure("stem", "x", {**SUMMARY, "layers": {"empty": EMPTY, **SUMMARY["layers"]}}, 0)
    assert "empty" not in figure.caption
    assert "Shown: the 2 largest of 3 layers." in figure.caption


def letters(axes: Axes) -> list[tuple[str, Bbox]]:
    """Each text in or around a frame, and the room that it takes."""
    texts = [axes._left_title, axes.xaxis.label, axes.yaxis.label]
    texts += [*axes.get_xticklabels(), *axes.get_yticklabels()]
    return [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text() and text.get_visible()]


@pytest.mark.parametrize("name", ["a.weight", "encoder.0.self_attention.query.weight"])
def test_no_text_overlaps_another(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    canvases: list[Canvas] = []

    def keep(canvas: Canvas) -> str:
        canvases.append(canvas)
        return ""

    monkeypatch.setattr(style, "_svg", keep)
    layers = {name.replace("0", str(number)): LAYER for number in range(8)}
    edges = [-0.61234, -0.2, 0.2, 0.61234]
    weight_figure("stem", "x", {"edges": edges, "small": 0.07, "layers": layers}, 0)
    assert len(canvases) == 2
    for canvas in canvases:
        canvas.draw_without_rendering()
        shown = [text for axes in canvas.axes for text in letters(axes)]
        assert name in {text.replace("\n", "") for text, _ in shown}
        assert len(shown) > 10
        for (one, place), (other, beside) in combinations(shown, 2):
            assert not place.overlaps(beside), (one, other)
        for _, place in shown:
            assert place.x0 >= 0
            assert place.x1 <= canvas.bbox.x1
