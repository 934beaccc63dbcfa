"""Tables by hand: tidy files, display tables, formats."""

import io
from pathlib import Path

import pandas as pd
import pytest

from sparse_bench.report import tables
from sparse_bench.report.arms import Study, studies_of
from sparse_bench.report.load import Results, load
from sparse_bench.report.statistics import Interval
from tests.report.runs import OUTSIDE, write_run


def study_of(results: Results) -> Study:
    (study,) = studies_of(results.runs)
    return study


def by_hand(root: Path) -> Results:
    """A dense arm (2, 4, 6) and a sparse one (1, 2, 6), of equal width."""
    for seed, (dense, sparse) in enumerate(((2.0, 1.0), (4.0, 2.0), (6.0, 6.0))):
        write_run(root, scheme="dense", density=1.0, seed=seed, metrics={"test/score": dense})
        write_run(root, scheme="set", density=0.1, seed=seed, weights=1000 + seed, metrics={"test/score": sparse})
    return load([root])


def test_runs_csv_has_a_line_for_each_run_and_no_path(results: Results, sweep: Path) -> None:
    text = tables.runs_csv(results.runs)
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
    table = tables.comparison_table(study_of(by_hand(tmp_path)), ["test/score"])
    assert table is not None
    # −1, −2, 0: mean −1, deviation 1; 4.302653 / √3
    assert [list(row) for row in table.rows] == [
        ["density 10\N{NO-BREAK SPACE}%", "0.94\N{NO-BREAK SPACE}%", "1,001", "−1.000 ± 2.484"]
    ]
    assert "Paired over the seeds" in table.caption


def test_differences_that_stand_holm_s_correction_have_a_star(tmp_path: Path) -> None:
    # Against dense (1, 2, 3): −1.00, −1.01, −0.99 (t = −173, p = .00003), −1, −1.2, −1.4 (t = −10.4, p = .009), and
    # −1, −2, −3 (t = −3.5, p = .074). Times three and two, the first two stay below .05.
    for seed, values in enumerate(((1.0, 0.0, 0.0, 0.0), (2.0, 0.99, 0.8, 0.0), (3.0, 2.01, 1.6, 0.0))):
        for density, value in zip((1.0, 0.3, 0.2, 0.1), values, strict=True):
            scheme = "dense" if density == 1.0 else "set"
            write_run(tmp_path, scheme=scheme, density=density, seed=seed, metrics={"test/score": value}, history=False)
    table = tables.comparison_table(study_of(load([tmp_path])), ["test/score"])
    assert table is not None
    assert [row[3] for row in table.rows] == ["−1.000 ± 0.025 *", "−1.200 ± 0.497 *", "−2.000 ± 2.484"]
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
    table = tables.comparison_table(study_of(load([tmp_path])), ["test/score"])
    assert table is not None
    assert [row[3] for row in table.rows] == ["−1.000 ± 0.025 *", "−1.000 ± 0.782", "−1.000 ± 0.782"]


def test_curves_are_compared_over_their_common_range(tmp_path: Path) -> None:
    # Dense: 0 at 10², 1 at 10⁴. Sparse: 1 at 10³, 1 at 10⁵. Common: 10³ to 10⁴, where dense climbs from ½ to 1.
    for scheme, density, points in (
        ("dense", 1.0, ((100, 0.0), (10_000, 1.0))),
        ("set", 0.1, ((1000, 1.0), (100_000, 1.0))),
    ):
        for width, (weights, value) in enumerate(points, start=1):
            metrics = {"test/score": value}
            write_run(tmp_path, scheme=scheme, density=density, width=width, weights=weights, metrics=metrics)
    table = tables.comparison_table(study_of(load([tmp_path])), ["test/score"])
    assert table is not None
    assert [row[2] for row in table.rows] == ["0.750", "1.000"]
    assert "1,000 to 10,000 weights" in table.caption


def test_nothing_to_compare(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert tables.comparison_table(study_of(load([tmp_path])), ["test/intent_f1"]) is None


def test_study_table_says_what_its_numbers_are(results: Results) -> None:
    table = tables.study_table(study_of(results), ["test/intent_f1"])
    assert list(table.columns) == [
        "scheme", "density", "realised density", "feed forward size", "weights in sparse layers", "intent F1 (test)",
        "seeds", "trainable",
    ]  # fmt: skip
    assert all(len(row) == len(table.columns) == len(table.numeric) for row in table.rows)
    assert list(table.numeric) == [False] + [True] * 7
    for words in ("95 % t-interval", "n − 1 degrees of freedom", "realised mask sums", "model.transformer_size"):
        assert words in table.caption
    assert any("(1 failed)" in row[6] for row in table.rows)


def test_markdown() -> None:
    table = tables.DisplayTable("About.", ["arm", "score"], [["a|b", "1.000"]], [False, True])
    assert tables.markdown(table) == "About.\n\n| arm | score |\n|---|---:|\n| a\\|b | 1.000 |\n"


def test_dense_weights_outside_the_sparse_layers(results: Results) -> None:
    # Biases, as many as the model is wide: from 8 to 1024.
    assert tables.outside_weights(study_of(results)) == (OUTSIDE + 8, OUTSIDE + 1024)


def test_formats() -> None:
    assert tables.whole(1234567.4) == "1,234,567"
    assert tables.whole(None) == tables.decimal(float("nan")) == tables.interval(None) == "–"
    assert tables.decimal(-0.0123, signed=True) == "−0.012"
    assert tables.decimal(-0.0001, signed=True) == tables.decimal(0.0001, signed=True) == "+0.000"
    assert tables.decimal(-0.0001) == "0.000"
    assert tables.decimal(12345.6789) == "12,345.679"
    assert tables.interval(Interval(0.84321, 0.0116, 3)) == "0.843 ± 0.012"
    assert tables.interval(Interval(0.84321, None, 1)) == "0.843 (n = 1)"
    assert tables.interval(Interval(0.5, 0.1, 2), signed=True) == "+0.500 ± 0.100"
