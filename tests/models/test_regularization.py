import pytest
import torch
from torch import nn

from sparse_bench.models.regularization import Penalty, call


def gradients(module: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    names, parameters = zip(*module.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def test_the_sum_covers_the_named_weights_and_nothing_else():
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    loose = nn.Parameter(torch.tensor([1.0, -2.0]))
    penalty = Penalty()
    x = torch.randn(4, 3)
    assert torch.equal(penalty.call(module, x, name="1.weight"), module(x))
    assert penalty.weight(loose).tolist() == [1, -2]
    torch.testing.assert_close(penalty.sum(), module[1].weight.square().sum() + 5)


def test_without_a_penalty_a_module_is_just_called():
    module, x = nn.Linear(3, 2), torch.randn(4, 3)
    assert torch.equal(call(None, module, x), module(x))


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_gradient_is_twice_the_weight(share: float):
    module, x = nn.Linear(3, 2), torch.randn(4, 3)
    penalty = Penalty()
    found = gradients(module, share * (penalty.call(module, x).sum() + 0.1 * penalty.sum()))
    plain = gradients(module, module(x).sum())
    torch.testing.assert_close(found["weight"], share * (plain["weight"] + 0.2 * module.weight))
    torch.testing.assert_close(found["bias"], share * plain["bias"])


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_with_the_quirk_only_where_the_rest_of_the_gradient_is_positive(share: float):
    module, x, weights = nn.Linear(3, 2), torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([1.0, -1.0])
    penalty = Penalty(only_where_positive=True)
    y = penalty.call(module, x)
    assert torch.equal(y, module(x))
    found = gradients(module, share * ((y * weights).sum() + 0.1 * penalty.sum()))
    plain = torch.tensor([[1.0, 0.0, 2.0], [-1.0, 0.0, -2.0]])
    decay = 0.2 * module.weight * torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(found["weight"], share * (plain + decay))


def test_with_the_quirk_a_weight_that_is_used_twice_is_judged_by_both_uses():
    weight = nn.Parameter(torch.tensor([1.0, 1.0]))
    penalty = Penalty(only_where_positive=True)
    used = penalty.weight(weight)
    loss = (used * torch.tensor([3.0, -3.0])).sum() + (used * torch.tensor([-1.0, 1.0])).sum() + penalty.sum()
    (gradient,) = torch.autograd.grad(loss, weight)
    assert gradient.tolist() == [2 + 2, -2]
