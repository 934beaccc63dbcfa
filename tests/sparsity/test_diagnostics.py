"""Turnover, exploration, overlap and degrees: a small topology followed by hand."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from sparse_bench.sparsity.diagnostics import Evolution, degrees, describe_degrees, favours_power_law
from sparse_bench.sparsity.power_law import Comparison, PowerLaw
from sparse_bench.sparsity.weights import SparseWeight, sparsify

#: Two outputs, four inputs; places are numbered 0 to 7 along the rows.
FIRST = torch.tensor([[True, True, False, False], [True, False, False, False]])


def followed() -> tuple[dict[str, SparseWeight], Evolution]:
    weights = sparsify(nn.Sequential(nn.Linear(4, 2)), {"0.weight": FIRST}, "masked")
    return weights, Evolution(weights)


def rewire(weights: dict[str, SparseWeight], evolution: Evolution, removed: list[int], grown: list[int]) -> None:
    (weight,) = weights.values()
    gone, come = torch.tensor(removed, dtype=torch.int64), torch.tensor(grown, dtype=torch.int64)
    evolution.record("0.weight", weight.active, weight.mask.flatten(), gone, come)
    weight.rewire(gone, come, torch.ones(len(grown)), None)
    evolution.count_rewiring()


def test_a_topology_followed_by_hand() -> None:
    weights, evolution = followed()
    start = evolution.end_epoch(weights)
    assert start["topology/turnover"] == start["topology/rewirings"] == 0.0
    assert start["topology/overlap"] == 1.0
    assert start["topology/density"] == start["topology/exploration"] == 3 / 8
    assert start["topology/dead_inputs"] == 2 / 4
    assert start["topology/dead_outputs"] == 0.0
    # in-degrees 2, 1; out-degrees 2, 1, 0, 0: mean 3/4, variance 11/16, third central moment 9/32
    assert start["topology/in_degree/variance_to_mean"] == pytest.approx(0.25 / 1.5)
    assert start["topology/in_degree/skew"] == pytest.approx(0.0)
    assert start["topology/out_degree/variance_to_mean"] == pytest.approx(11 / 12)
    assert start["topology/out_degree/skew"] == pytest.approx(9 / 32 / (11 / 16) ** 1.5)
    assert start["topology/out_degree/power_law"] == 0.0
    assert "topology/out_degree/alpha" not in start  # four units are too few for a fit

    rewire(weights, evolution, [0, 4], [4, 7])  # place 4 grows again: one of three is gone
    rewire(weights, evolution, [1], [])  # and then one of three without replacement
    entry = evolution.end_epoch(weights)
    assert entry["topology/rewirings"] == 2.0
    assert entry["topology/turnover"] == (1 + 1) / (3 + 3)
    assert entry["topology/exploration"] == 4 / 8  # 0, 1, 4, 7
    assert entry["topology/overlap"] == 1 / 3  # 4
    assert entry["topology/density"] == 2 / 8  # 4, 7
    assert entry["topology/dead_outputs"] == 1 / 2
    assert evolution.end_epoch(weights)["topology/turnover"] == 0.0


def test_the_topology_is_told_once_after_every_change() -> None:
    weights, evolution = followed()
    first = evolution.describe_if_changed(weights)["0.weight"]
    assert first["active"] == first["first"] == first["kept"] == first["ever"] == 3
    assert (first["outputs"], first["inputs"], first["size"]) == (2, 4, 8)
    assert first["out_degree"]["degrees"] == [0, 1, 2]
    assert first["out_degree"]["counts"] == [2, 1, 1]
    assert first["out_degree"]["dead"] == 2
    assert evolution.describe_if_changed(weights) == {}
    rewire(weights, evolution, [0], [7])
    assert evolution.describe_if_changed(weights)["0.weight"]["in_degree"]["degrees"] == [1, 2]
    assert evolution.describe_if_changed(weights) == {}
    json.dumps(first, allow_nan=False)


def test_the_state_carries_everything_over_to_another_object() -> None:
    weights, evolution = followed()
    evolution.describe_if_changed(weights)
    rewire(weights, evolution, [0], [7])
    state = copy.deepcopy(evolution.state_dict())
    _, resumed = followed()
    resumed.load_state_dict(state)
    for each in (evolution, resumed):
        each.record("0.weight", 3, weights["0.weight"].mask.flatten(), torch.tensor([7]), torch.tensor([6]))
    weights["0.weight"].rewire(torch.tensor([7]), torch.tensor([6]), torch.ones(1), None)
    assert resumed.describe_if_changed(weights) == evolution.describe_if_changed(weights) != {}
    assert resumed.end_epoch(weights) == evolution.end_epoch(weights)


def test_degrees_of_a_matrix() -> None:
    found = degrees(FIRST)
    assert found["in_degree"].tolist() == [2, 1]
    assert found["out_degree"].tolist() == [2, 1, 0, 0]


def test_degenerate_distributions() -> None:
    constant = describe_degrees(np.full(20, 3))
    assert constant["variance_to_mean"] == constant["skew"] == 0.0
    assert constant["power_law"] is None
    nothing = describe_degrees(np.zeros(20, dtype=int))
    assert nothing["dead"] == 20
    assert nothing["variance_to_mean"] == 0.0


def test_poisson_degrees_have_a_variance_to_mean_of_one() -> None:
    described = describe_degrees(np.random.default_rng(0).poisson(40, 20_000))
    assert described["variance_to_mean"] == pytest.approx(1.0, abs=0.04)
    assert described["skew"] == pytest.approx(40**-0.5, abs=0.06)


def test_a_power_law_has_to_win_against_both() -> None:
    def against(exponential: tuple[float, float], poisson: tuple[float, float]) -> bool:
        return favours_power_law(PowerLaw(2.5, 1, 0.01, 100, Comparison(*exponential), Comparison(*poisson)))

    assert against((3.0, 0.01), (4.0, 0.001))
    assert not against((-3.0, 0.01), (4.0, 0.001))
    assert not against((1.0, 0.3), (4.0, 0.001))
    assert not against((3.0, 0.01), (-4.0, 0.001))
    assert not against((3.0, 0.01), (1.0, 0.3))
