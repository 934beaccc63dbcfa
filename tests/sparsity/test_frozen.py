"""Layers that a model keeps at their first weights are not trained under any scheme and way of computing."""

import pytest
import torch

from sparse_bench.batch.language import LanguageSizes
from sparse_bench.errors import ConfigError
from sparse_bench.kernels import EXECUTIONS
from sparse_bench.models.lstm_lm import LSTMLM
from sparse_bench.sparsity.counting import count
from sparse_bench.sparsity.dynamics.scheme import Dynamic
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.sparsity.schemes.block_diagonal import BlockDiagonal
from sparse_bench.sparsity.schemes.dense import Dense
from sparse_bench.sparsity.schemes.embedding_tiers import EmbeddingTiers
from sparse_bench.sparsity.schemes.gmp import GMP
from sparse_bench.sparsity.schemes.random import Random
from sparse_bench.sparsity.schemes.rigl import RigL
from sparse_bench.sparsity.schemes.set import SET
from sparse_bench.streams import Streams

SIZES = LanguageSizes(vocabulary=11, frequencies=tuple(range(11, 0, -1)))
VOCABULARY, EMBEDDING, HIDDEN = 11, 8, 16
#: Embedding, and head with its bias.
OUTSIDE = VOCABULARY * EMBEDDING + (HIDDEN + 1) * VOCABULARY

SCHEMES: list[Scheme] = [
    Dense(),
    *(Random(density=0.5, execution=execution) for execution in EXECUTIONS),
    GMP(density=0.5, execution="masked"),
    GMP(density=0.5, execution="csr"),
    BlockDiagonal(mode="blocks", blocks=2, delta=0.5),
]


def of_kind(scheme: Scheme) -> str:
    return f"{type(scheme).__name__}-{scheme.execution}"


def model_under(scheme: Scheme, recurrence: str) -> LSTMLM:
    torch.manual_seed(0)
    model = LSTMLM(SIZES, embedding_dim=EMBEDDING, hidden=HIDDEN, recurrence=recurrence)
    scheme.attach(model, Streams(0))
    return model


@pytest.mark.parametrize("scheme", SCHEMES, ids=of_kind)
def test_frozen_layers_are_neither_trained_nor_counted(scheme: Scheme) -> None:
    model = model_under(scheme, "frozen")
    if isinstance(scheme, Dynamic):
        pruned = 0.4 if scheme.dynamics.pruning is not None else None  # another number of weights: another parameter
        scheme.rewire(0.5, None, Streams(0), density=pruned)
    assert not any(parameter.requires_grad for parameter in model.layers.parameters())
    model(torch.randint(VOCABULARY, (3, 2)), None).logits.sum().backward()
    assert all(parameter.grad is None for parameter in model.layers.parameters())
    counts = count(model, scheme)
    assert counts.trainable == OUTSIDE
    assert counts.sparse_layers_frozen == counts.sparse_layers > 0


@pytest.mark.parametrize("scheme", SCHEMES, ids=of_kind)
def test_of_trained_layers_the_second_bias_alone_is_frozen(scheme: Scheme) -> None:
    model = model_under(scheme, "trained")
    frozen = {name.rpartition(".")[2] for name, p in model.layers.named_parameters() if not p.requires_grad}
    assert frozen == {"bias_hh_l0"}
    counts = count(model, scheme)
    assert counts.trainable == OUTSIDE + counts.sparse_layers + 2 * 4 * HIDDEN
    assert counts.sparse_layers_frozen == 0


@pytest.mark.parametrize("scheme", [SET(density=0.5), RigL(density=0.5, execution="csr")], ids=of_kind)
def test_nothing_grows_where_nothing_learns(scheme: Scheme) -> None:
    with pytest.raises(ConfigError, match=r"have to be trained, and the model freezes layers\.0\.weight_ih_l0, "):
        model_under(scheme, "frozen")


def test_a_frozen_embedding_stays_frozen_in_tiers() -> None:
    model = LSTMLM(SIZES, embedding_dim=EMBEDDING, hidden=HIDDEN)
    model.embedding.weight.requires_grad_(False)
    scheme = EmbeddingTiers(density=0.5)
    scheme.attach(model, Streams(0))
    assert not any(parameter.requires_grad for parameter in model.embedding.parameters())
    assert count(model, scheme).sparse_layers_frozen == count(model, scheme).sparse_layers
