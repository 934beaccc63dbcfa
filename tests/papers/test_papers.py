"""Descriptions of papers, and the names that they may use."""

from pathlib import Path

import pytest

from sparse_bench.report.catalog import UnknownExperimentError, expand, experiments, scale
from sparse_bench.report.papers import PaperError, read_papers
from tests.report.example_site import FIRST, KNOWN


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rasa/diet", "paper"), ("rasa/diet_small", "reduced"), ("sparselang/small", "reduced"),
        ("demeester/lm_small/dense", "reduced"), ("rasa/quickstart", "reduced"), ("brouns/smaller", "paper"),
        ("brouns/small_dense", "paper"), ("brouns/small/set", "reduced"),
    ],
)  # fmt: skip
def test_scales(name: str, expected: str) -> None:
    assert scale(name) == expected


def test_experiments_are_those_of_the_configuration(tmp_path: Path) -> None:
    for path, text in (
        ("experiment/a/x.yaml", "# @package _global_\nexperiment_name: a/x\n"),
        ("sweep/a/grid.yaml", "seed: 0\n"),
        ("sweep/a/small.yaml", "experiment_name: a/small\n"),
        ("sweep/a/each.yaml", "experiment_name: a/${model.label}\nhydra: {sweeper: {params: {model: 'm, n'}}}\n"),
        ("sweep/a/other.yaml", "experiment_name: a/${point.width}\n"),
        ("model/m.yaml", "label: big\nexperiment_name: not_one\n"),
        ("model/n.yaml", "label: little\n"),
        ("model/o.yaml", "label: unused\n"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert experiments(tmp_path) == {"a/x", "a/small", "a/big", "a/little"}
    assert "rasa/diet" in experiments()


def test_patterns() -> None:
    assert expand(["b/*", "a/x"], {"a/x", "a/y", "b/z", "b/w"}) == ["b/w", "b/z", "a/x"]
    with pytest.raises(UnknownExperimentError, match=r"Unknown experiment 'c/\*'"):
        expand(["c/*"], {"a/x"})


def test_patterns_become_names(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text(FIRST)
    paper = read_papers(KNOWN, tmp_path)["first"]
    assert paper.name == "first"
    assert paper.experiments == ["first/dense", "first/sparse", "first/width"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("summary:", "summry:", "Unknown key 'summry'. Did you mean 'summary'"),
        ("kind: epochs", "kind: epoch", "does not match any of the expected tags"),
        ("published: brouns_accuracy", "published: brouns", "Input should be .*'brouns_accuracy'"),
        ("axis: validation accuracy", "axes: accuracy", "Unknown key 'axes'. Did you mean 'axis'"),
        (
            "{label: density 20 %, experiment: first/width}",
            "{label: density 20 %}",
            "needs an experiment or a table, a published",
        ),
        (
            "published: original,\n             first: {experiment: first/dense}",
            "second: {experiment: first/dense}",
            "a row needs a first side, or a published number alone",
        ),
        ("{label: density 20 %, exp", "{labl: density 20 %, exp", "Unknown key 'labl'. Did you mean 'label'"),
    ],
)
def test_faults_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in FIRST
    (tmp_path / "first.yaml").write_text(FIRST.replace(old, new, 1))
    with pytest.raises(PaperError, match=message):
        read_papers(KNOWN, tmp_path)


def test_experiments_have_to_exist(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text(FIRST.replace("experiment: first/dense", "experiment: first/dens"))
    with pytest.raises(UnknownExperimentError, match=r"'first/dens'. Did you mean 'first/dense'"):
        read_papers(KNOWN, tmp_path)
