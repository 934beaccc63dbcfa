"""Block-diagonal layers and tiered embeddings as schemes: counts, combinations, training, refusals."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from sparse_bench.batch import SparseRows
from sparse_bench.batch.language import LanguageSizes
from sparse_bench.errors import ConfigError
from sparse_bench.models.awd_lstm import AWDLSTM
from sparse_bench.models.sparse_features import SparseProjection
from sparse_bench.sparsity.composite import Composite
from sparse_bench.sparsity.counting import count, multiply_accumulates
from sparse_bench.sparsity.layers.block_diagonal import BlockDiagonalLayer
from sparse_bench.sparsity.layers.tiered_embedding import TieredEmbedding
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.sparsity.schemes.block_diagonal import BlockDiagonal
from sparse_bench.sparsity.schemes.combined import Combined
from sparse_bench.sparsity.schemes.embedding_tiers import EmbeddingTiers
from sparse_bench.sparsity.schemes.random import Random
from sparse_bench.sparsity.schemes.small_dense import SmallDense
from sparse_bench.sparsity.tiers import tiers
from sparse_bench.streams import Streams


class Stack(nn.Module):
    """Embedding → recurrent layers → output."""

    def __init__(self, embedding: int, hidden: int, vocabulary: int = 12, kind: Any = nn.LSTM) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        widths = [embedding, hidden, hidden, embedding]
        self.layers = nn.ModuleList(kind(a, b) for a, b in pairwise(widths))
        self.output = nn.Linear(embedding, 3)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embedding(words)
        for layer in self.layers:
            x = layer(x)[0]
        output: Tensor = self.output(x)
        return output

    def layer_groups(self) -> dict[str, list[str]]:
        recurrent = [f"layers.{n}.weight_{kind}_l0" for n in range(3) for kind in ("ih", "hh")]
        return {"default": recurrent, "recurrent": recurrent, "embedding": ["embedding.weight"]}


def attach(scheme: Scheme, model: nn.Module, seed: int = 0) -> nn.Module:
    scheme.attach(model, Streams(seed))
    return model


def published(scheme: Scheme, hidden: int) -> AWDLSTM:
    with torch.device("meta"):
        model = AWDLSTM(LanguageSizes(10_000, tuple(range(10_000, 0, -1))), hidden=hidden)
    attach(scheme, model)
    return model


def test_parameters_of_the_published_language_model() -> None:
    scheme = BlockDiagonal(fraction=0.66666)
    model = published(scheme, hidden=1725)
    counts = count(model, scheme)
    assert counts.trainable == 23_822_900
    assert [sum(p.numel() for p in layer.parameters()) for layer in model.layers] == [6_741_300, 10_589_200, 2_482_400]
    assert counts.groups["recurrent"].size == 4 * (400 * 1725 + 1725**2 + 1725**2 + 1725**2 + 1725 * 400 + 400**2)
    biases = 2 * 4 * (1725 + 1725 + 400)
    assert counts.sparse_layers == counts.groups["recurrent"].active == 19_812_900 - biases
    assert counts.groups["recurrent_hidden"].active == 4 * (2 * 3 * 575**2 + 2 * 200**2)


def test_parameters_of_learning_to_recite_with_a_sparse_embedding() -> None:
    scheme = Combined(
        parts={
            "recurrent": BlockDiagonal(mode="sparse_all", fraction=0.5),
            "embedding": EmbeddingTiers(density=0.5, blocks=10),
        }
    )
    counts = count(published(scheme, hidden=1150), scheme)
    assert counts.trainable == 7_070_160
    assert counts.groups["embedding"].active == 2_000_000
    assert counts.sparse_layers == counts.groups["recurrent"].active + 2_000_000


def test_counts_of_a_small_stack_are_those_of_its_parameters() -> None:
    scheme = Combined(parts={"a": BlockDiagonal(fraction=0.7), "b": EmbeddingTiers(density=0.5, blocks=4)})
    model = attach(scheme, Stack(8, 20))
    counts = count(model, scheme)
    assert counts.trainable == sum(p.numel() for p in model.parameters())
    for name, weight in scheme.weights.items():
        assert weight.active == int(weight.mask.sum()) == weight.entries()[0].numel(), name
        assert weight.size == weight.mask.numel()
        assert weight.dense()[~weight.mask].eq(0).all()
    assert set(scheme.selected) == set(scheme.weights)


def test_products_are_counted_in_both_ways() -> None:
    scheme = BlockDiagonal(fraction=0.7)
    model, dense = attach(scheme, Stack(8, 20)), Stack(8, 20)
    words = torch.zeros(5, 2, dtype=torch.long)
    counts = count(model, scheme)
    macs = multiply_accumulates(model.eval(), scheme, lambda: len(model(words)) and 2)
    assert macs.sparse == 5 * (counts.sparse_layers + 8 * 3)
    assert macs.dense == 5 * (counts.sparse_layers_size + 8 * 3)
    masked = Random(density=0.5, layers=["recurrent"])
    attach(masked, dense)
    assert multiply_accumulates(dense.eval(), masked, lambda: len(dense(words)) and 2).dense == macs.dense


def test_counting_products_times_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run counts before its first step, with libraries switched off: what is fastest then need not be later."""
    monkeypatch.setattr("sparse_bench.kernels.auto._measure", lambda *_: pytest.fail("timed"))
    scheme, model = Random(density=0.5, layers=["recurrent"], execution="auto"), Stack(8, 20)
    attach(scheme, model)
    words = torch.zeros(5, 2, dtype=torch.long)
    macs = multiply_accumulates(model.eval(), scheme, lambda: len(model(words)) and 2)
    assert macs.sparse == 5 * (count(model, scheme).sparse_layers + 8 * 3)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(
    "settings",
    [
        {"fraction": 0.8},
        {"mode": "sparse_all", "fraction": 0.8},
        {"mode": "sparse_emb", "fraction": 0.8},
        {"mode": "blocks", "blocks": 2, "delta": 0.75},
    ],
)
def test_every_mode_trains(kind: Any, settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    scheme = BlockDiagonal(**settings)
    model = attach(scheme, Stack(10, 20, kind=kind))
    sparse = [isinstance(layer, BlockDiagonalLayer) for layer in model.layers]
    assert sparse == ([True, False, True] if settings.get("mode") == "sparse_emb" else [True] * 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    words = torch.randint(0, 12, (6, 4))
    losses = []
    for step in range(8):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(words).flatten(0, 1), words.flatten() % 3)
        loss.backward()
        scheme.after_backward()
        optimizer.step()
        scheme.after_step(step + 1, optimizer, Streams(0))
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for weight in scheme.weights.values():
        assert weight.dense()[~weight.mask].eq(0).all()


def test_linear_and_recurrent_layers_side_by_side() -> None:
    """Products, counts and parameters of a third of each matrix."""
    scheme = BlockDiagonal(mode="blocks", blocks=3, layers=["recurrent", "output.weight"], permute=True)
    model = attach(scheme, Stack(9, 21))
    counts = count(model, scheme)
    assert counts.sparse_layers == 4 * (9 * 7 + 7 * 21 + 7 * 21 * 2 + 3 * 21 + 3 * 9) + 9
    assert counts.trainable == sum(p.numel() for p in model.parameters())
    words = torch.randint(0, 12, (5, 2))
    macs = multiply_accumulates(model.eval(), scheme, lambda: len(model(words)) and 2)
    assert macs.sparse == 5 * counts.sparse_layers
    assert macs.dense == 5 * counts.sparse_layers_size
    for weight in scheme.weights.values():
        assert weight.active == int(weight.mask.sum()) == int((weight.dense() != 0).sum())


def test_one_block_is_the_dense_model() -> None:
    scheme = BlockDiagonal(mode="blocks", blocks=1, layers=["recurrent", "output.weight"])
    model = attach(scheme, Stack(9, 21))
    assert type(model.output) is nn.Linear
    assert not scheme.weights


def test_components_by_count_and_share() -> None:
    scheme = BlockDiagonal(mode="blocks", blocks=4, delta=0.5)
    model = attach(scheme, Stack(8, 20))
    assert all(layer.blocks.count == 4 for layer in model.layers)
    assert count(model, scheme).groups["recurrent"].active == 4 * (
        8 * 20 // 2 + 20 * 20 // 4 + 20 * 20 // 2 + 20 * 20 // 4 + 20 * 8 // 2 + 8 * 8 // 4
    )


def test_the_directions_of_a_layer_are_no_stack() -> None:
    class Directions(Stack):
        def recurrent_stacks(self) -> list[list[str]]:
            return [["layers.0"], ["layers.1"], ["layers.2"]]

    with pytest.raises(ConfigError, match=r"fraction 0\.7\) removes no weight.*for one layer use sparsity\.mode="):
        attach(BlockDiagonal(fraction=0.7), Directions(8, 20))
    scheme = BlockDiagonal(mode="sparse_all", fraction=0.7)
    attach(scheme, Directions(8, 20))
    assert {type(weight.owner) for weight in scheme.weights.values()} == {BlockDiagonalLayer}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs fraction"),
        ({"fraction": 0.5, "blocks": 3}, "does not use blocks and delta"),
        ({"fraction": 0.5, "delta": 0.5}, "does not use blocks and delta"),
        ({"mode": "blocks", "fraction": 0.5, "blocks": 3, "delta": 0.5}, "does not use fraction"),
        ({"mode": "blocks", "delta": 0.5}, "needs blocks, and does not use fraction"),
        ({"mode": "blocks", "blocks": 3, "delta": 0.3}, "between 1/3"),
        ({"mode": "blocks", "blocks": 0, "delta": 1.0}, "at least 1"),
        ({"mode": "sparse", "fraction": 0.5}, "blocks, sparse_all, sparse_emb, sparse_hidden"),
        ({"fraction": 1.5}, "at most 1"),
        ({"fraction": 0.5, "density": 0.5}, "has no density"),
        ({"fraction": 0.5, "execution": "csr"}, "remove sparsity.execution"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BlockDiagonal(**settings)


def test_layers_that_cannot_be_replaced() -> None:
    with pytest.raises(ConfigError, match=r"'embedding.weight' belongs to a Embedding.*Groups that fit: default, rec"):
        attach(BlockDiagonal(fraction=0.7, layers=["embedding"]), Stack(8, 20))
    with pytest.raises(ConfigError, match=r"'0.in_proj_weight' belongs to a Multi.* matrices that fit: 1.weight\."):
        attach(
            BlockDiagonal(mode="blocks", blocks=2, layers=["*"]),
            nn.Sequential(nn.MultiheadAttention(4, 2), nn.Linear(4, 4)),
        )
    for settings in ({"fraction": 0.7}, {"mode": "blocks", "blocks": 2, "delta": 0.8}):
        with pytest.raises(ConfigError, match=r"Linear layers \(output\) need sparsity.mode=blocks and delta=null"):
            attach(BlockDiagonal(**settings, layers=["output.*"]), Stack(8, 20))
    with pytest.raises(ConfigError, match=r"8→3 cannot be cut into 4 blocks"):
        attach(BlockDiagonal(mode="blocks", blocks=4, layers=["output.*"]), Stack(8, 20))
    with pytest.raises(ConfigError, match=r"layers.0.weight_hh_l0 is not selected"):
        attach(BlockDiagonal(fraction=0.7, layers=["*.weight_ih_l0"]), Stack(8, 20))
    with pytest.raises(ConfigError, match="belongs to a LSTM"):
        attach(EmbeddingTiers(density=0.5, layers=["recurrent"]), Stack(8, 20))
    with pytest.raises(ConfigError, match=r"tables of words or features, and 'output.weight' belongs to a Linear"):
        attach(EmbeddingTiers(density=0.5, layers=["output.*"]), Stack(8, 20))
    tied = Stack(8, 20)
    tied.decoder = nn.Linear(8, 12)
    tied.decoder.weight = tied.embedding.weight
    with pytest.raises(ConfigError, match=r"which is also used as embedding.weight"):
        attach(BlockDiagonal(mode="blocks", blocks=2, layers=["decoder"]), DecoderFirst(tied))
    model = attach(EmbeddingTiers(density=0.5), Stack(8, 20))
    with pytest.raises(ConfigError, match="no weight matrix"):
        attach(EmbeddingTiers(density=0.5), model)


def test_a_predefined_topology_is_not_rewired() -> None:
    scheme = EmbeddingTiers(density=0.5, blocks=4)
    attach(scheme, Stack(8, 20))
    weight = scheme.weights["embedding.weight"]
    nothing = torch.zeros(0, dtype=torch.long)
    with pytest.raises(ConfigError, match="predefined"):
        weight.rewire(nothing, nothing, torch.zeros(0), None)
    with pytest.raises(ConfigError, match="predefined"):
        weight.keep_dense_gradient(True)
    weight.keep_dense_gradient(False)
    assert weight.dense_gradient() is None


class DecoderFirst(nn.Module):
    """A model in which the shared matrix belongs to the decoder first."""

    def __init__(self, tied: Stack) -> None:
        super().__init__()
        self.decoder, self.embedding = tied.decoder, tied.embedding

    def layer_groups(self) -> dict[str, list[str]]:
        return {"decoder": ["decoder.weight"]}


class Words(nn.Module):
    """An embedding whose words have frequencies."""

    def __init__(self, frequencies: tuple[int, ...] | None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 4)
        if frequencies is not None:
            self.word_frequencies = frequencies

    def layer_groups(self) -> dict[str, list[str]]:
        return {"embedding": ["embedding.weight"]}


def lengths(order: str, frequencies: tuple[int, ...] | None, seed: int = 0) -> list[int]:
    """Length of each word's vector; two of four columns exist for all words and two for one: 2 · 4 + 2 · 1."""
    scheme = EmbeddingTiers(density=10 / 16, blocks=2, order=order)
    attach(scheme, Words(frequencies), seed)
    found: list[int] = scheme.weights["embedding.weight"].mask.sum(dim=1).tolist()
    return found


def test_orders() -> None:
    assert tiers(4, 4, 10 / 16, 2).rows == (4, 1)
    assert lengths("up", (1, 5, 9, 2)) == [2, 2, 4, 2]  # the most frequent word has the long vector
    assert lengths("down", (1, 5, 9, 2)) == [4, 2, 2, 2]
    assert lengths("up", None) == [4, 2, 2, 2]  # numbered from the most frequent on
    assert lengths("down", None) == [2, 2, 2, 4]
    assert sorted(lengths("rand", None)) == [2, 2, 2, 4]
    assert len({tuple(lengths("rand", None, seed)) for seed in range(12)}) > 1
    assert lengths("rand", None, 5) == lengths("rand", None, 5)
    assert lengths("up", (3, 3, 3, 3)) == [2, 2, 2, 4]  # equals stand in the order of their numbers
    with pytest.raises(ConfigError, match="frequencies of 3 words and an embedding of 4"):
        lengths("up", (1, 2, 3))


@pytest.mark.parametrize("order", ["up", "down"])
def test_many_equally_frequent_words_stand_in_the_order_of_their_numbers(order: str) -> None:
    model = nn.Module()
    model.embedding = nn.Embedding(200, 4)
    model.word_frequencies = (3,) * 200
    scheme = EmbeddingTiers(density=0.5, blocks=4, order=order, layers=["embedding.weight"])
    attach(scheme, model)
    found = scheme.weights["embedding.weight"].mask.sum(dim=1).tolist()
    assert found == sorted(found)
    assert len(set(found)) > 2


def test_density_one_leaves_the_embedding_alone() -> None:
    scheme = EmbeddingTiers(density=1.0)
    model = attach(scheme, Stack(8, 20))
    assert type(model.embedding) is nn.Embedding
    assert count(model, scheme).density == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": "sideways"}, "down, rand, up"),
        ({"density": 0.04}, "between 1/blocks and 1"),
        ({"blocks": 0}, "at least 1"),
    ],
)
def test_tier_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EmbeddingTiers(**settings)


