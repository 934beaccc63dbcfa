from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.weights import sparsify
from sparse_bench.training.averaging import NonMonotoneASGD, averaged_weights


def parameters(count: int = 2) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(3, 2, generator=generator)) for _ in range(count)]


def gradients(step: int, like: list[nn.Parameter]) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in like:
        parameter.grad = torch.randn(parameter.shape, generator=generator) * 0.01


def follow(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], rates: list[float]) -> list[Tensor]:
    for step, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = rate
        gradients(step, params)
        optimizer.step()
    return [parameter.detach().clone() for parameter in params]


#: As variable-length chunks set them: 30 times a length over 70.
RATES = [30.0, 30 * 66 / 70, 30 * 35 / 70, 30 * 72 / 70, 30.0, 30 * 64 / 70]


@pytest.mark.parametrize("weight_decay", [0.0, 1.2e-6, 1e-3])
def test_averaging_equals_torchs_asgd_also_when_the_rate_changes(weight_decay: float) -> None:
    ours, theirs = parameters(), parameters()
    optimizer = NonMonotoneASGD(ours, lr=30.0, weight_decay=weight_decay, averaging=True)
    reference = torch.optim.ASGD(theirs, lr=30.0, t0=0, lambd=0.0, weight_decay=weight_decay)
    for a, b in zip(follow(optimizer, ours, RATES), follow(reference, theirs, RATES), strict=True):
        torch.testing.assert_close(a, b)
    for (_, average), parameter in zip(optimizer.averages(), theirs, strict=True):
        torch.testing.assert_close(average, reference.state[parameter]["ax"])


def test_before_the_trigger_it_is_plain_sgd() -> None:
    ours, theirs = parameters(), parameters()
    optimizer = NonMonotoneASGD(ours, lr=30.0, weight_decay=1e-3)
    reference = torch.optim.SGD(theirs, lr=30.0, weight_decay=1e-3)
    for a, b in zip(follow(optimizer, ours, RATES), follow(reference, theirs, RATES), strict=True):
        torch.testing.assert_close(a, b)
    assert optimizer.averages() == []


def test_the_average_by_hand() -> None:
    """After the first step the weight itself, then the mean of all weights since the second step."""
    weight = nn.Parameter(torch.tensor([10.0]))
    optimizer = NonMonotoneASGD([weight], lr=1.0, averaging=True)
    seen = []
    for _ in range(4):
        weight.grad = torch.tensor([1.0])
        optimizer.step()
        seen.append((weight.item(), optimizer.averages()[0][1].item()))
    assert seen == [(9.0, 9.0), (8.0, 8.0), (7.0, 7.5), (6.0, 7.0)]


def model_of(layer: nn.Module) -> nn.Module:
    """A model with one layer."""
    return nn.ModuleDict({"layer": layer})


def test_a_grown_weight_s_average_begins_when_it_is_grown() -> None:
    """By hand: w is 1, 2, 3 after three steps; then the first weight is grown anew at 10, and both rise on by 1."""
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.zero_()
    weight = sparsify(model_of(model), {"layer.weight": torch.ones(1, 2, dtype=torch.bool)}, "masked")["layer.weight"]
    optimizer = NonMonotoneASGD(model.parameters(), lr=1.0, averaging=True, per_weight=True)

    def rise() -> None:
        model.weight.grad = -torch.ones_like(model.weight)
        optimizer.step()

    for _ in range(3):
        rise()
    assert optimizer.averages()[0][1].tolist() == [[2.5, 2.5]]  # the mean of the weights after steps 2 and 3
    place = torch.tensor([0])
    weight.rewire(place, place, torch.tensor([10.0]), optimizer)
    for _ in range(3):
        rise()
    assert model.weight.tolist() == [[13.0, 6.0]]
    assert optimizer.averages()[0][1].tolist() == [[12.5, 4.0]]


@pytest.mark.parametrize("was_there", [True, False], ids=["a place left before", "a place never occupied"])
def test_a_place_without_a_weight_has_no_average_to_begin_with(was_there: bool) -> None:
    """The second weight, zero and alone, moves to the first place after three steps, and rises from 0 by 1 a step."""
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(7.0)
    mask = torch.tensor([[was_there, True]])
    weight = sparsify(model_of(model), {"layer.weight": mask}, "masked")["layer.weight"]
    optimizer = NonMonotoneASGD(model.parameters(), lr=1.0, averaging=True, per_weight=True)
    first, second, none = torch.tensor([0]), torch.tensor([1]), torch.tensor([], dtype=torch.long)

    def rise(steps: int) -> None:
        for _ in range(steps):
            model.weight.grad = -torch.ones_like(model.weight)
            weight.after_backward()
            optimizer.step()

    rise(1)
    if was_there:
        weight.rewire(first, none, torch.zeros(0), optimizer)
    rise(2)
    weight.rewire(second, first, torch.zeros(1), optimizer)
    rise(3)
    assert model.weight.tolist() == [[3.0, 0.0]]
    assert optimizer.averages()[0][1].tolist() == [[2.5, 0.0]]  # the mean after the second and third of its own steps


