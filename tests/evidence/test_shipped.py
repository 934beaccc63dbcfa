"""Runs as shipped, and runs with settings of their own under a shipped name."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from sparse_bench.evidence.compare import Evidence, Unavailable, measure
from sparse_bench.evidence.settings import alterations
from sparse_bench.evidence.store import ALTERED
from sparse_bench.papers.schema import Comparison, Target
from sparse_bench.sweeps import jobs, may_start, shipped_config
from tests.evidence.by_hand import evidence, run

SWEEP = "demeester/pos_small"


def config(**changes: Any) -> dict[str, Any]:
    """The first run of a sweep, with other values at dotted paths (``__`` for a dot)."""
    found = jobs(SWEEP, Path("runs"))[0].config
    for path, value in changes.items():
        OmegaConf.update(found, path.replace("__", "."), value, merge=False, force_add=True)
    return OmegaConf.to_container(found, resolve=True)  # type: ignore[return-value]


def test_runs_of_a_sweep_are_as_shipped_whatever_their_seed_place_and_products() -> None:
    free = {"seed": 17, "output": "/elsewhere", "threads": 3, "device": "cuda", "sparsity__execution": "csr"}
    assert alterations(SWEEP, config(**free)) is None


def test_an_experiment_s_own_file_ships_a_run_too() -> None:
    plain = OmegaConf.to_container(shipped_config("brouns/set"), resolve=True)
    assert alterations("brouns/set", plain) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"trainer__epochs": 3}, "trainer.epochs: 3, not 50"),
        ({"model__hidden": 12, "trainer__epochs": 3}, "model.hidden: 12, not 10; trainer.epochs: 3, not 50"),
        ({"model__never_heard_of": 1}, "model.never_heard_of: 1, not None"),
        ({"sparsity__density": 0.33}, "sparsity.density: 0.33, not 1.0"),
    ],
)
def test_altered_settings_are_named_with_the_shipped_ones(changes: dict[str, Any], text: str) -> None:
    assert alterations(SWEEP, config(**changes)) == text


def test_a_setting_younger_than_the_run_has_the_default_of_the_code() -> None:
    old = config()
    del old["trainer"]["evaluate_first"]  # which nothing has chosen otherwise since
    assert alterations(SWEEP, old) is None
    old = OmegaConf.to_container(jobs("rasa/diet_small", Path("runs"))[0].config, resolve=True)  # type: ignore[assignment]
    assert alterations("rasa/diet_small", old) is None
    del old["dataset"]["duplicates"]
    assert alterations("rasa/diet_small", old) == "dataset.duplicates: exact, not features"


def test_a_part_taken_out_is_one() -> None:
    node = OmegaConf.to_container(shipped_config("brouns/set"), resolve=True)
    node["trainer"]["schedule"] = None  # type: ignore[index, call-overload]
    text = alterations("brouns/set", node)  # type: ignore[arg-type]
    assert text is not None
    assert "trainer.schedule.warmup: None, not 4000" in text


def test_a_name_that_nothing_ships() -> None:
    assert alterations("mine/own", {}) == "no shipped experiment has this name"


def test_altered_runs_decide_nothing() -> None:
    name = "rasa/diet"
    kept = [run(name, seed, {"test/f1": 0.8}, columns={ALTERED: None}) for seed in (0, 1)]
    changed = run(name, 2, {"test/f1": 0.1}, columns={ALTERED: "trainer.epochs: 3, not 100"})
    found = measure(Comparison("value", "test/f1", [Target(name, "", {})]), evidence(*kept, changed))
    assert not isinstance(found, Unavailable)
    assert found.values == [0.8, 0.8]
    alone: Evidence = evidence(changed)
    assert alone.runs(Target(name, "", {})) is None


def test_the_sweeps_that_may_have_an_experiment() -> None:
    assert may_start("brouns/arms", "brouns/set")
    assert not may_start("brouns/arms", "brouns/small/set")
    assert may_start("rasa/diet_density", "rasa/diet")
    assert not may_start("rasa/diet_splits", "rasa/diet")
    assert may_start("embeddings/optimizers", "embeddings/optimizers_sgd")
