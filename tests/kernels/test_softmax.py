"""The bits of torch's softmax."""

import pytest
import torch

from sparse_bench.kernels.softmax import softmax


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [(1,), (17,), (700, 5), (40, 3, 33)])
@pytest.mark.parametrize("width", range(1, 18))
def test_value_and_gradient_have_the_bits_of_torch(width: int, rows: tuple[int, ...], threads: int) -> None:
    torch.manual_seed(width)
    x = torch.randn(*rows, width) * 4
    x[..., -1] += torch.where(torch.rand(rows) < 0.3, -1e9, 0.0)
    x[0] -= 1e9
    x[-1] *= 20
    x.requires_grad_()
    earlier = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ours, theirs = softmax(x), x.softmax(-1)
        weights = torch.randn_like(ours)
        assert torch.equal(ours, theirs)
        assert torch.equal(*(torch.autograd.grad(y, x, weights)[0] for y in (ours, theirs)))
    finally:
        torch.set_num_threads(earlier)


def test_strided_rows_and_the_second_derivative() -> None:
    x = torch.randn(7, 5).t().requires_grad_()
    assert torch.equal(softmax(x), x.softmax(-1))
    (first,) = torch.autograd.grad(softmax(x)[:, 0].sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad(x.softmax(-1)[:, 0].sum(), x, create_graph=True)
    torch.testing.assert_close(
        torch.autograd.grad(first.square().sum(), x), torch.autograd.grad(expected.square().sum(), x)
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_and_devices(dtype: torch.dtype) -> None:
    x = torch.randn(3, 5, dtype=dtype)
    assert torch.equal(softmax(x), x.softmax(-1))
    assert softmax(x.to("meta")).shape == (3, 5)
