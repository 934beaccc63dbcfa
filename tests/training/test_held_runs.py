"""Runs under schemes that hold hidden weights: kill and resume, and what a configuration is refused for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from sparse_bench.config import check
from sparse_bench.errors import ConfigError
from sparse_bench.training.trainer import Trainer
from tests.training.test_interruptions import kill_at

SCHEMES = "sparse_bench.sparsity.schemes"
SPARSITY: dict[str, dict[str, Any]] = {
    "ste": {"_target_": f"{SCHEMES}.ste.STE"},
    "top_kast": {"_target_": f"{SCHEMES}.top_kast.TopKAST", "backward_density": 0.7, "interval": 2},
    "ac_dc": {"_target_": f"{SCHEMES}.ac_dc.ACDC", "phase": 0.1},
    "powerpropagation": {"_target_": f"{SCHEMES}.powerpropagation.Powerpropagation", "interval": 2},
}


@pytest.mark.parametrize("scheme", SPARSITY)
def test_a_killed_run_ends_with_the_same_bytes(
    scheme: str, make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"sparsity": SPARSITY[scheme], "trainer__checkpoint_seconds": 0.0}
    torch.manual_seed(0)
    whole = make_trainer("whole", **settings)
    whole.fit()
    torch.manual_seed(0)
    kill_at(11, monkeypatch, make_trainer(**settings))
    torch.manual_seed(1)  # another process, where the same model begins with other weights
    resumed = make_trainer(**settings)
    resumed.fit()
    states = [trained.model.state_dict() for trained in (whole, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0].keys() | states[1].keys())
    assert resumed.folder.metrics.path.read_bytes() == whole.folder.metrics.path.read_bytes()
    assert resumed.tally == whole.tally
    assert sum(weight.active for weight in resumed.scheme.weights.values()) == 192
    assert resumed.scheme.reached()


@pytest.mark.parametrize("scheme", ["ste", "powerpropagation"])
def test_averages_of_hidden_weights_are_refused(scheme: str, toy_config: Callable[..., DictConfig]) -> None:
    averaging = {"_target_": "sparse_bench.training.averaging.NonMonotoneASGD", "label": "nt_asgd"}
    config = toy_config(sparsity=SPARSITY[scheme], optimizer=averaging, trainer__evaluate_every=1)
    with pytest.raises(ConfigError, match="trains weights that the model does not see, and optimizer=nt_asgd"):
        check(config)
