"""Weights outside a topology are exactly zero, always, whatever the optimizer."""

import inspect

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.weights import MaskedWeight, sparsify

#: Every optimizer of torch that works on plain gradients of a matrix, so that a new one is tested when torch adds it.
OPTIMIZERS = [
    optimizer
    for _, optimizer in inspect.getmembers(torch.optim, inspect.isclass)
    if issubclass(optimizer, Optimizer) and optimizer not in (Optimizer, torch.optim.LBFGS, torch.optim.SparseAdam)
]


def masked_linear(seed: int = 0) -> tuple[nn.Linear, MaskedWeight]:
    torch.manual_seed(seed)
    layer = nn.Linear(6, 4, bias=False)
    mask = torch.rand(4, 6) < 0.5
    return layer, MaskedWeight("weight", layer, mask)


@pytest.mark.parametrize("optimizer_class", OPTIMIZERS, ids=lambda c: c.__name__)
def test_entries_outside_stay_zero(optimizer_class: type[Optimizer]) -> None:
    layer, weight = masked_linear()
    settings: dict[str, object] = {"lr": 0.1}
    if "weight_decay" in inspect.signature(optimizer_class).parameters:
        settings["weight_decay"] = 0.1
    if "momentum" in inspect.signature(optimizer_class).parameters:
        settings["momentum"] = 0.9
    optimizer = optimizer_class(layer.parameters(), **settings)  # type: ignore[arg-type]
    outside = ~weight.mask
    for _ in range(20):
        optimizer.zero_grad()
        layer(torch.randn(5, 6)).square().sum().backward()
        weight.after_backward()
        optimizer.step()
        weight.after_step(optimizer)
        assert layer.weight[outside].eq(0).all()
        for name, moment in optimizer.state[layer.weight].items():
            if isinstance(moment, torch.Tensor) and moment.shape == layer.weight.shape:
                # Rprop keeps step sizes and Adamax an infinity norm plus epsilon; neither is a moment of a gradient.
                assert name in ("step_size", "exp_inf") or moment[outside].eq(0).all()


def test_forward_and_gradient_equal_an_explicit_mask() -> None:
    layer, weight = masked_linear()
    reference = layer.weight.detach().clone().requires_grad_()
    x = torch.randn(3, 6)
    layer(x).sum().backward()
    weight.after_backward()
    (x @ (reference * weight.mask).T).sum().backward()
    assert torch.equal(layer.weight.grad, reference.grad)  # type: ignore[arg-type]


def test_the_mask_is_part_of_the_state_and_moves_with_the_model() -> None:
    layer, weight = masked_linear(0)
    other, other_weight = masked_linear(1)
    assert not torch.equal(weight.mask, other_weight.mask)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(weight.mask, other_weight.mask)
    layer.to("meta")
    assert weight.mask.device.type == "meta"


def test_rewiring_keeps_moments_of_survivors_alone() -> None:
    layer, weight = masked_linear()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    layer(torch.randn(5, 6)).square().sum().backward()
    weight.after_backward()
    optimizer.step()
    before = optimizer.state[layer.weight]["exp_avg"].clone()
    old, new = weight.mask.clone(), torch.rand(4, 6) < 0.5
    weight.rewire(new, torch.ones(4, 6), optimizer)
    after = optimizer.state[layer.weight]["exp_avg"]
    assert torch.equal(after, before * (old & new))
    assert torch.equal(layer.weight.detach(), new.float())
    assert weight.active == int(new.sum())
    assert optimizer.state[layer.weight]["step"] == 1


def test_a_mask_of_the_wrong_kind_is_refused() -> None:
    layer = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="boolean and of shape \\(2, 3\\)"):
        MaskedWeight("weight", layer, torch.ones(3, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="float32"):
        MaskedWeight("weight", layer, torch.ones(2, 3))


def test_one_owner_per_weight_and_known_executions() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    mask = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ConfigError, match="auto, masked"):
        sparsify(model, "0.weight", mask, "magic")
    sparsify(model, "0.weight", mask, "masked")
    with pytest.raises(ConfigError, match="already has a topology"):
        sparsify(model, "0.weight", mask, "masked")
