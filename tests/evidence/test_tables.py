"""Tables by hand: tidy files, display tables, formats."""

import io
from pathlib import Path

import pandas as pd
import pytest

from sparse_bench.evidence import display, tables
from sparse_bench.evidence.arms import Study, studies_of
from sparse_bench.evidence.csv_tables import csv_text
from sparse_bench.evidence.statistics import Interval
from sparse_bench.evidence.store import RunTable, load
from tests.evidence.runs import OUTSIDE, write_run


def against_dense(study: Study, metrics: list[str]) -> display.DisplayTable | None:
    dense = [arm for arm in study.arms if arm.kind == "dense"]
    return tables.differences_table(study.arms, dense[0], "the dense arm", metrics) if dense else None


def study_of(results: RunTable) -> Study:
    (study,) = studies_of(results.runs)
    return study


def by_hand(root: Path) -> RunTable:
    """A dense arm (2, 4, 6) and a sparse one (1, 2, 6), of equal width."""
    for seed, (dense, sparse) in enumerate(((2.0, 1.0), (4.0, 2.0), (6.0, 6.0))):
        write_run(root, scheme="dense", density=1.0, seed=seed, metrics={"test/score": dense})
        write_run(root, scheme="set", density=0.1, seed=seed, weights=1000 + seed, metrics={"test/score": sparse})
    return load([root])[0]


def test_runs_csv_has_a_line_for_each_run_and_no_path(results: RunTable, sweep: Path) -> None:
    text = csv_text(results.runs)
    frame = pd.read_csv(io.StringIO(text))
    assert len(frame) == len(results.runs) == 58
    assert str(sweep) not in text
    assert frame["error"].dropna().tolist() == ["NonFiniteLossError: diverged"]
    assert "3708208" in text  # counts stay whole numbers
    assert list(frame.columns[:4]) == ["experiment", "id", "status", "label:model"]


def test_summary_by_hand(tmp_path: Path) -> None:
    frame = tables.summary_frame(by_hand(tmp_path).runs, ["test/score"])
    dense, sparse = frame.iloc[0], frame.iloc[1]
    assert (dense["label:scheme"], sparse["label:scheme"]) == ("dense", "set")
    assert dense["metric:test/score:mean"] == 4.0
    assert dense["metric:test/score:half_width"] == pytest.approx(4.968275, abs=1e-6)
    assert sparse["metric:test/score:mean"] == 3.0
    # 1, 2, 6: deviation √7; 4.302653 · √7 / √3
    assert sparse["metric:test/score:half_width"] == pytest.approx(6.572411, abs=1e-5)
    assert sparse["metric:test/score:n"] == sparse["seeds"] == 3
    assert sparse["mean:sparse_layers"] == 1001
    assert sparse["mean:trainable"] == OUTSIDE + 64 + 1001
    assert sparse["failed"] == 0


def test_difference_to_dense_is_paired(tmp_path: Path) -> None:
    table = against_dense(study_of(by_hand(tmp_path)), ["test/score"])
    assert table is not None
    # −1, −2, 0: mean −1, deviation 1; 4.302653 / √3
    assert [list(row) for row in table.rows] == [
        ["set", "10\N{NO-BREAK SPACE}%", "0.94\N{NO-BREAK SPACE}%", "−1.000 ± 2.484"]
    ]
    assert "Paired over the seeds" in table.caption


def test_differences_that_stand_holm_s_correction_have_a_star(tmp_path: Path) -> None:
    # Against dense (1, 2, 3): −1.00, −1.01, −0.99 (t = −173, p = .00003), −1, −1.2, −1.4 (t = −10.4, p = .009), and
    # −1, −2, −3 (t = −3.5, p = .074). Times three and two, the first two stay below .05.
    for seed, values in enumerate(((1.0, 0.0, 0.0, 0.0), (2.0, 0.99, 0.8, 0.0), (3.0, 2.01, 1.6, 0.0))):
        for density, value in zip((1.0, 0.3, 0.2, 0.1), values, strict=True):
            scheme = "dense" if density == 1.0 else "set"
            write_run(tmp_path, scheme=scheme, density=density, seed=seed, metrics={"test/score": value}, history=False)
    table = against_dense(study_of(load([tmp_path])[0]), ["test/score"])
    assert table is not None
    assert [row[3] for row in table.rows] == ["−2.000 ± 2.484", "−1.200 ± 0.497 *", "−1.000 ± 0.025 *"]
    assert "Holm" in table.caption


def test_a_star_is_for_the_corrected_value_of_seeds_that_both_have(tmp_path: Path) -> None:
    # Against dense (4, 2, 3 of the seeds 1 to 3): −1.00, −1.01, −0.99 (p = .00003), and twice −1 and ± √3 / 5.5
    # (t = −5.5, p = .0315), which alone would have a star and times two has none.
    spread = 3**0.5 / 5.5
    dense = {0: 99.0, 1: 4.0, 2: 2.0, 3: 3.0}
    below = {0.3: (1.0, 1.01, 0.99), 0.2: (1 - spread, 1.0, 1 + spread), 0.1: (1.0, 1 - spread, 1 + spread)}
    for seed, value in dense.items():
        write_run(tmp_path, scheme="dense", density=1.0, seed=seed, metrics={"test/score": value}, history=False)
        for density, found in below.items() if seed else ():
            score = {"test/score": value - found[seed - 1]}
            write_run(tmp_path, scheme="set", density=density, seed=seed, metrics=score, history=False)
    table = against_dense(study_of(load([tmp_path])[0]), ["test/score"])
    assert table is not None
    assert [row[3] for row in table.rows] == ["−1.000 ± 0.782", "−1.000 ± 0.782", "−1.000 ± 0.025 *"]


def test_nothing_to_compare(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert against_dense(study_of(load([tmp_path])[0]), ["test/intent_f1"]) is None


def test_study_table_says_what_its_numbers_are(results: RunTable) -> None:
    table = tables.arms_table(study_of(results).arms, ["test/intent_f1"])
    assert list(table.columns) == [
        "scheme", "density", "realised density", "feed forward size", "weights in sparse layers", "intent F1 (test)",
        "seeds", "trainable",
    ]  # fmt: skip
    assert all(len(row) == len(table.columns) == len(table.numeric) for row in table.rows)
    assert list(table.numeric) == [False] + [True] * 7
    for words in ("95 % t-interval", "a single seed has no interval", "biases included"):
        assert words in table.caption
    assert any("(1 failed)" in row[6] for row in table.rows)


def test_markdown() -> None:
    table = display.DisplayTable("About.", ["arm", "score"], [["a|b", "1.000"], ["<b>\nc", "2"]], [False, True])
    assert display.markdown(table) == (
        "About.\n\n| arm | score |\n|---|---:|\n| a\\|b | 1.000 |\n| &lt;b&gt; c | 2 |\n"
    )


def test_formats() -> None:
    assert display.whole(1234567.4) == "1,234,567"
    assert display.whole(None) == display.decimal(float("nan")) == display.interval(None) == "–"
    assert display.decimal(-0.0123, signed=True) == "−0.012"
    assert display.decimal(-0.0001, signed=True) == display.decimal(0.0001, signed=True) == "+0.000"
    assert display.decimal(-0.0001) == "0.000"
    assert display.decimal(12345.6789) == "12,345.679"
    assert display.interval(Interval(0.84321, 0.0116, 3)) == "0.843 ± 0.012"
    assert display.interval(Interval(0.84321, None, 1)) == "0.843 (n = 1)"
    assert display.interval(Interval(0.5, 0.1, 2), signed=True) == "+0.500 ± 0.100"
