import pytest
import torch

from sparse_bench.models.layer_norm import StdLayerNorm


def formula(norm: StdLayerNorm, x: torch.Tensor) -> torch.Tensor:
    std = x.std(-1, correction=0, keepdim=True)
    return norm.weight * (x - x.mean(-1, keepdim=True)) / (std + norm.eps) + norm.bias


def randomised(size: int, eps: float, dtype: torch.dtype = torch.float64) -> StdLayerNorm:
    torch.manual_seed(0)
    norm = StdLayerNorm(size, eps).to(dtype)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.uniform_(-1, 1)
    return norm


def test_by_hand():
    norm = StdLayerNorm(2, eps=1.0)
    # mean 4, standard deviation 1: ±1 / (1 + 1)
    torch.testing.assert_close(norm(torch.tensor([[3.0, 5.0]])), torch.tensor([[-0.5, 0.5]]))


@pytest.mark.parametrize("eps", [1e-6, 0.3, 2.0])
@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5)])
def test_values_and_gradients_are_those_of_the_formula(eps: float, shape: tuple[int, ...]):
    norm = randomised(5, eps)
    x = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    toward = torch.randn(*shape, dtype=torch.float64)
    leaves = (x, norm.weight, norm.bias)
    torch.testing.assert_close(norm(x), formula(norm, x), rtol=1e-12, atol=1e-12)
    ours = torch.autograd.grad((norm(x) * toward).sum(), leaves)
    right = torch.autograd.grad((formula(norm, x) * toward).sum(), leaves)
    for found, expected in zip(ours, right, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_gradcheck():
    norm = randomised(4, 0.5)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w, b: formula_free(norm, x, w, b), (x, norm.weight, norm.bias))


def formula_free(norm: StdLayerNorm, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The module's value as a function of its parameters too."""
    return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x,))


def test_a_constant_row_is_the_bias_and_has_finite_gradients():
    norm = randomised(4, 1e-6, torch.float32)
    x = torch.full((2, 4), 3.0, requires_grad=True)
    y = norm(x)
    torch.testing.assert_close(y, norm.bias.expand(2, 4))
    y.square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_a_usual_epsilon_makes_no_difference_on_usual_input():
    norm, usual = StdLayerNorm(64), torch.nn.LayerNorm(64, eps=1e-6)
    x = torch.randn(10, 64)
    torch.testing.assert_close(norm(x), usual(x), rtol=1e-4, atol=1e-5)


def test_it_runs_without_a_device():
    with torch.device("meta"):
        x = torch.empty(3, 4, requires_grad=True)
        norm = StdLayerNorm(4)
    norm(x).sum().backward()
    assert x.grad is not None
    assert x.grad.is_meta
