"""Figures of weights, from the summaries that runs leave."""

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Canvas

from sparse_bench.record import RunFolder
from sparse_bench.report.arms import studies_of
from sparse_bench.report.build import build
from sparse_bench.report.load import load
from sparse_bench.report.weights import read_summaries, weight_figures
from tests.report.runs import write_run

LAYER = {"counts": [1, 6, 1], "share_small": 0.75, "map": [[0.1, 0.2], [0.3, 0.4]]}
SUMMARY = {"edges": [-0.6, -0.2, 0.2, 0.6], "small": 0.07, "layers": {"a.weight": LAYER, "b.weight": LAYER}}


def write(root: Path, summary: Any, **settings: Any) -> Path:
    folder = write_run(root, **settings)
    RunFolder(folder).weight_summary.write_text(summary if isinstance(summary, str) else json.dumps(summary))
    return folder


def test_a_figure_for_each_curve(tmp_path: Path, drawn: list[Canvas]) -> None:
    write(tmp_path, SUMMARY, seed=1, density=0.2)
    write_run(tmp_path, seed=0, density=0.2)
    write_run(tmp_path, seed=0, density=0.5)
    results = load([tmp_path])
    (study,) = studies_of(results.runs)
    (figure,) = weight_figures(study, read_summaries(results)[0])
    assert "seed 1" in figure.caption
    assert "a.weight 75 %" in figure.caption
    assert figure.name.startswith("values--")
    report = build(results, tmp_path / "out")
    assert [path.name for path in report.paths if path.name.startswith("values--") and path.suffix == ".svg"]


def test_a_model_without_any_weight(tmp_path: Path) -> None:
    """Density 0 is a run like any other."""
    empty = {"counts": [0, 0, 0], "share_small": 0.0, "map": [[0.0]]}
    write(tmp_path, {**SUMMARY, "layers": {"empty": empty}}, density=0.2)
    report = build(load([tmp_path]), tmp_path / "out")
    assert [path for path in report.paths if path.name.startswith("values--") and path.suffix == ".svg"]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    write(tmp_path, "{", seed=0)
    write(tmp_path, {"edges": []}, seed=1)
    write(tmp_path, {**SUMMARY, "layers": {}}, seed=2)
    found, problems = read_summaries(load([tmp_path]))
    assert not found
    reasons = sorted(problem.reason for problem in problems)
    assert "cannot be read" in reasons[0]
    assert "layers, small" in reasons[1]


def test_an_empty_layer_is_left_out(tmp_path: Path) -> None:
    empty = {"counts": [0, 0, 0], "share_small": 0.0, "map": [[0.0]]}
    write(tmp_path, {**SUMMARY, "layers": {"empty": empty, **SUMMARY["layers"]}})  # type: ignore[dict-item]
    results = load([tmp_path])
    (figure,) = weight_figures(studies_of(results.runs)[0], read_summaries(results)[0])
    assert "empty" not in figure.caption
    assert "The 2 layers with most weights of 3." in figure.caption
