"""What a training held and computed: weights, average density, and multiply-accumulates by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from sparse_bench.run import run
from sparse_bench.sparsity.counting import MultiplyAccumulates, count
from sparse_bench.sparsity.driver import Tally
from sparse_bench.training.trainer import Trainer
from tests.training.test_interruptions import kill_at

Make = Callable[..., Trainer]
SCHEMES = "sparse_bench.sparsity.schemes"
#: Dense until step 9 of 18; then 192 of 384 weights.
GMP = {"_target_": f"{SCHEMES}.gmp.GMP", "density": 0.5, "begin": 0.5, "end": 0.5001, "interval": 100}
RIGL = {"_target_": f"{SCHEMES}.rigl.RigL", "density": 0.5, "interval": 6, "stop": 0.7}


def test_what_was_pruned_late_was_held_and_computed_until_then(toy_config: Callable[..., DictConfig]) -> None:
    result: Any = run(toy_config(sparsity=GMP))
    assert result.status == "finished", result.error
    assert result.counts["sparse_layers"] == 192
    assert result.counts["held"] == 384
    assert result.counts["average_density"] == 0.75
    # The output layer has 32 weights; the others 384 in half of the steps, and 192 in the other half.
    mean = 288 + 32
    assert result.macs_of_training == {"forward": 288 * mean, "backward": 288 * 2 * mean}


def test_a_step_that_ranks_the_dense_gradient_computes_all_of_it(toy_config: Callable[..., DictConfig]) -> None:
    """RigL rewires after steps 6 and 12 of 18."""
    result: Any = run(toy_config(sparsity=RIGL))
    assert result.status == "finished", result.error
    assert result.counts["held"] == 192
    updated = (16 * 192 + 2 * 384) / 18
    assert result.macs_of_training["forward"] == pytest.approx(288 * (32 + 192))
    assert result.macs_of_training["backward"] == pytest.approx(288 * (2 * 32 + 192 + updated))


def test_an_interrupted_training_is_counted_once(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"sparsity": GMP, "trainer__checkpoint_seconds": 0.0}
    kill_at(14, monkeypatch, make_trainer(**settings))
    resumed, whole = make_trainer(**settings), make_trainer("whole", **settings)
    for trained in (resumed, whole):
        torch.manual_seed(0)
        trained.fit()
    assert resumed.tally == whole.tally
    assert whole.tally is not None
    assert whole.tally.steps == 18


def test_steps_that_were_not_counted_leave_no_average(make_trainer: Make) -> None:
    trained = make_trainer(sparsity=GMP)
    trained.fit()
    state = trained._driver.state_dict()
    del state["tally"]
    trained._driver.load_state_dict(state)
    assert trained.tally is None
    assert count(trained.model, trained.scheme, trained.tally).average_density is None


def test_look_ups_and_frozen_layers_cost_nothing_more() -> None:
    tally = Tally(steps=4, held=9, active={"a": 40, "b": 12}, updated={"a": 80, "b": 0})
    macs = MultiplyAccumulates(dense=100.0, sparse=0.0, rows={"a": 2.0})
    assert macs.of_training(tally, {"a": 30, "b": 3}, examples=10) == {
        "forward": 10 * (40 + 2 * 10),
        "backward": 10 * (80 + 2 * 10 + 2 * 20),
    }


def test_dense_layers_are_held_too(toy_config: Callable[..., DictConfig]) -> None:
    result: Any = run(toy_config(sparsity={"_target_": f"{SCHEMES}.dense.Dense", "density": 1.0}))
    assert result.counts["held"] == 384
    assert result.counts["average_density"] == 1.0
    assert result.macs_of_training["backward"] == 2 * result.macs_of_training["forward"] == 2 * 288 * (384 + 32)
