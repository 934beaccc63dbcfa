"""Weights outside a topology are exactly zero, always, whatever the optimizer."""

import inspect

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.layers.linear import SparseLinear
from sparse_bench.sparsity.weights import EXECUTIONS, CompressedWeight, MaskedWeight, SparseWeight, sparsify

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


def places(mask: torch.Tensor) -> torch.Tensor:
    return mask.flatten().nonzero().squeeze(1)


def rewire_to(weight: SparseWeight, new: torch.Tensor, optimizer: Optimizer | None = None) -> None:
    """Change the topology to the mask ``new``; new weights are 7."""
    grown = places(new & ~weight.mask)
    weight.rewire(places(weight.mask & ~new), grown, torch.full((len(grown),), 7.0), optimizer)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_rewiring_clears_the_moments_of_removed_and_new_weights_alone(execution: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4, bias=False))
    old = torch.rand(4, 6) < 0.5
    weight = sparsify(model, {"0.weight": old}, execution)["0.weight"]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.randn(5, 6)).square().sum().backward()
    optimizer.step()

    def full(values: torch.Tensor) -> torch.Tensor:
        return weight.structure.scatter(values) if isinstance(weight, CompressedWeight) else values

    def moment(name: str) -> torch.Tensor:
        return full(optimizer.state[model.get_parameter("0.weight")][name]).clone()

    values, first, second = weight.dense().clone(), moment("exp_avg"), moment("exp_avg_sq")
    removed = places(old)[:5]
    regrown, fresh = removed[:2], places(~old)[:4]
    grown = torch.cat([fresh, regrown])[torch.randperm(6)]
    weight.rewire(removed, grown, torch.arange(1.0, 7.0), optimizer)

    new, survivors = old.flatten().clone(), old.flatten().clone()
    survivors[removed] = new[removed] = False
    new[grown] = True
    expected = values.flatten() * survivors
    expected[grown] = torch.arange(1.0, 7.0)
    assert torch.equal(weight.mask.flatten(), new)
    assert weight.active == int(new.sum()) == int(old.sum()) + 1
    assert torch.equal(weight.dense().flatten(), expected)
    assert first.flatten()[regrown].ne(0).all()
    assert torch.equal(moment("exp_avg").flatten(), first.flatten() * survivors)
    assert torch.equal(moment("exp_avg_sq").flatten(), second.flatten() * survivors)
    assert optimizer.state[model.get_parameter("0.weight")]["step"] == 1
    (group,) = optimizer.param_groups
    assert [id(entry) for entry in group["params"]] == [id(entry) for entry in model.parameters()]
    found, stored = weight.entries()
    assert torch.equal(found, places(new))
    assert torch.equal(stored, expected[new])


@pytest.mark.parametrize("execution", ["csr", "kernel"])
def test_a_rewiring_of_equal_number_keeps_the_parameter(execution: str) -> None:
    model = nn.Sequential(nn.Linear(6, 4))
    weight = sparsify(model, {"0.weight": torch.eye(4, 6, dtype=torch.bool)}, execution)["0.weight"]
    parameter = model.get_parameter("0.weight")
    rewire_to(weight, torch.eye(4, 6, dtype=torch.bool).roll(1, 1))
    assert model.get_parameter("0.weight") is parameter
    assert parameter.tolist() == [7.0] * 4


@pytest.mark.parametrize("passes", [1, 3])
def test_the_dense_gradient_is_the_same_in_every_execution(passes: int) -> None:
    """Of a weight that is used twice in each backward pass; gradients of several passes add up."""
    torch.manual_seed(0)
    mask = torch.rand(6, 6) < 0.4
    start = nn.Linear(6, 6)
    inputs = torch.randn(passes, 5, 6)
    gradients = {}
    for execution in EXECUTIONS:
        model = nn.Sequential(nn.Linear(6, 6))
        model[0].load_state_dict(start.state_dict())
        weight = sparsify(model, {"0.weight": mask}, execution)["0.weight"]
        weight.keep_dense_gradient(True)
        for x in inputs:
            model(model(x)).square().sum().backward()
            weight.keep_dense_gradient(True)  # asking again forgets nothing
        gradient = weight.dense_gradient()
        assert gradient is not None
        gradients[execution] = gradient.clone()
        own = model.get_parameter("0.weight").grad
        assert own is not None
        dense = own if execution == "masked" else weight.structure.scatter(own)  # type: ignore[attr-defined]
        torch.testing.assert_close(dense, gradients[execution] * mask)
        weight.keep_dense_gradient(False)
    assert gradients["masked"][~mask].ne(0).all()
    for execution in ("csr", "kernel"):
        torch.testing.assert_close(gradients[execution], gradients["masked"])


