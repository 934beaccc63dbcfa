"""What is said about weights, against hand-made layers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparse_bench.sparsity.schemes.dense import Dense
from sparse_bench.sparsity.schemes.random import Random
from sparse_bench.sparsity.weight_summary import coarse_map, existing_weights, share_below, summarise
from sparse_bench.streams import Streams


def layers() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(100, 60))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.05, -0.06], [0.07, -1.0]]))
        model[1].weight.fill_(0.5)
    return model


def test_by_hand() -> None:
    model, scheme = layers(), Dense(layers=["0.weight"])
    scheme.attach(model, Streams(0))
    summary = summarise(model, scheme)
    layer = summary["layers"]["0.weight"]
    assert layer["share_small"] == 0.5
    assert sum(layer["counts"]) == 4
    assert (summary["edges"][0], summary["edges"][-1]) == (-1.0, 1.0)
    assert [value for row in layer["map"] for value in row] == pytest.approx([0.05, 0.06, 0.07, 1.0])


@pytest.mark.parametrize("execution", ["masked", "kernel"])
def test_missing_weights_are_not_small_ones(execution: str) -> None:
    model, scheme = layers(), Random(density=0.25, layers=["1.weight"], execution=execution)
    scheme.attach(model, Streams(0))
    layer = summarise(model, scheme)["layers"]["1.weight"]
    assert layer["share_small"] == 0.0
    assert sum(layer["counts"]) == 1500
    assert len(layer["map"]) == len(layer["map"][0]) == 48
    assert torch.tensor(layer["map"]).mean().item() == pytest.approx(0.125, rel=0.1)


def test_over_all_layers_and_without_any_weight() -> None:
    model, scheme = layers(), Dense(layers=["*weight"])
    scheme.attach(model, Streams(0))
    assert share_below(existing_weights(model, scheme)) == pytest.approx(2 / 6004)
    empty, nothing = layers(), Random(density=0.0, layers=["1.weight"])
    nothing.attach(empty, Streams(0))
    assert share_below(existing_weights(empty, nothing)) == 0.0
    assert sum(summarise(empty, nothing)["layers"]["1.weight"]["counts"]) == 0


@pytest.mark.parametrize("execution", ["masked", "kernel"])
@pytest.mark.parametrize("shape", [(60, 100), (7, 48), (96, 49), (3, 500)])
def test_maps_are_adaptive_means_of_the_full_matrix(execution: str, shape: tuple[int, int]) -> None:
    model = nn.Sequential(nn.Linear(shape[1], shape[0]))
    scheme = Random(density=0.3, layers=["0.weight"], execution=execution)
    scheme.attach(model, Streams(0))
    (weight,) = scheme.weights.values()
    cells = (min(48, shape[0]), min(48, shape[1]))
    wanted = F.adaptive_avg_pool2d(weight.dense().abs()[None], cells)[0]
    for matrix in (weight, weight.dense()):
        torch.testing.assert_close(torch.from_numpy(coarse_map(matrix)), wanted)
