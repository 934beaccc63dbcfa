"""Layers with row-sparse gradients compute what the layers that they replace compute, forward and backward."""

import pytest
import torch
from torch import Tensor, nn

from sparse_bench.errors import ConfigError
from sparse_bench.row_sparse import RowSparseLayer, TouchedRows, gradients, make_row_sparse, tables
from sparse_bench.sparsity.layers import tiered_embedding
from sparse_bench.sparsity.layers.tiered_embedding import TieredEmbedding
from sparse_bench.sparsity.tiers import tiers

WORDS = torch.tensor([[4, 1, 4], [0, 7, 1]])


@pytest.fixture(params=["host sees the numbers", "host does not"])
def sight(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    sees = request.param == "host sees the numbers"
    if not sees:
        for module in (gradients, tiered_embedding):
            monkeypatch.setattr(module, "readable_without_wait", lambda tensor: False)
    return sees


def both(layer: nn.Module, *arguments: Tensor | None) -> tuple[nn.Module, nn.Module]:
    """The layer as it was and with row-sparse gradients, after a backward pass with the same random output gradient."""
    found = []
    for sparse in (False, True):
        model = nn.Sequential(layer)
        if sparse:
            make_row_sparse(model, "0.weight", exact=False)
        output = model[0](*arguments)
        torch.manual_seed(1)
        layer.zero_grad()
        output.backward(torch.randn_like(output))
        found.append((output.detach(), layer.weight.grad))
    (output, grad), (row_output, row_grad) = found
    assert torch.equal(output, row_output)
    assert not grad.is_sparse
    assert row_grad.is_sparse
    torch.testing.assert_close(row_grad.to_dense(), grad)
    return row_grad


@pytest.mark.parametrize("padding", [None, 1])
def test_embedding(padding: int | None, sight: bool) -> None:
    grad = both(nn.Embedding(9, 3, padding_idx=padding), WORDS)
    assert grad._indices().tolist() == [[0, 1, 4, 7]] if sight else [WORDS.flatten().tolist()]


@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("offsets", [None, torch.tensor([0, 4]), torch.tensor([0, 2, 2, 5])])
def test_embedding_bag(mode: str, offsets: Tensor | None, sight: bool) -> None:
    words = WORDS if offsets is None else WORDS.flatten()
    both(nn.EmbeddingBag(9, 3, mode=mode), words, offsets)


def test_embedding_bag_with_factors(sight: bool) -> None:
    both(nn.EmbeddingBag(9, 3, mode="sum"), WORDS.flatten(), torch.tensor([0, 4]), torch.rand(6))
    layer = nn.EmbeddingBag(9, 3, mode="sum")
    make_row_sparse(nn.Sequential(layer), "0.weight", exact=True)
    with pytest.raises(ConfigError, match="cannot train per_sample_weights"):
        layer(WORDS.flatten(), torch.tensor([0, 4]), torch.rand(6, requires_grad=True))


@pytest.mark.parametrize("padding", [None, 4])
def test_tiered_embedding(padding: int | None, sight: bool) -> None:
    """Nine words in an arbitrary order, six columns in three blocks that 9, 5 and 2 words have."""
    geometry = tiers(9, 6, 0.6, 3)
    assert len(geometry.widths) == 3
    assert len(set(geometry.starts)) == 3
    place = torch.tensor([3, 8, 0, 5, 7, 1, 2, 4, 6])
    grad = both(TieredEmbedding(nn.Embedding(9, 6, padding_idx=padding), geometry, place), WORDS)
    indices = grad._indices()[0]
    if sight:
        assert bool((indices[1:] > indices[:-1]).all()), "in order, so that nobody has to sort them"
    if padding is None:  # the lazy form steps all that is named
        assert set(indices.tolist()) == set(grad.to_dense().nonzero().flatten().tolist())


def test_without_gradient_nothing_is_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Embedding(9, 3)
    make_row_sparse(nn.Sequential(layer), "0.weight", exact=True)
    monkeypatch.setattr(TouchedRows, "of", lambda indices: pytest.fail("sorted"))
    with torch.no_grad():
        layer(WORDS)


def test_the_reader_is_told_which_rows_before_they_are_read() -> None:
    layer = nn.EmbeddingBag(9, 3, mode="sum")
    make_row_sparse(nn.Sequential(layer), "0.weight", exact=True)
    assert isinstance(layer, RowSparseLayer)
    told = []

    def before_read(read: Tensor) -> None:
        told.append(read.tolist())
        with torch.no_grad():
            layer.weight[read] = 1.0

    layer.before_read = before_read
    assert torch.equal(layer(WORDS), torch.full((2, 3), 3.0))
    layer.eval()
    with torch.no_grad():
        layer(WORDS)
    assert told == [[0, 1, 4, 7]] * 2


def test_what_has_no_row_sparse_gradient() -> None:
    model = nn.Sequential(nn.Embedding(9, 3), nn.Linear(3, 9, bias=False))
    assert tables(model) == ["0.weight"]
    with pytest.raises(ConfigError, match=r"used by '1' \(Linear\).*Embedding tables of this model: 0.weight"):
        make_row_sparse(model, "1.weight", exact=True)
    model[1].weight = model[0].weight
    with pytest.raises(ConfigError, match=r"'0.weight' is used by '1' \(Linear\).*Untie it"):
        make_row_sparse(model, "0.weight", exact=True)
    assert type(model[0]) is nn.Embedding, "nothing was changed"
    refused = [
        nn.Embedding(9, 3, max_norm=1.0),
        nn.Embedding(9, 3, scale_grad_by_freq=True),
        nn.EmbeddingBag(9, 3, mode="max"),
        nn.EmbeddingBag(9, 3, padding_idx=1),
        nn.EmbeddingBag(9, 3, include_last_offset=True),
        type("Own", (nn.Embedding,), {})(9, 3),
    ]
    for layer, reason in zip(
        refused, ("max_norm", "scale_grad", "mode='max'", "padding_idx", "include_last", "its class Own"), strict=True
    ):
        with pytest.raises(ConfigError, match=reason):
            make_row_sparse(nn.Sequential(layer), "0.weight", exact=True)


def test_layers_that_share_a_table_share_the_gradient() -> None:
    model = nn.Sequential(nn.Embedding(9, 3), nn.EmbeddingBag(9, 3, mode="sum"))
    model[1].weight = model[0].weight
    make_row_sparse(model, "0.weight", exact=True)
    (model[0](WORDS).sum() + model[1](WORDS).sum()).backward()
    expected = torch.bincount(WORDS.flatten(), minlength=9)[:, None] * 2.0
    assert torch.equal(model[0].weight.grad.to_dense(), expected.expand(9, 3))
