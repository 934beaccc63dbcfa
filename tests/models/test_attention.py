import pytest
import torch
from torch import Tensor

from sparse_bench.errors import ConfigError
from sparse_bench.models.attention import MultiHeadAttention, Past, causal_bias, mixed_padding_bias, padding_bias

MASK = torch.tensor([[True, True, True, False], [True, True, False, False]])


def attention(way: str = "auto", dropout: float = 0.0) -> MultiHeadAttention:
    torch.manual_seed(0)
    return MultiHeadAttention(8, 2, scale=0.3, dropout=dropout, way=way)


def biases() -> dict[str, Tensor | None]:
    return {"none": None, "padding": padding_bias(MASK), "causal": causal_bias(4, MASK.device)}


def test_biases_by_hand():
    never = torch.tensor(-1e9)
    assert torch.equal(padding_bias(MASK)[1, 0, 0], torch.stack([never * 0, never * 0, never, never]))
    assert causal_bias(3, MASK.device)[0, 0].eq(0).tolist() == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


@pytest.mark.parametrize("kind", ["none", "padding", "causal"])
def test_both_ways_give_the_same_values_and_gradients(kind: str):
    bias = biases()[kind]
    found = {}
    for way in ("sdpa", "explicit"):
        module = attention(way)
        torch.manual_seed(1)
        x = torch.randn(2, 4, 8, requires_grad=True)
        y = module(x, *module.keys_values(x), bias)
        found[way] = (y, *torch.autograd.grad(y.square().sum(), [x, *module.parameters()]))
    for one, other in zip(*found.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["none", "padding", "causal"])
def test_bfloat16_differs_by_rounding_alone(kind: str):
    bias, found, drawn = biases()[kind], [], []
    for way in ("auto", "explicit"):
        torch.manual_seed(0)
        module = MultiHeadAttention(32, 2, scale=0.3, dropout=0.3, way=way)
        x = torch.randn(2, 4, 32, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            y = module(x, *module.keys_values(x), bias)
        found.append([y.float(), *torch.autograd.grad(y.float().square().sum(), [x, *module.parameters()])])
        drawn.append(torch.get_rng_state())
    assert torch.equal(*drawn)
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() <= 0.03 * other.norm()


def test_hidden_keys_get_no_weight_at_all():
    module = attention()
    x = torch.randn(2, 4, 8)
    changed = torch.where(MASK[:, :, None], x, 100.0)
    bias = padding_bias(MASK)
    assert torch.equal(module(x, *module.keys_values(x), bias), module(x, *module.keys_values(changed), bias))


def test_by_hand_with_one_head():
    module = MultiHeadAttention(2, 1, scale=1.0)
    with torch.no_grad():
        for linear in (module.query, module.key, module.value, module.output):
            linear.weight.copy_(torch.eye(2))
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    weight = torch.tensor(1.0).exp() / (torch.tensor(1.0).exp() + 1)
    expected = torch.stack([torch.stack([weight, 1 - weight]), torch.stack([1 - weight, weight])])[None]
    torch.testing.assert_close(module(x, *module.keys_values(x)), expected)


@pytest.mark.parametrize(
    ("training", "dropout", "dtype", "expected"),
    [
        (False, 0.1, torch.float32, "sdpa"),
        (True, 0.0, torch.float32, "sdpa"),
        (True, 0.1, torch.float32, "explicit"),
        (True, 0.0, torch.bfloat16, "explicit"),
        (False, 0.0, torch.bfloat16, "explicit"),
    ],
)
def test_the_way_that_auto_takes_on_a_cpu(
    training: bool, dropout: float, dtype: torch.dtype, expected: str, monkeypatch: pytest.MonkeyPatch
):
    module = attention(dropout=dropout).to(dtype).train(training)
    taken = []
    for way in ("sdpa", "explicit"):
        original = getattr(module, f"_{way}")
        monkeypatch.setattr(module, f"_{way}", lambda *x, w=way, f=original: (taken.append(w), f(*x))[1])
    x = torch.randn(2, 4, 8, dtype=dtype)
    module(x, *module.keys_values(x))
    assert taken == [expected]


def test_auto_takes_sdpa_elsewhere():
    module = attention(dropout=0.1).to("meta")
    assert not module._is_explicit(torch.empty(1, device="meta"))


@pytest.mark.parametrize("way", ["sdpa", "explicit"])
def test_dropped_weights_are_zero_and_the_others_rescaled(way: str):
    """With one key the weight is 1: what comes out is 0 or the value divided by the probability of keeping."""
    module = MultiHeadAttention(8, 2, scale=1.0, dropout=0.25, way=way)
    with torch.no_grad():
        module.output.weight.copy_(torch.eye(8))
    x = torch.ones(400, 1, 8)
    keys, values = module.keys_values(x)
    ratio = module(x, keys, values).view(400, 2, 4) / values[:, :, 0]
    torch.manual_seed(0)
    whole = (ratio > 0).all(2)
    assert ((ratio == 0) | torch.isclose(ratio, torch.tensor(4 / 3))).all()
    assert torch.equal(whole, (ratio > 0).any(2))
    assert 0.65 < whole.float().mean() < 0.85


def test_settings_outside_their_range_are_refused():
    with pytest.raises(ConfigError, match="explicit"):
        attention("flash")
    with pytest.raises(ConfigError, match="9, 12"):
        MultiHeadAttention(10, 3, scale=1.0)


def test_the_past_grows_and_is_reordered():
    past = Past(3)
    first = torch.arange(4.0).view(2, 1, 1, 2)
    past.append(first, -first)
    past.reorder(torch.tensor([1, 1]))
    keys, values = past.append(first + 10, first)
    assert keys[:, 0].tolist() == [[[2.0, 3.0], [10.0, 11.0]], [[2.0, 3.0], [12.0, 13.0]]]
    assert values[:, 0, 0].tolist() == [[-2.0, -3.0], [-2.0, -3.0]]


def test_mixed_padding_is_that_of_other_sentences_head_by_head() -> None:
    """Sentences of lengths 1 to 3, two heads: stacked head by head they are 0 1 2 0 1 2, their masks 0 0 1 1 2 2."""
    mask = torch.arange(3) < torch.tensor([[1], [2], [3]])
    lengths = mixed_padding_bias(mask, 2).eq(0).sum(3).squeeze(2)
    assert lengths.tolist() == [[1, 2], [1, 3], [2, 3]]  # a sentence a row, a head a column
