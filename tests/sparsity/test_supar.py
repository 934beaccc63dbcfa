"""SμPar: the start's deviation, and the rates of the optimizer's groups."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import nn

import sparse_bench as sb
from sparse_bench.errors import ConfigError
from sparse_bench.run import run


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(9, 200), nn.Linear(200, 300), nn.LayerNorm(300), nn.Linear(300, 100))


@pytest.mark.parametrize("execution", ["masked", "csr"])
def test_start_and_rates_follow_width_and_density(execution: str) -> None:
    """m = 4 and ρ = .1: deviations σ / √.4, rates η / .4; ρ of a layer of its own under Erdős–Rényi."""
    net = model()
    first = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.3)
    scheme = sb.Random(density=0.1, distribution="erdos_renyi", execution=execution, width_ratio=4.0, sigma=0.02)
    sb.sparsify(net, optimizer, scheme, steps=3)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rates) == len(list(net.parameters()))
    assert all(group["weight_decay"] == 0.3 for group in optimizer.param_groups)
    for name, parameter in net.named_parameters():
        weight = scheme.weights.get(name)
        if weight is None:
            assert rates[id(parameter)] == 0.01, name
            assert torch.equal(parameter, first[name])
        else:
            density = weight.active / weight.size
            assert rates[id(parameter)] == pytest.approx(0.01 / (4 * density))
            assert float(weight.entries()[1].std()) == pytest.approx(0.02 / (4 * density) ** 0.5, rel=0.05)
    assert scheme.weights["1.weight"].active / 60_000 != scheme.weights["3.weight"].active / 30_000


def test_rates_alone_leave_the_start_and_embeddings_alone() -> None:
    net, plain = model(), model()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    scheme = sb.Random(density=0.5, layers=["default", "embedding"], width_ratio=2.0)
    sb.sparsify(net, optimizer, scheme, steps=3)
    mask = scheme.weights["1.weight"].mask
    assert torch.equal(net[1].weight, plain[1].weight * mask)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.01, 0.01]  # 2 · 0.5 = 1
    assert any(parameter is net[0].weight for parameter in optimizer.param_groups[0]["params"])
    with pytest.raises(ConfigError, match=r"sparsity.sigma refers to the base width"):
        sb.Random(density=0.5, sigma=0.1)
    sgd = torch.optim.SGD(plain.parameters(), lr=1.0)
    with pytest.raises(ConfigError, match="scales the rates of Adam, not of SGD"):
        sb.sparsify(plain, sgd, sb.Random(density=0.5, width_ratio=2.0), steps=1)


@pytest.mark.parametrize("name", ["dense.Dense", "rigl.RigL", "ste.STE"])
def test_a_run_trains_with_scaled_rates(name: str, toy_config: Callable[..., DictConfig]) -> None:
    density = 1.0 if name == "dense.Dense" else 0.5
    sparsity = {
        "_target_": f"sparse_bench.sparsity.schemes.{name}",
        "width_ratio": 4.0,
        "sigma": 0.3,
        "density": density,
    }
    result: Any = run(toy_config(sparsity=sparsity))
    assert result.status == "finished", result.error


def test_a_scheme_that_holds_weights_chooses_among_those_that_were_drawn() -> None:
    net = model()
    scheme = sb.TopKAST(density=0.2, width_ratio=2.0, sigma=0.02)
    sb.sparsify(net, torch.optim.Adam(net.parameters()), scheme, steps=3)
    assert scheme.held
    for weight in scheme.held.values():
        assert weight.full[weight.mask].abs().min() >= weight.full[~weight.mask].abs().max()
