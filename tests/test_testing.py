"""Every scheme keeps the promises that ``sparse_bench.testing`` checks, and a broken scheme is found."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import sparse_bench as sb
from sparse_bench.sparsity.scheme import MaskScheme
from sparse_bench.sparsity.schemes.random import Random
from sparse_bench.sparsity.topology import Shape
from sparse_bench.streams import Streams
from sparse_bench.testing import check_scheme, small_loss

MAKERS: dict[str, Any] = {
    "GMP": partial(sb.GMP, density=0.3, interval=3),
    "Random": partial(sb.Random, density=0.3),
    "RandomConnected": partial(sb.RandomConnected, density=0.3),
    "RigL": partial(sb.RigL, density=0.3, interval=3),
    "RigL, kernel": partial(sb.RigL, density=0.3, interval=3, execution="kernel"),
    "SET": partial(sb.SET, density=0.3),
    "StaticER": partial(sb.StaticER, density=0.3),
    "EmbeddingTiers": partial(sb.EmbeddingTiers, layers=["embedding"]),
    "Combined": lambda **execution: sb.Combined(
        parts={
            "one": sb.SET(density=0.3, layers=["first.*"], **execution),
            "other": sb.RigL(density=0.5, layers=["second.*"], interval=3, **execution),
        }
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_schemes_keep_their_promises(name: str) -> None:
    check_scheme(MAKERS[name])


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm, self.output = nn.Embedding(30, 12), nn.LSTM(12, 16), nn.Linear(16, 5)

    def forward(self, words: Tensor) -> Tensor:
        return self.output(self.lstm(self.embedding(words).transpose(0, 1))[0][-1])


def test_schemes_of_recurrent_layers_keep_their_promises() -> None:
    make = partial(sb.BlockDiagonal, layers=["lstm.*"], mode="sparse_all", fraction=0.5)
    check_scheme(make, Recurrent)
    check_scheme(partial(sb.RigL, density=0.3, layers=["lstm.*"], interval=3), Recurrent, small_loss)


@dataclass
class Broken(MaskScheme):
    """Random, with one fault."""

    fault: str = ""
    count: int = 0

    def first_topology(self, shapes: Mapping[str, Shape], streams: Streams) -> dict[str, Tensor]:
        if self.fault == "seed":
            return {name: torch.rand(shape) < 0.5 for name, shape in shapes.items()}
        found = {
            name: torch.arange(rows * columns).view(rows, columns) % 3 == 0 for name, (rows, columns) in shapes.items()
        }
        return {} if self.fault == "nothing" else found

    def missing_in_the_end(self) -> int:
        return 1

    def after_step(self, step: int, optimizer: Optimizer, streams: Streams) -> None:
        super().after_step(step, optimizer, streams)
        self.count += 1
        weight = self.weights["first.weight"]
        with torch.no_grad():
            match self.fault:
                case "zeros":
                    self.selected_parameter(optimizer).add_(0.1)
                case "state" if self.count == 8:  # a counter that no checkpoint holds
                    weight.set_values(weight.entries()[1] * 0.5)
                case "executions" if self.execution == "kernel":
                    weight.set_values(weight.entries()[1] * 0.5)
                case "active":
                    weight.active += 1
                case "value":
                    float(weight.dense().sum())

    def selected_parameter(self, optimizer: Optimizer) -> Tensor:
        return next(p for group in optimizer.param_groups for p in group["params"] if p.shape == (32, 48))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nothing", "makes no layer sparse"),
        ("seed", "the same seed gives another topology"),
        ("zeros", "outside the topology are not zero"),
        ("active", "in the mask"),
        ("executions", "masked has the loss"),
        ("state", "stopped at step"),
    ],
)
def test_a_broken_scheme_is_found(fault: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_scheme(partial(Broken, density=0.5, fault=fault))


def test_a_scheme_that_reads_values_is_found() -> None:
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        check_scheme(partial(Broken, density=0.5, fault="value"))
    check_scheme(partial(Broken, density=0.5))


def test_a_model_with_another_loss() -> None:
    def loss(model: nn.Module, step: int) -> Tensor:
        device = next(model.parameters()).device
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(step)).to(device)
        return model(x).square().mean()

    check_scheme(partial(Random, density=0.5), lambda: nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3)), loss)
