"""Smallest density within dense, by hand."""

from pathlib import Path

import pytest

from sparse_bench.evidence.arms import Study, studies_of
from sparse_bench.evidence.store import load
from sparse_bench.evidence.tables import density_table
from tests.evidence.runs import write_run

PERCENT = "\N{NO-BREAK SPACE}%"


def study(root: Path) -> Study:
    (found,) = studies_of(load([root])[0].runs)
    return found


def write(
    root: Path, scheme: str, density: float, values: list[float], width: int = 64, metric: str = "test/f1"
) -> None:
    size = 128 * width + 24 * width**2
    for seed, value in enumerate(values):
        write_run(
            root, scheme=scheme, density=density, width=width, seed=seed, weights=round(density * size),
            metrics={metric: value}, history=False,
        )  # fmt: skip


def test_by_hand(tmp_path: Path) -> None:
    write(tmp_path, "dense", 1.0, [0.80, 0.82, 0.84])  # mean 0.82, half-width 0.0497
    for density, value in ((0.4, 0.81), (0.1, 0.78), (0.04, 0.75)):
        write(tmp_path, "set", density, [value])
    for density, value in ((0.4, 0.70), (0.1, 0.60)):
        write(tmp_path, "rigl", density, [value])
    table = density_table(study(tmp_path), ["test/f1"])
    assert table is not None
    assert list(table.columns) == [
        "scheme", "weights of the dense layers", "of the dense model",
        "F1 (test): smallest density as good as dense",
    ]  # fmt: skip
    assert [row[:2] + row[3:] for row in map(list, table.rows)] == [
        ["rigl", "106,496", "none"],
        ["set", "106,496", f"10{PERCENT}"],
    ]


def test_each_width_has_a_dense_arm_of_its_own(tmp_path: Path) -> None:
    for width, level in ((16, 0.5), (64, 0.8)):
        write(tmp_path, "dense", 1.0, [level, level + 0.01, level + 0.005], width)
        write(tmp_path, "set", 0.2, [level, level], width)
    write(tmp_path, "set", 0.2, [0.9], 128)
    table = density_table(study(tmp_path), ["test/f1"])
    assert table is not None
    assert [[row[0], row[1], row[3]] for row in table.rows] == [
        ["set", "8,192", f"20{PERCENT}"],
        ["set", "106,496", f"20{PERCENT}"],
    ]


def test_models_that_differ_outside_the_sparse_layers_are_apart(tmp_path: Path) -> None:
    """Two heads on one LSTM: as large in the sparse layers, and no curve of one is read for the other."""
    for outside, level in ((1_000, 0.6), (9_000, 0.8)):
        for scheme, density in (("dense", 1.0), ("set", 0.4), ("set", 0.1)):
            weights = round(density * 10_000)
            counts = {
                "sparse_layers": weights, "sparse_layers_size": 10_000, "density": density,
                "trainable": outside + weights,
            }  # fmt: skip
            settings = {"head": outside}  # only so that the runs have names of their own
            write_run(
                tmp_path, scheme=scheme, density=density, settings=settings, counts=counts,
                metrics={"test/f1": level}, history=False,
            )  # fmt: skip
    table = density_table(study(tmp_path), ["test/f1"])
    assert table is not None
    assert sorted((row[1], row[2]) for row in table.rows) == [("10,000", "11,000"), ("10,000", "19,000")]


def test_lower_is_better_for_perplexity(tmp_path: Path) -> None:
    write(tmp_path, "dense", 1.0, [100.0, 102.0, 104.0], metric="test/perplexity")
    for density, value in ((0.5, 90.0), (0.2, 106.9), (0.1, 107.0)):
        write(tmp_path, "set", density, [value], metric="test/perplexity")
    table = density_table(study(tmp_path), ["test/perplexity"])
    assert table is not None
    assert table.rows[0][3] == f"20{PERCENT}"


@pytest.mark.parametrize("dense", [[], [0.8], [0.8, 0.9]])
def test_without_an_interval_there_is_no_answer(tmp_path: Path, dense: list[float]) -> None:
    write(tmp_path, "dense", 1.0, dense)
    write(tmp_path, "set", 0.2, [0.8])
    table = density_table(study(tmp_path), ["test/f1"])
    if not dense:
        assert table is None
    else:
        assert table is not None
        assert table.rows[0][3] == "–"


def test_of_two_dense_arms_the_one_with_the_same_settings_counts(tmp_path: Path) -> None:
    def write_one(scheme: str, density: float, rate: float, level: float, head: str) -> None:
        for seed in (0, 1, 2):
            config = {
                "model": {"head": head}, "sparsity": {"label": scheme, "density": density}, "optimizer": {"lr": rate},
                "seed": seed,
            }  # fmt: skip
            counts = {
                "sparse_layers": round(density * 1000), "sparse_layers_size": 1000, "density": density,
                "trainable": round(density * 1000) + 500 * len(head),
            }  # fmt: skip
            write_run(
                tmp_path, scheme=scheme, density=density, seed=seed, config=config, counts=counts,
                metrics={"test/f1": level + seed / 100}, history=False,
            )  # fmt: skip

    for head in ("full", "sums of"):
        for rate, level in ((0.1, 0.9), (0.2, 0.5)):
            write_one("dense", 1.0, rate, level, head)
        write_one("set", 0.4, 0.2, 0.7, head)
        write_one("set", 0.1, 0.2, 0.5, head)
        write_one("set", 0.05, 0.3, 0.9, head)  # at a rate that no dense arm has
    table = density_table(study(tmp_path), ["test/f1"])
    assert table is not None
    assert [[row[0], row[2], row[3]] for row in table.rows] == [
        ["set, head full", "3,000", f"10{PERCENT}"],
        ["set, head sums of", "4,500", f"10{PERCENT}"],
    ]