def test_combined_schemes_act_side_by_side_and_resume() -> None:
    def made() -> tuple[Combined, nn.Module]:
        parts = {"tiers": EmbeddingTiers(density=0.5, blocks=4), "random": Random(density=0.5, layers=["recurrent"])}
        scheme = Combined(parts=parts)
        torch.manual_seed(0)
        return scheme, attach(scheme, Stack(8, 20))

    scheme, model = made()
    assert isinstance(model.embedding, TieredEmbedding)
    words = torch.randint(0, 12, (6, 4))
    model(words).sum().backward()
    scheme.after_backward()
    for name in scheme.parts["random"].weights:
        weight = scheme.weights[name]
        assert model.get_parameter(name).grad[~weight.mask].eq(0).all()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    other, resumed = made()
    resumed.load_state_dict(model.state_dict())
    other.load_state_dict(scheme.state_dict())
    assert torch.equal(resumed(words), model(words))
    assert count(resumed, other) == count(model, scheme)


def test_combinations_that_do_not_fit() -> None:
    tiered = EmbeddingTiers(density=0.5)
    with pytest.raises(ConfigError, match=r"sparsity.parts.b selects embedding.weight"):
        attach(Combined(parts={"a": tiered, "b": Random(layers=["embedding"])}), Stack(8, 20))
    with pytest.raises(ConfigError, match="names no scheme"):
        Combined(parts={})
    with pytest.raises(ConfigError, match=r"sparsity.parts.a is not a scheme"):
        Combined(parts={"a": 1})
    with pytest.raises(ConfigError, match="builds another model"):
        Combined(parts={"a": SmallDense(density=0.5)})
    with pytest.raises(ConfigError, match="belong to the parts"):
        Combined(density=0.5, parts={"a": tiered})


