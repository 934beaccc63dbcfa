"""Descriptions of papers, and the names that they may use."""

import re
from pathlib import Path

import pytest

from sparse_bench.config import choices
from sparse_bench.config.catalog import UnknownExperimentError, expand, experiments
from sparse_bench.data.corpora import corpora
from sparse_bench.papers.__main__ import main
from sparse_bench.papers.page import read_papers
from sparse_bench.papers.schema import DescriptionError
from tests.site.example_site import FIRST, KNOWN


def test_scales_are_said_in_the_configuration() -> None:
    found = experiments()
    names = ("rasa/diet", "rasa/diet_small", "demeester/lm_small/dense", "rasa/quickstart", "brouns/small_dense")
    assert [found[name] for name in names] == ["paper", "reduced", "reduced", "reduced", "paper"]
    stand_ins = {name for name, scale in found.items() if scale == "stand-in"}
    assert {"demeester/pos_density", "embeddings/dense", "embeddings/optimizers_sgd"} <= stand_ins
    small = [name for name in found if re.search(r"(^|[_/])(small|tiny|quickstart)(?!_dense)([_/]|$)", name)]
    assert {name for name, scale in found.items() if scale == "reduced"} == set(small)


def test_every_sweep_and_corpus_of_a_paper_exists(capsys: pytest.CaptureFixture[str]) -> None:
    for paper in read_papers(experiments()).values():
        for size in ("full", "small"):
            assert set(getattr(paper.sweeps, size)) <= set(choices("sweep"))
            assert set(getattr(paper.corpora, size)) <= set(corpora())
            assert getattr(paper.sweeps, size)
    assert main(["sweeps", "rasa", "brouns", "--size", "small"]) == 0
    assert capsys.readouterr().out.split() == ["rasa/diet_small", "rasa/ted_small", "brouns/small"]


def test_experiments_are_those_of_the_configuration(tmp_path: Path) -> None:
    for path, text in (
        ("experiment/a/x.yaml", "# @package _global_\nexperiment_name: a/x\n"),
        ("sweep/a/grid.yaml", "seed: 0\n"),
        ("sweep/a/small.yaml", "experiment_name: a/small\nscale: reduced\n"),
        ("sweep/a/each.yaml", "experiment_name: a/${model.label}\nhydra: {sweeper: {params: {model: 'm, n'}}}\n"),
        ("sweep/a/other.yaml", "experiment_name: a/${point.width}\n"),
        ("model/m.yaml", "label: big\nexperiment_name: not_one\n"),
        ("model/n.yaml", "label: little\n"),
        ("model/o.yaml", "label: unused\n"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert experiments(tmp_path) == {"a/x": "paper", "a/small": "reduced", "a/big": "paper", "a/little": "paper"}
    assert "rasa/diet" in experiments()


def test_patterns() -> None:
    assert expand(["b/*", "a/x"], {"a/x", "a/y", "b/z", "b/w"}) == ["b/w", "b/z", "a/x"]
    with pytest.raises(UnknownExperimentError, match=r"Unknown experiment 'c/\*'"):
        expand(["c/*"], {"a/x"})


def test_patterns_become_names(tmp_path: Path) -> None:
    write(tmp_path, FIRST)
    paper = read_papers(KNOWN, tmp_path)["first"]
    assert paper.name == "first"
    assert paper.experiments == ["first/dense", "first/sparse", "first/width"]


def write(root: Path, text: str) -> None:
    (root / "first").mkdir()
    (root / "first/page.yaml").write_text(text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("summary:", "summry:", "Unknown key 'summry'. Did you mean 'summary'"),
        ("kind: epochs", "kind: epoch", "does not match any of the expected tags"),
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
    write(tmp_path, FIRST.replace(old, new, 1))
    with pytest.raises(DescriptionError, match=message):
        read_papers(KNOWN, tmp_path)


def test_experiments_have_to_exist(tmp_path: Path) -> None:
    write(tmp_path, FIRST.replace("experiment: first/dense", "experiment: first/dens"))
    with pytest.raises(UnknownExperimentError, match=r"'first/dens'. Did you mean 'first/dense'"):
        read_papers(KNOWN, tmp_path)
