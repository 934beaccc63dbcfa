"""A tiered embedding equals a dense one with zeros in it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.layers.tiered_embedding import TieredEmbedding
from sparse_bench.sparsity.tiers import Tiers, tiers

V, D = 30, 8


def made(density: float = 0.4, **settings: int) -> tuple[TieredEmbedding, nn.Embedding]:
    """A tiered embedding, and the dense one with the same entries."""
    torch.manual_seed(0)
    dense = nn.Embedding(V, D, **settings).double()
    tiered = TieredEmbedding(dense, tiers(V, D, density, 4), torch.randperm(V))
    with torch.no_grad():
        dense.weight.mul_(tiered.topology("weight"))
    return tiered, dense


@pytest.mark.parametrize("density", [0.25, 0.4, 0.9])
def test_vectors_and_gradients_equal_the_dense_ones(density: float) -> None:
    tiered, dense = made(density)
    words = torch.randint(0, V, (5, 7))
    weights = torch.randn(5, 7, D, dtype=torch.double)
    torch.testing.assert_close(tiered(words), dense(words))
    (tiered(words) * weights).sum().backward()
    (dense(words) * weights).sum().backward()
    mask = tiered.topology("weight")
    expected = TieredEmbedding(nn.Embedding(V, D, _weight=dense.weight.grad * mask), tiered.tiers, tiered.place)
    torch.testing.assert_close(tiered.weight.grad, expected.weight.detach())


def test_a_tied_decoder_and_its_gradient() -> None:
    tiered, dense = made()
    hidden = torch.randn(6, D, dtype=torch.double)
    weights = torch.randn(6, V, dtype=torch.double)
    torch.testing.assert_close(tiered.dense_weight(), dense.weight.detach())
    (F.linear(hidden, tiered.dense_weight()) * weights).sum().backward()
    (F.linear(hidden, dense.weight) * weights).sum().backward()
    whole = TieredEmbedding(nn.Embedding(V, D, _weight=dense.weight.grad), tiered.tiers, tiered.place)
    torch.testing.assert_close(tiered.weight.grad, whole.weight.detach())


def test_the_last_words_in_order_have_the_long_vectors() -> None:
    geometry = Tiers(vocabulary=4, starts=(0, 1, 3), widths=(2, 1, 1))
    place = torch.tensor([3, 0, 2, 1])
    tiered = TieredEmbedding(nn.Embedding(4, 4), geometry, place)
    assert tiered.topology("weight").sum(dim=1).tolist() == [4, 2, 3, 3]
    assert torch.equal(tiered.full("weight") != 0, tiered.topology("weight"))
    assert tiered.weight.numel() == 8 + 3 + 1
    assert torch.equal(tiered(torch.tensor(1))[2:], torch.zeros(2))


def test_padding_gets_no_gradient() -> None:
    tiered, _ = made(padding_idx=3)
    tiered(torch.tensor([3, 3, 5])).sum().backward()
    gradient = TieredEmbedding.dense_weight(tiered)
    (moved,) = torch.autograd.grad(gradient[3].sum(), tiered.weight)
    assert (tiered.weight.grad * moved).abs().sum() == 0
    assert tiered.weight.grad.abs().sum() > 0


def test_the_order_is_part_of_the_state() -> None:
    tiered, dense = made()
    other = TieredEmbedding(nn.Embedding(V, D).double(), tiered.tiers, torch.arange(V))
    other.load_state_dict(tiered.state_dict())
    assert torch.equal(other.dense_weight(), dense.weight)


@pytest.mark.parametrize("settings", [{"max_norm": 1.0}, {"sparse": True}, {"scale_grad_by_freq": True}])
def test_what_cannot_be_replaced(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="cannot be tiered"):
        TieredEmbedding(nn.Embedding(V, D, **settings), tiers(V, D, 0.5, 4), torch.arange(V))  # type: ignore[arg-type]