def test_masked_recurrent_weights_stay_zero_under_weight_drop() -> None:
    """Random sparsity on an ordinary LSTM whose recurrent weights are dropped for the call."""
    torch.manual_seed(0)
    model = Stack(8, 20)
    scheme = Random(density=0.3, layers=["recurrent"])
    attach(scheme, model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x = torch.randn(5, 2, 8)
    layer = model.layers[0]
    before = layer.weight_hh_l0.detach().clone()
    for step in range(5):
        dropped = nn.functional.dropout(layer.weight_hh_l0, 0.5)
        optimizer.zero_grad()
        functional_call(layer, {"weight_hh_l0": dropped}, (x,))[0].square().sum().backward()
        scheme.after_backward()
        optimizer.step()
        scheme.after_step(step + 1, optimizer, Streams(0))
    mask = scheme.weights["layers.0.weight_hh_l0"].mask
    assert layer.weight_hh_l0[~mask].eq(0).all()
    assert not torch.equal(layer.weight_hh_l0, before)


def test_a_combination_passes_on_everything_that_a_scheme_may_do() -> None:
    """A method that schemes can override and combinations forget would do nothing, without a word."""
    of_a_combination = {"build", "attach", "matrices", "install", "missing", "reached"}  # from its parts' weights
    methods = {name for name, value in vars(Scheme).items() if not name.startswith("_") and callable(value)}
    assert methods - of_a_combination <= set(vars(Composite))
    assert issubclass(Combined, Composite)


class Tables(nn.Module):
    """Every kind of table: shared with a decoder, a bag, a projection of sparse rows, a linear layer of features."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.decoder = nn.Embedding(4, 4), nn.Linear(4, 4)
        self.decoder.weight = self.shared.weight
        self.bag = nn.EmbeddingBag(4, 4, mode="sum")
        self.projection = SparseProjection(4, 4)
        self.linear = nn.Linear(4, 4)
        self.word_frequencies = {f"{name}.weight": (1, 5, 9, 2) for name in ("shared", "bag", "projection", "linear")}

    def layer_groups(self) -> dict[str, list[str]]:
        return {"embedding": [*self.word_frequencies]}

    def forward(self) -> Tensor:
        words = torch.arange(4)
        rows = SparseRows(words, words, torch.ones(4))
        found: Tensor = self.decoder(self.shared(words)) + self.bag(words, words)
        return found + self.projection(rows) + self.linear(torch.eye(4))


def test_tables_that_are_no_plain_embeddings_keep_the_full_matrix_with_zeros() -> None:
    """Words have 2, 2, 4, 2 columns, see test_orders: rows of tables, and columns of the linear layer."""
    torch.manual_seed(0)
    scheme = EmbeddingTiers(density=10 / 16, blocks=2)
    model = attach(scheme, Tables())
    assert count(model, scheme).sparse_layers == 4 * 10
    expected = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    before = {name: weight.dense().clone() for name, weight in scheme.weights.items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(3):
        optimizer.zero_grad()
        model().square().sum().backward()
        scheme.after_backward()
        optimizer.step()
        scheme.after_step(step + 1, optimizer, Streams(0))
    assert model.decoder.weight is model.shared.weight
    for name, weight in scheme.weights.items():
        assert torch.equal(weight.mask, expected.t() if name == "linear.weight" else expected), name
        assert torch.equal(weight.dense() != 0, weight.mask), name
        assert not torch.equal(weight.dense(), before[name]), name


def test_a_linear_layer_without_known_features_is_no_table() -> None:
    model = Tables()
    del model.word_frequencies["linear.weight"]
    with pytest.raises(ConfigError, match=r"'linear.weight' belongs to a Linear"):
        attach(EmbeddingTiers(density=10 / 16, blocks=2, layers=["linear.weight"]), model)
    assert not [name for name, _ in model.named_buffers()]
