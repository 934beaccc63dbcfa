import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.batch import Layout
from sparse_bench.errors import ConfigError
from sparse_bench.models.dropout import Dropout
from sparse_bench.models.layers import dense, sinusoids
from sparse_bench.models.rasa_transformer import Attention, HeadGrid, TransformerEncoder


def encoder(dropout: float = 0.0, attention_dropout: float = 0.0, layers: int = 2) -> TransformerEncoder:
    torch.manual_seed(0)
    module = TransformerEncoder(
        6, 8, layers=layers, heads=2, dropout=dropout, attention_dropout=attention_dropout
    ).double()
    for name, parameter in module.named_parameters():  # so that a missing bias or norm shows
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=float("norm.weight" in name))
    return module


def one_sequence(module: TransformerEncoder, x: Tensor) -> Tensor:
    """The encoder in evaluation mode on one sequence [S, F], written out with torch's own functions."""
    length, size = x.shape[0], module.size
    x = F.linear(x, module.input.weight, module.input.bias) * math.sqrt(size)
    x = x + sinusoids(length, size, x.device).to(x.dtype)
    for layer in module.layers:
        normed = F.layer_norm(x, (size,), layer.attention_norm.weight, layer.attention_norm.bias, eps=1e-6)
        query, key, value = (
            F.linear(normed, projection.weight).view(length, module.heads, -1).transpose(0, 1)
            for projection in (layer.attention.query, layer.attention.key, layer.attention.value)
        )
        attended = F.scaled_dot_product_attention(query, key, value).transpose(0, 1).reshape(length, size)
        x = x + F.linear(attended, layer.attention.output.weight, layer.attention.output.bias)
        norm, block = layer.feed_forward_norm, layer.feed_forward
        normed = F.layer_norm(x, (size,), norm.weight, norm.bias, eps=1e-6)
        hidden = F.gelu(F.linear(normed, block.hidden.weight, block.hidden.bias))
        x = x + F.linear(hidden, block.output.weight, block.output.bias)
    return F.layer_norm(x, (size,), module.norm.weight, module.norm.bias, eps=1e-6)


