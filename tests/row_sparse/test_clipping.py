"""Clipping by the joint norm of dense gradients and of row-sparse ones."""

import pytest
import torch
from torch import nn

from sparse_bench.row_sparse import clip_gradient_norm, gradients, make_row_sparse


def model(sparse: bool, passes: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Embedding(50, 4), nn.Linear(4, 3))
    if sparse:
        make_row_sparse(made, "0.weight", exact=True)
    for number in range(passes):
        made(torch.tensor([3, 7, 3, 3, 49, number])).square().sum().backward()
    return made


@pytest.mark.parametrize("host", [True, False])
@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("limit", [0.1, 1e6])
def test_sparse_gradients_are_clipped_like_dense_ones(
    limit: float, passes: int, host: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not host:
        monkeypatch.setattr(gradients, "readable_without_wait", lambda tensor: False)
    dense, sparse = model(False, passes), model(True, passes)
    expected = nn.utils.clip_grad_norm_(dense.parameters(), limit)
    torch.testing.assert_close(clip_gradient_norm(sparse.parameters(), limit), expected)
    for one, other in zip(dense.parameters(), sparse.parameters(), strict=True):
        torch.testing.assert_close(other.grad.to_dense(), one.grad)


def test_dense_gradients_are_clipped_by_torch_itself() -> None:
    one, other = model(False), model(False)
    assert torch.equal(nn.utils.clip_grad_norm_(one.parameters(), 0.1), clip_gradient_norm(other.parameters(), 0.1))
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(first.grad, second.grad)


def test_a_repeated_row_counts_with_its_sum() -> None:
    """Three tokens of one word with gradient (1, 0) have the norm 3, not √3."""
    made = nn.Sequential(nn.Embedding(5, 2))
    make_row_sparse(made, "0.weight", exact=True)
    made(torch.tensor([2, 2])).backward(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    made(torch.tensor([2])).backward(torch.tensor([[1.0, 0.0]]))
    assert clip_gradient_norm(made.parameters(), 1.5).item() == 3.0
    assert made[0].weight.grad.to_dense()[2].tolist() == pytest.approx([1.5, 0.0], abs=1e-5)