def test_averaged_weights_stand_in_for_a_while_or_for_good() -> None:
    weight = nn.Parameter(torch.tensor([10.0]))
    optimizer = NonMonotoneASGD([weight], lr=1.0, averaging=True)
    for _ in range(4):
        weight.grad = torch.tensor([1.0])
        optimizer.step()
    with averaged_weights(optimizer):
        assert weight.item() == 7.0
    assert weight.item() == 6.0
    with pytest.raises(RuntimeError, match="on purpose"), averaged_weights(optimizer):
        raise RuntimeError("on purpose")
    assert weight.item() == 6.0
    optimizer.adopt()
    assert weight.item() == 7.0
    with averaged_weights(torch.optim.SGD([weight], lr=1.0)):
        assert weight.item() == 7.0


def test_the_trigger() -> None:
    optimizer = NonMonotoneASGD(parameters())
    for value in (9.0, 8.0, 7.0, 6.0, 5.0, 4.0):
        optimizer.observe(value)
        assert optimizer.report() == {"averaging": 0.0}
    optimizer.observe(9.5)  # above min([9.0])
    assert optimizer.report() == {"averaging": 1.0, "averaging_since": 7.0, "averaging_forced": 0.0}
    optimizer.observe(99.0)
    assert optimizer.report()["averaging_since"] == 7.0


def test_a_trigger_that_is_forced_says_so() -> None:
    optimizer = NonMonotoneASGD(parameters(), force_after=3)
    for value in (9.0, 8.0):
        optimizer.observe(value)
        assert optimizer.averaging_since is None
    optimizer.observe(7.0)
    assert optimizer.report() == {"averaging": 1.0, "averaging_since": 3.0, "averaging_forced": 1.0}
    fallen = NonMonotoneASGD(parameters(), force_after=7)
    for value in (9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 9.5):
        fallen.observe(value)
    assert fallen.report()["averaging_forced"] == 0.0
    assert NonMonotoneASGD(parameters(), averaging=True).report()["averaging_since"] == 0.0


def test_without_a_window_nothing_is_triggered() -> None:
    optimizer = NonMonotoneASGD(parameters(), window=None)
    for value in range(20):
        optimizer.observe(float(value))
    assert optimizer.report() == {"averaging": 0.0}


@pytest.mark.parametrize("averaging", [False, True])
def test_a_restored_optimizer_goes_on_as_if_nothing_had_happened(averaging: bool) -> None:
    def optimizer_of(params: list[nn.Parameter]) -> NonMonotoneASGD:
        return NonMonotoneASGD(params, weight_decay=1e-3, averaging=averaging, force_after=4)

    ours = parameters()
    optimizer = optimizer_of(ours)
    follow(optimizer, ours, RATES[:3])
    for value in (3.0, 2.0, 1.0):
        optimizer.observe(value)
    state: dict[str, Any] = optimizer.state_dict()
    copies = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
    restored = optimizer_of(copies)
    restored.load_state_dict(state)
    for one in (optimizer, restored):
        one.observe(0.5)
    assert restored.report() == optimizer.report()
    for a, b in zip(follow(optimizer, ours, RATES[3:]), follow(restored, copies, RATES[3:]), strict=True):
        assert torch.equal(a, b)
    for (_, a), (_, b) in zip(optimizer.averages(), restored.averages(), strict=True):
        assert torch.equal(a, b)


def test_a_state_is_of_its_moment_and_holds_how_averaging_began() -> None:
    optimizer = NonMonotoneASGD(parameters(), force_after=3)
    for value in (9.0, 8.0, 7.0):
        optimizer.observe(value)
    state = optimizer.state_dict()
    optimizer.observe(6.0)
    restored = NonMonotoneASGD(parameters(), force_after=3)
    restored.load_state_dict(state)
    assert restored.history == [9.0, 8.0, 7.0]
    assert restored.report() == {"averaging": 1.0, "averaging_since": 3.0, "averaging_forced": 1.0}


@pytest.mark.parametrize("execution", ["masked", "csr"])
def test_averages_keep_to_the_topology(execution: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4))
    weight = sparsify(model, {"0.weight": torch.rand(4, 6) < 0.5}, execution)["0.weight"]
    optimizer = NonMonotoneASGD(model.parameters(), lr=0.1, weight_decay=1e-3, averaging=True)

    def train() -> None:
        for _ in range(4):
            model(torch.randn(5, 6)).pow(2).sum().backward()
            weight.after_backward()
            optimizer.step()
            optimizer.zero_grad()

    train()
    old = weight.mask.clone()
    new = torch.rand(4, 6) < 0.5
    assert not torch.equal(old, new)
    with averaged_weights(optimizer):
        assert (weight.dense()[~old] == 0).all()
        before = weight.dense().clone()
    removed, grown = ((one & ~other).view(-1).nonzero().squeeze(1) for one, other in ((old, new), (new, old)))
    weight.rewire(removed, grown, torch.zeros(len(grown)), optimizer)
    with averaged_weights(optimizer):
        assert torch.equal(weight.dense(), before * (old & new))
    train()
    with averaged_weights(optimizer):
        assert (weight.dense()[~new] == 0).all()
        assert (weight.dense()[new] != 0).all()


def test_settings_are_checked() -> None:
    for settings in ({"lr": 0.0}, {"weight_decay": -1.0}, {"window": 0}, {"force_after": 0}):
        with pytest.raises(ConfigError):
            NonMonotoneASGD(parameters(), **settings)
