"""The bag of embeddings against sums by hand."""

import pytest
import torch
from torch import Tensor

from sparse_bench.batch.text import TextBatch, TextSizes
from sparse_bench.errors import ConfigError
from sparse_bench.models.bag_of_embeddings import BagOfEmbeddings

SIZES = TextSizes(vocabulary=3, frequencies=(0, 2, 1), types=2)
#: Two texts: the words 1, 2, 1; and the word 2.
BATCH = TextBatch(words=torch.tensor([1, 2, 1, 2]), offsets=torch.tensor([0, 3]), types=torch.tensor([0, 1]))
E = torch.tensor([[9.0, 9.0], [1.0, 2.0], [3.0, -4.0]])
M = torch.tensor([[9.0, 9.0], [0.5, 1.0], [2.0, 0.25]])


def model(pooling: str) -> BagOfEmbeddings:
    made = BagOfEmbeddings(SIZES, embedding_dim=2, pooling=pooling)
    with torch.no_grad():
        made.embedding.weight.copy_(E)
        if made.mask is not None:
            made.mask.weight.copy_(M)
    return made


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        # (1, 2)·(.5, 1) twice, and (3, −4)·(2, .25) = (6, −1) once: (.5 + 6 + .5, 2 − 1 + 2)
        ("masked_sum", [[7.0, 3.0], [6.0, -1.0]]),
        ("sum", [[5.0, 0.0], [3.0, -4.0]]),
        ("mean", [[5 / 3, 0.0], [3.0, -4.0]]),
    ],
)
def test_vectors_by_hand(pooling: str, expected: list[list[float]]) -> None:
    torch.testing.assert_close(model(pooling).encode(BATCH), torch.tensor(expected))


def test_the_mask_starts_at_one_so_the_masked_sum_starts_as_the_sum() -> None:
    made = BagOfEmbeddings(SIZES, embedding_dim=2)
    assert made.mask is not None
    assert torch.equal(made.mask.weight, torch.ones(3, 2))
    plain = model("sum")
    with torch.no_grad():
        plain.embedding.weight.copy_(made.embedding.weight)
    torch.testing.assert_close(made.encode(BATCH), plain.encode(BATCH))


def test_the_order_of_words_does_not_matter_and_scores_are_linear() -> None:
    made = model("masked_sum")
    reordered = TextBatch(words=torch.tensor([2, 1, 1, 2]), offsets=BATCH.offsets, types=BATCH.types)
    torch.testing.assert_close(made(reordered), made(BATCH))
    weight, bias = made.classifier.weight, made.classifier.bias
    expected: Tensor = torch.tensor([[7.0, 3.0], [6.0, -1.0]]) @ weight.t() + bias
    torch.testing.assert_close(made(BATCH), expected)


def test_gradients_of_both_tables_by_hand() -> None:
    """d/dE = M and d/dM = E for every occurrence of a word."""
    made = model("masked_sum")
    made.encode(BATCH).sum().backward()
    assert made.mask is not None
    counts = torch.tensor([[0.0], [2.0], [2.0]])
    torch.testing.assert_close(made.embedding.weight.grad, counts * M)
    torch.testing.assert_close(made.mask.weight.grad, counts * E)


def test_groups_and_settings() -> None:
    groups = model("masked_sum").layer_groups()
    assert groups["default"] == groups["embedding"] == ["embedding.weight", "mask.weight"]
    assert model("mean").layer_groups()["embedding"] == ["embedding.weight"]
    assert BagOfEmbeddings.widths({"embedding_dim": 3})[-1] == {"embedding_dim": 3}
    with pytest.raises(ConfigError, match="masked_sum, mean, sum"):
        BagOfEmbeddings(SIZES, pooling="max")
    with pytest.raises(ConfigError, match="at least 1"):
        BagOfEmbeddings(SIZES, embedding_dim=0)
