"""Runs into arms, arms into curves, curves into studies."""

from pathlib import Path
from typing import Any

import pytest

from sparse_bench.evidence.arms import Study, arms_of, identifying_settings, studies_of
from sparse_bench.evidence.display import percent
from sparse_bench.evidence.store import RunTable, load
from tests.evidence.runs import OUTSIDE, write_run


def study_of(root: Path) -> Study:
    (study,) = studies_of(load([root])[0].runs)
    return study


def labels(study: Study) -> list[str]:
    return [curve.label.replace("\N{NO-BREAK SPACE}", " ") for curve in study.curves]


def test_arms_are_repeated_over_seeds(results: RunTable) -> None:
    arms = arms_of(results.runs)
    assert len(arms) == 16 + 3
    assert {len(arm.runs) for arm in arms} == {3}
    # The failed run is a fourth seed of its arm.
    assert [(len(arm.ids), arm.failed) for arm in arms if arm.failed] == [(4, 1)]


def test_curves_of_the_sweep(results: RunTable) -> None:
    (study,) = studies_of(results.runs)
    assert labels(study) == ["dense", "small dense", "density 20 %", "density 5 %", "density 1 %"]
    assert [len(curve.arms) for curve in study.curves] == [4, 3, 4, 4, 4]
    assert not study.one_width
    for curve in study.curves:
        weights = [arm.mean("count:sparse_layers") or 0 for arm in curve.arms]
        assert weights == sorted(weights)
    assert study.labels == {"model": "diet", "dataset": "sara"}


def test_curves_of_one_width(compared: RunTable) -> None:
    (study,) = studies_of(compared.runs)
    assert study.one_width
    assert labels(study) == [
        "dense", "small dense", "rigl, 30 %", "rigl, 10 %", "rigl, 5 %", "set, 30 %", "set, 10 %", "set, 5 %",
    ]  # fmt: skip


def test_weights_are_the_mean_of_realised_mask_sums(tmp_path: Path) -> None:
    for seed, weights in enumerate((100, 110, 126)):
        write_run(tmp_path, seed=seed, weights=weights)
    (arm,) = arms_of(load([tmp_path])[0].runs)
    assert arm.mean("count:sparse_layers") == 112
    assert arm.full_size == OUTSIDE + 64 + 128 * 64 + 24 * 64**2


def test_frozen_layers_count_as_part_of_the_width(tmp_path: Path) -> None:
    write_run(tmp_path, weights=100)
    (trained,) = arms_of(load([tmp_path])[0].runs)
    counts = {"count:sparse_layers_frozen": 100, "count:trainable": trained.runs["count:trainable"] - 100}
    (frozen,) = arms_of(trained.runs.assign(**counts))
    assert frozen.full_size == trained.full_size


def test_a_density_of_one_is_dense_under_any_scheme(tmp_path: Path) -> None:
    for density in (1.0, 0.2):
        write_run(tmp_path, density=density)
    assert [(curve.label, curve.kind) for curve in study_of(tmp_path).curves] == [
        ("dense", "dense"),
        (f"density {percent(0.2)}", "sparse"),
    ]


def test_a_setting_that_is_no_width_makes_a_curve_of_its_own(tmp_path: Path) -> None:
    for width in (32, 64):
        for drop in (0.1, 0.3):
            write_run(tmp_path, scheme="set", width=width, settings={"drop_fraction": drop})
    assert labels(study_of(tmp_path)) == ["density 20 %, drop fraction 0.1", "density 20 %, drop fraction 0.3"]
    assert [len(curve.arms) for curve in study_of(tmp_path).curves] == [2, 2]


def test_a_choice_of_layers_is_no_width_though_it_changes_the_size(tmp_path: Path) -> None:
    # The same model with its attention sparse, or all of it: full sizes agree, sizes of the sparse layers do not.
    counts: dict[str, Any] = {"density": 0.5, "groups": {}}
    write_run(
        tmp_path,
        settings={"layers": ["attention"]},
        counts=counts | {"sparse_layers": 50, "sparse_layers_size": 100, "trainable": 950},
    )
    write_run(
        tmp_path,
        settings={"layers": ["default"]},
        counts=counts | {"sparse_layers": 200, "sparse_layers_size": 400, "trainable": 800},
    )
    study = study_of(tmp_path)
    assert [curve.variant for curve in study.curves] == ['layers ["attention"]', 'layers ["default"]']
    assert study.one_width


def test_models_and_datasets_are_studies_of_their_own(tmp_path: Path) -> None:
    base = {"scheme": "set", "density": 0.2}
    for number, (model, dataset) in enumerate([("diet", "sara"), ("diet", "other"), ("ted", "sara")]):
        write_run(tmp_path, seed=number, labels=base | {"model": model, "dataset": dataset})
    found = [study.labels for study in studies_of(load([tmp_path])[0].runs)]
    assert sorted(tuple(label.values()) for label in found) == [("diet", "other"), ("diet", "sara"), ("ted", "sara")]


def test_settings_that_identify_and_settings_that_follow(results: RunTable) -> None:
    (study,) = studies_of(results.runs)
    # Either width tells the arms apart, and the other follows; the density is a label already.
    assert study.settings == (["model.feed_forward_size"], ["model.transformer_size"])
    assert identifying_settings(study.arms[:1]) == ([], [])


def test_a_seed_that_was_run_twice_counts_once(tmp_path: Path) -> None:
    for number, value in enumerate((0.2, 0.4)):
        write_run(tmp_path / str(number), seed=0, metrics={"test/f1": value}, id=f"{number:012x}")
    write_run(tmp_path, seed=1, metrics={"test/f1": 0.5})
    (arm,) = arms_of(load([tmp_path])[0].runs)
    assert arm.values("metric:test/f1") == {0: pytest.approx(0.3), 1: 0.5}
    interval = arm.interval("metric:test/f1")
    assert interval is not None
    assert (interval.n, interval.mean) == (2, pytest.approx(0.4))


def test_percent() -> None:
    assert [percent(value).replace("\N{NO-BREAK SPACE}", " ") for value in (1.0, 0.2, 0.07, 0.0005)] == [
        "100 %", "20 %", "7 %", "0.05 %",
    ]  # fmt: skip