@pytest.mark.parametrize("to_none", [True, False], ids=["gradients to none", "gradients to zero"])
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_dense_gradient_is_that_of_the_coming_step(execution: str, to_none: bool) -> None:
    """Backward passes whose gradients were cleared belong to no step; those of one step add up, before any clipping."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6, bias=False))
    full = model[0].weight.detach().clone()
    mask = torch.rand(6, 6) < 0.4
    weight = sparsify(model, {"0.weight": mask}, execution)["0.weight"]
    weight.keep_dense_gradient(True)
    inputs = torch.randn(4, 5, 6)
    for x in inputs[:2]:
        model(x).square().sum().backward()
    model.zero_grad(set_to_none=to_none)
    for x in inputs[2:]:
        model(x).square().sum().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    reference = (full * mask).requires_grad_()
    for x in inputs[2:]:
        (x @ reference.T).square().sum().backward()
    found = weight.dense_gradient()
    assert found is not None
    assert reference.grad is not None
    torch.testing.assert_close(found, reference.grad)


@pytest.mark.parametrize("execution", ["csr", "kernel"])
def test_a_dense_gradient_is_kept_only_while_it_is_asked_for(execution: str) -> None:
    model = nn.Sequential(nn.Linear(6, 4))
    weight = sparsify(model, {"0.weight": torch.eye(4, 6, dtype=torch.bool)}, execution)["0.weight"]
    model(torch.randn(3, 6)).sum().backward()
    assert weight.dense_gradient() is None
    weight.keep_dense_gradient(True)
    with torch.no_grad():
        model(torch.randn(3, 6))  # an evaluation in between computes as ever
    weight.keep_dense_gradient(False)
    assert weight.dense_gradient() is None


def test_a_mask_of_the_wrong_kind_is_refused() -> None:
    layer = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="boolean and of shape \\(2, 3\\)"):
        MaskedWeight("weight", layer, torch.ones(3, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="float32"):
        MaskedWeight("weight", layer, torch.ones(2, 3))


def test_one_owner_per_weight_and_known_executions() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    mask = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ConfigError, match="csr, kernel, masked"):
        sparsify(model, {"0.weight": mask}, "magic")
    sparsify(model, {"0.weight": mask}, "masked")
    with pytest.raises(ConfigError, match="already has a topology"):
        sparsify(model, {"0.weight": mask}, "masked")


def trained(execution: str, steps: int = 30) -> tuple[nn.Sequential, list[float]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    weights = [
        sparsify(model, {name: torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.4}, execution)[name]
        for name, shape in (("0.weight", (8, 6)), ("2.weight", (3, 8)))
    ]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    draw = torch.Generator().manual_seed(2)
    losses = []
    for step in range(steps):
        x = torch.randn(7, 6, generator=draw)
        loss = (model(x) - x[:, :3].sin()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == steps // 2:
            for weight in weights:
                new = torch.rand(weight.mask.shape, generator=draw) < 0.4
                rewire_to(weight, new, optimizer)
        losses.append(loss.item())
    return model, losses


@pytest.mark.parametrize("execution", ["csr", "kernel"])
def test_true_sparse_training_equals_masked_training_also_across_a_rewiring(execution: str) -> None:
    masked_model, masked = trained("masked")
    model, losses = trained(execution)
    assert losses == pytest.approx(masked, rel=1e-4)
    first, last = model[0], model[2]
    assert isinstance(first, SparseLinear)
    assert isinstance(last, SparseLinear)
    assert first.weight.dim() == 1
    assert torch.equal(first.structure.mask(), masked_model[0].weight_mask)
    full = first.structure.scatter(first.weight.detach())
    torch.testing.assert_close(full, masked_model[0].weight.detach(), rtol=1e-4, atol=1e-6)


def test_a_rewired_layer_loads_another_number_of_weights() -> None:
    model = nn.Sequential(nn.Linear(6, 4))
    other = nn.Sequential(nn.Linear(6, 4))
    weight = sparsify(model, {"0.weight": torch.ones(4, 6, dtype=torch.bool)}, "csr")["0.weight"]
    sparsify(other, {"0.weight": torch.rand(4, 6) < 0.5}, "csr")
    rewire_to(weight, torch.eye(4, 6, dtype=torch.bool))
    assert weight.active == 4
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, 6)
    assert torch.equal(other(x), model(x))


def test_only_linear_layers_have_true_sparse_products() -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 3)})
    with pytest.raises(ConfigError, match=r"embedding\.weight of this Embedding"):
        sparsify(model, {"embedding.weight": torch.ones(5, 3, dtype=torch.bool)}, "csr")
    linear = nn.Sequential(nn.Linear(3, 2))
    assert isinstance(
        sparsify(linear, {"0.weight": torch.ones(2, 3, dtype=torch.bool)}, "csr")["0.weight"], CompressedWeight
    )
    with pytest.raises(ConfigError, match="already has a topology"):
        sparsify(linear, {"0.weight": torch.ones(2, 3, dtype=torch.bool)}, "csr")
