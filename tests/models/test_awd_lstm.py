from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.batch.language import LanguageSizes
from sparse_bench.errors import ConfigError
from sparse_bench.models.awd_lstm import AWDLSTM

SIZES = LanguageSizes(11, tuple(range(11, 0, -1)))
PLAIN = {f"dropout{part}": 0.0 for part in ("", "_hidden", "_input", "_words")} | {"weight_drop": 0.0}


def make(**settings: Any) -> AWDLSTM:
    torch.manual_seed(0)
    return AWDLSTM(SIZES, **{"embedding_dim": 5, "hidden": 7, **settings})


@pytest.fixture
def inputs() -> Tensor:
    return torch.randint(0, 11, (6, 3), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("vocabulary", "embedding_dim", "hidden", "expected"),
    [
        (10000, 400, 1150, 24_221_600),  # the paper
        (5000, 100, 288, 1_776_136),
        (10000, 200, 575, 7_068_300),
        (6786, 50, 144, 665_222),
        (6786, 100, 288, 1_956_522),
    ],
)
def test_number_of_parameters(vocabulary: int, embedding_dim: int, hidden: int, expected: int) -> None:
    with torch.device("meta"):
        model = AWDLSTM(LanguageSizes(vocabulary, ()), embedding_dim=embedding_dim, hidden=hidden)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_without_regularisation_it_is_three_lstms_and_a_tied_decoder(inputs: Tensor) -> None:
    model = make(**PLAIN)
    h = F.embedding(inputs, model.embedding.weight)
    states = []
    for layer in model.layers:
        h, state = layer(h)
        states.append(state)
    output = model(inputs, None)
    assert torch.allclose(output.logits, h @ model.embedding.weight.t() + model.decoder_bias)
    assert output.logits.shape == (6, 3, 11)
    for (hidden, cell), (expected_hidden, expected_cell) in zip(output.state, states, strict=True):
        assert torch.equal(hidden, expected_hidden)
        assert torch.equal(cell, expected_cell)
    assert [state[0].shape[-1] for state in output.state] == [7, 7, 5]


def test_the_state_continues_the_streams(inputs: Tensor) -> None:
    model = make().eval()
    whole = model(inputs, None).logits
    first = model(inputs[:4], None)
    second = model(inputs[4:], first.state)
    assert torch.allclose(torch.cat([first.logits, second.logits]), whole, atol=1e-6)


def test_penalties_by_hand(inputs: Tensor) -> None:
    """α on the output after dropout, β on the differences over time before it."""
    model = make(**{**PLAIN, "dropout": 0.5}, activation_penalty=2.0, temporal_penalty=1.0)
    seen: list[Tensor] = []
    model.layers[-1].register_forward_hook(lambda module, args, output: seen.append(output[0].detach()))
    model.output_dropout.register_forward_hook(lambda module, args, output: seen.append(output.detach()))
    penalties = model(inputs, None).penalties
    raw, dropped = seen
    elements = 6 * 3 * 5
    assert penalties["activation"].item() == pytest.approx(2.0 * (dropped**2).sum().item() / elements, rel=1e-5)
    changes = raw[1:] - raw[:-1]
    assert penalties["temporal"].item() == pytest.approx((changes**2).sum().item() / (5 * 3 * 5), rel=1e-5)
    assert (dropped == 0).any()
    assert not (raw == 0).any()


def test_penalties_of_nothing_and_outside_training(inputs: Tensor) -> None:
    assert make().eval()(inputs, None).penalties == {}
    assert make(activation_penalty=0.0, temporal_penalty=0.0)(inputs, None).penalties == {}
    assert set(make()(inputs[:1], None).penalties) == {"activation"}  # one step has no difference


@pytest.mark.parametrize("setting", ["dropout", "dropout_hidden", "dropout_input", "dropout_words", "weight_drop"])
def test_every_dropout_works_in_training_alone(setting: str, inputs: Tensor) -> None:
    model = make(**{**PLAIN, setting: 0.5})
    assert not torch.equal(model(inputs, None).logits, model(inputs, None).logits)
    model.eval()
    assert torch.equal(model(inputs, None).logits, make(**PLAIN)(inputs, None).logits)


def test_dropouts_are_where_the_recipe_has_them(inputs: Tensor) -> None:
    """Input, hidden and output dropout lock one mask for each stream and unit."""
    model = make(**{**PLAIN, "dropout": 0.5, "dropout_hidden": 0.5, "dropout_input": 0.5})
    calls: list[tuple[str, Tensor]] = []
    for name in ("input_dropout", "hidden_dropout", "output_dropout"):
        getattr(model, name).register_forward_hook(lambda m, args, output, name=name: calls.append((name, output)))
    model(inputs, None)
    assert [name for name, _ in calls] == ["input_dropout", "hidden_dropout", "hidden_dropout", "output_dropout"]
    assert [output.shape[-1] for _, output in calls] == [5, 7, 7, 5]
    for _, output in calls:
        zero = output == 0
        assert torch.equal(zero, zero[:1].expand_as(zero))
        assert zero.any()


def test_initial_weights() -> None:
    model = AWDLSTM(LanguageSizes(2000, ()), embedding_dim=16, hidden=64)
    assert 0.099 < model.embedding.weight.abs().max().item() <= 0.1
    assert model.decoder_bias.abs().max().item() == 0
    for layer, hidden in zip(model.layers, (64, 64, 16), strict=True):
        for parameter in layer.parameters():
            assert parameter.abs().max().item() <= hidden**-0.5


def test_all_weights_learn_and_the_decoder_teaches_the_embedding(inputs: Tensor) -> None:
    model = make()
    F.cross_entropy(model(inputs, None).logits.flatten(0, 1), inputs.flatten()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.embedding.weight.grad is not None
    unseen = [word for word in range(11) if word not in inputs]
    assert (model.embedding.weight.grad[unseen].abs().sum(1) > 0).all()


def test_a_lookup_that_is_no_matrix_says_what_the_decoder_multiplies_by(inputs: Tensor) -> None:
    class Doubled(nn.Module):
        def __init__(self, embedding: nn.Embedding) -> None:
            super().__init__()
            self.rows = nn.Parameter(embedding.weight.detach() / 2)

        def dense_weight(self) -> Tensor:
            return self.rows * 2

        def forward(self, words: Tensor) -> Tensor:
            return F.embedding(words, self.dense_weight())

    model = make(**PLAIN)
    expected = model(inputs, None).logits
    model.embedding = Doubled(model.embedding)  # type: ignore[assignment]
    assert torch.allclose(model(inputs, None).logits, expected, atol=1e-6)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        make(layers=0)
    with pytest.raises(ConfigError, match="at least 0"):
        make(temporal_penalty=-1.0)
    with pytest.raises(ConfigError, match="less than 1"):
        make(dropout_hidden=1.0)


def test_narrower_variants() -> None:
    widths = AWDLSTM.widths({"hidden": 3})
    assert widths == [{"hidden": 1}, {"hidden": 2}, {"hidden": 3}]
    assert len(AWDLSTM.widths({})) == 1150