def test_sinusoids_by_hand():
    table = sinusoids(3, 5, torch.device("cpu"))
    # Features 2i and 2i + 1 share the angle p / 10000^(2i / size): sine at even, cosine at odd features.
    expected = [
        [f(p / 10000 ** (2 * (i // 2) / 5)) for i, f in enumerate([math.sin, math.cos, math.sin, math.cos, math.sin])]
        for p in range(3)
    ]
    torch.testing.assert_close(table, torch.tensor(expected))
    assert table[0].tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("layers", [1, 2])
def test_wanted_rows_alone_are_those_of_the_whole(layers: int):
    module = encoder(layers=layers).eval()
    x, layout = torch.randn(9, 6, dtype=torch.float64), Layout.of([3, 1, 5])
    wanted = torch.tensor([2, 3, 5])
    torch.testing.assert_close(module(x, layout, wanted), module(x, layout)[wanted])


@pytest.mark.parametrize("lengths", [[4], [1], [3, 1, 5], [2, 2]])
def test_it_is_the_written_out_encoder_for_each_sequence_alone(lengths: list[int]):
    module = encoder().eval()
    x = torch.randn(sum(lengths), 6, dtype=torch.float64)
    expected = torch.cat([one_sequence(module, part) for part in x.split(lengths)])
    torch.testing.assert_close(module(x, Layout.of(lengths)), expected, rtol=1e-6, atol=1e-6)


def test_its_gradient_is_that_of_the_written_out_encoder():
    module, lengths = encoder(), [3, 1, 5]
    x = torch.randn(9, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(9, 8, dtype=torch.float64)
    inputs = [x, *module.parameters()]
    ours = torch.autograd.grad((module(x, Layout.of(lengths)) * weights).sum(), inputs)
    expected = torch.cat([one_sequence(module, part) for part in x.split(lengths)])
    for found, right in zip(ours, torch.autograd.grad((expected * weights).sum(), inputs), strict=True):
        torch.testing.assert_close(found, right, rtol=1e-6, atol=1e-6)


def test_no_bias_on_queries_keys_and_values_and_one_everywhere_else():
    without = {
        name for name, module in encoder().named_modules() if isinstance(module, nn.Linear) and module.bias is None
    }
    assert without == {f"layers.{i}.attention.{part}" for i in (0, 1) for part in ("query", "key", "value")}


def test_layers_start_glorot_uniform_with_zero_bias():
    torch.manual_seed(0)
    layer = dense(300, 100)
    limit = (6 / 400) ** 0.5
    assert layer.weight.abs().max() <= limit
    assert layer.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.02)
    assert not layer.bias.any()


def test_dropout_comes_after_the_embedding_inside_the_feed_forward_block_and_after_each_block():
    module, lengths = encoder(dropout=0.2, layers=1), [2, 1]
    seen: list[tuple[str, tuple[int, ...]]] = []
    for name, child in module.named_modules():
        if isinstance(child, Dropout):
            child.register_forward_hook(lambda _, inputs, output, name=name: seen.append((name, tuple(output.shape))))
    module(torch.randn(3, 6, dtype=torch.float64), Layout.of(lengths))
    assert seen == [
        ("dropout", (3, 8)),
        ("layers.0.dropout", (3, 8)),
        ("layers.0.feed_forward.dropout", (3, 32)),
        ("layers.0.dropout", (3, 8)),
    ]


def test_what_dropout_drops_is_not_the_residual():
    module = encoder(dropout=0.5, layers=1)
    layer = module.layers[0]
    for output in (layer.attention.output, layer.feed_forward.output):
        nn.init.zeros_(output.weight)
        nn.init.zeros_(output.bias)
    x, grid = torch.randn(3, 8, dtype=torch.float64), HeadGrid.of(Layout.of([3]), 2)
    assert torch.equal(layer(x, grid), x)


def test_attention_dropout_renormalises_what_it_leaves():
    torch.manual_seed(0)
    attention = Attention(4, 2, dropout=0.5)
    nn.init.zeros_(attention.query.weight)  # all logits equal
    nn.init.eye_(attention.value.weight)
    nn.init.eye_(attention.output.weight)
    layout = Layout.of([3, 2])
    grid = HeadGrid.of(layout, 2)
    x = torch.ones(5, 4)
    torch.testing.assert_close(attention(x, grid), x)  # weights sum to one, whatever is dropped
    x = torch.eye(5)[:, :4]
    dropped = torch.stack([attention(x, grid)[0] for _ in range(200)])
    # The first position attends to one, two or all three of its sequence's positions, never to another sequence's.
    assert set(dropped[:, 0].mul(6).round().unique().tolist()) == {0.0, 2.0, 3.0, 6.0}
    assert not dropped[:, 3].any()
    assert torch.equal(attention.eval()(x, grid), attention(x, grid))


def test_groups_name_every_matrix_once():
    module = encoder()
    groups = module.layer_groups("")
    matrices = {name for name, parameter in module.named_parameters() if parameter.dim() == 2}
    assert sorted(groups["encoder_input"] + groups["attention"] + groups["feed_forward"]) == sorted(matrices)
    assert sorted(groups["attention_qkv"] + groups["attention_output"]) == sorted(groups["attention"])
    assert len(groups["attention_output"]) == 2


def test_sizes_outside_their_range_are_refused():
    with pytest.raises(ConfigError, match="Nearest valid choices: 8, 12"):
        TransformerEncoder(6, 10, layers=1, heads=4, dropout=0.0)
    with pytest.raises(ConfigError, match="at least one"):
        TransformerEncoder(6, 8, layers=0, heads=4, dropout=0.0)
    with pytest.raises(ConfigError, match="attention_dropout"):
        TransformerEncoder(6, 8, layers=1, heads=4, dropout=0.0, attention_dropout=1.0)


@pytest.mark.parametrize("last_alone", [False, True])
def test_bfloat16_differs_by_rounding_alone(last_alone: bool):
    torch.manual_seed(0)
    module = TransformerEncoder(6, 32, layers=2, heads=2, dropout=0.0)
    x, layout = torch.randn(9, 6), Layout.of([3, 1, 5])
    wanted = torch.tensor([2, 3, 8]) if last_alone else None
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = module(x, layout, wanted)
        found.append([y.float(), *torch.autograd.grad(y.float().pow(3).sum(), list(module.parameters()))])
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() <= 0.05 * one.norm()
