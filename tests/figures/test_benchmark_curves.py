"""Figures that join the rows of a benchmark's table."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from sparse_bench.errors import SparseBenchError
from sparse_bench.report.beside import curve_figure
from sparse_bench.report.papers import Along, Series
from sparse_bench.report.selection import Evidence, Row

TABLE = "performance/speed.csv"
ROWS = "words,arm,ratio\n100,ours,20\n10,ours,2\n10,theirs,1\n100,theirs,none\n"


@pytest.fixture
def measured(tmp_path: Path) -> Evidence:
    (tmp_path / "performance").mkdir()
    (tmp_path / TABLE).write_text(ROWS)
    return Evidence(tmp_path, {})


def figure(*series: Series) -> Along:
    return Along(
        kind="curve",
        title="Speed",
        of="ratio",
        along="words",
        axis="times faster",
        logarithmic_values=True,
        series=series,
    )  # type: ignore[arg-type]


def test_rows_of_a_series_are_joined_from_left_to_right(measured: Evidence) -> None:
    ours = Series(label="ours", table=TABLE, where={"arm": "ours"})
    other = Series(label="other", table="performance/never.csv")
    shown = curve_figure(figure(ours, other), measured, "embeddings")
    assert shown.figure is not None
    assert "Line chart of times faster against words. ours: 2.000 at first, 20.000 at last." in shown.figure.alt
    assert shown.lacking == ["other (not run)"]
    assert "no interval" not in shown.figure.caption, "a timing is no run"


def test_nothing_measured(tmp_path: Path) -> None:
    ours = Series(label="ours", table=TABLE)
    assert curve_figure(figure(ours), Evidence(tmp_path, {}), "embeddings").figure is None


def test_a_column_that_holds_no_numbers_or_does_not_exist(measured: Evidence) -> None:
    theirs = Series(label="theirs", table=TABLE, where={"arm": "theirs"})
    with pytest.raises(SparseBenchError, match="'ratio' is no column of numbers"):
        curve_figure(figure(theirs), measured, "embeddings")
    with pytest.raises(SparseBenchError, match="Valid choices: arm, ratio, words"):
        measured.rows(Row(TABLE, {"arms": "ours"}))


def test_a_series_is_of_runs_or_of_a_table() -> None:
    with pytest.raises(ValidationError, match="not of both"):
        Series(label="x", experiment="rasa/diet", table=TABLE)
    with pytest.raises(ValidationError, match="needs an experiment or a table"):
        Series(label="x")
