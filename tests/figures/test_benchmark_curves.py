"""Figures that join the rows of a benchmark's table."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from sparse_bench.config.catalog import experiments
from sparse_bench.errors import SparseBenchError
from sparse_bench.evidence.compare import Evidence
from sparse_bench.figures.described import lines_figure
from sparse_bench.figures.style import Figure
from sparse_bench.papers.page import Along, Epochs, Paper, Series, read_papers
from sparse_bench.papers.schema import Target

TABLE = "performance/speed.csv"
ROWS = "words,arm,ratio\n100,ours,20\n10,ours,2\n10,theirs,1\n100,theirs,OOM\n10,nobody's,\n"


@pytest.fixture
def measured(tmp_path: Path) -> Evidence:
    (tmp_path / "performance").mkdir()
    (tmp_path / TABLE).write_text(ROWS)
    return Evidence(tmp_path, {})


@pytest.fixture(scope="module")
def paper() -> Paper:
    return read_papers(experiments())["embeddings"]


def shown(evidence: Evidence, paper: Paper, *series: Series) -> Figure | None:
    spec = Along(
        kind="curve",
        title="Speed",
        of="ratio",
        along="words",
        axis="times faster",
        logarithmic_values=True,
        series=list(series),
    )
    return lines_figure(spec, evidence, paper)


def test_rows_of_a_series_are_joined_from_left_to_right(measured: Evidence, paper: Paper) -> None:
    ours = Series(label="ours", table=TABLE, where={"arm": "ours"})
    other = Series(label="other", table="performance/never.csv")
    found = shown(measured, paper, ours, other)
    assert found is not None
    assert found.name == "beside--embeddings--speed"
    assert "Line chart of times faster against words. ours: from 2.000 to 20.000." in found.alt
    assert "Not shown: other (not run)." in found.caption
    for words in ("no interval", "ingle run", "eans"):
        assert words not in found.caption, "a timing is no run"


def test_a_row_without_a_number_is_left_out_and_named(measured: Evidence, paper: Paper) -> None:
    found = shown(measured, paper, Series(label="theirs", table=TABLE, where={"arm": "theirs"}))
    assert found is not None
    assert "theirs: from 1.000 to 1.000." in found.alt
    assert "Remarks: theirs: no number at words 100." in found.caption


def test_nothing_measured(tmp_path: Path, paper: Paper) -> None:
    assert shown(Evidence(tmp_path, {}), paper, Series(label="ours", table=TABLE)) is None


def test_a_column_that_holds_no_numbers_or_does_not_exist(measured: Evidence, paper: Paper) -> None:
    theirs = Series(label="theirs", table=TABLE, where={"arm": "nobody's"})
    with pytest.raises(SparseBenchError, match="'ratio' is not a column of numbers"):
        shown(measured, paper, theirs)
    with pytest.raises(SparseBenchError, match="Valid choices: arm, ratio, words"):
        measured.rows(Target("", TABLE, {"arms": "ours"}))


def test_a_benchmark_has_no_epochs(measured: Evidence, paper: Paper) -> None:
    spec = Epochs(kind="epochs", title="Speed", of="ratio", series=[Series(label="ours", table=TABLE)])
    with pytest.raises(SparseBenchError, match="'Speed': a benchmark has no epochs"):
        lines_figure(spec, measured, paper)


def test_a_series_is_of_runs_or_of_a_table() -> None:
    with pytest.raises(ValidationError, match="not both"):
        Series(label="x", experiment="rasa/diet", table=TABLE)
    with pytest.raises(ValidationError, match="needs an experiment or a table"):
        Series(label="x")
