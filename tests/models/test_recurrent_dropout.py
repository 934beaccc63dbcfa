import pytest
import torch
from torch import Tensor, nn

from sparse_bench.errors import ConfigError
from sparse_bench.models.recurrent_dropout import LockedDropout, WeightDrop, WordDropout


class Halves(nn.Module):
    """Two independent LSTMs side by side, as a layer of components is."""

    def __init__(self) -> None:
        super().__init__()
        self.components = nn.ModuleList([nn.LSTM(4, 3), nn.LSTM(4, 3)])

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, None]:
        return torch.cat([component(x)[0] for component in self.components], dim=-1), None


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_locked_dropout_has_one_mask_for_all_time_steps() -> None:
    x = torch.ones(6, 50, 40)
    y = LockedDropout(0.4)(x)
    assert torch.equal(y, y[:1].expand_as(y))
    assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.6], rel=1e-4)
    assert (y[0] == 0).float().mean().item() == pytest.approx(0.4, abs=0.05)
    assert not torch.equal(y[0, 0], y[0, 1])


def test_word_dropout_drops_whole_words_wherever_they_occur() -> None:
    words = torch.randint(0, 200, (30, 40))
    table = torch.rand(200, 5) + 1
    y = WordDropout(0.3)(table[words], words, 200)
    factor = y / table[words]
    assert torch.allclose(factor, factor[..., :1].expand_as(factor))
    first: dict[int, float] = {}
    for word, value in zip(words.flatten().tolist(), factor[..., 0].flatten().tolist(), strict=True):
        assert first.setdefault(word, value) == pytest.approx(value, rel=1e-5)
    dropped = sum(value == 0 for value in first.values()) / len(first)
    assert dropped == pytest.approx(0.3, abs=0.1)
    assert max(first.values()) == pytest.approx(1 / 0.7, rel=1e-4)


def test_word_dropout_equals_dropout_of_the_matrix() -> None:
    """Loss and gradient are those of a lookup in a matrix whose rows were zeroed and scaled."""
    words = torch.randint(0, 7, (5, 3))
    table = torch.rand(7, 4, requires_grad=True)
    torch.manual_seed(1)
    y = WordDropout(0.5)(table[words], words, 7)
    y.pow(2).sum().backward()
    torch.manual_seed(1)
    rows = WordDropout(0.5)(torch.ones(7, 1, 4), torch.arange(7).unsqueeze(1), 7)[:, 0]
    other = table.detach().clone().requires_grad_()
    (rows * other)[words].pow(2).sum().backward()
    assert table.grad is not None
    assert other.grad is not None
    assert torch.allclose(table.grad, other.grad)
    assert (rows == 0).any()


@pytest.mark.parametrize("layer", [nn.LSTM(4, 3), Halves()])
def test_weight_drop_scales_or_drops_each_recurrent_weight_for_one_call(layer: nn.Module) -> None:
    drop = WeightDrop(0.5)
    x = torch.randn(3, 2, 4)
    before = {name: parameter.clone() for name, parameter in layer.named_parameters()}
    output, _ = drop(layer, x, None)
    output.sum().backward()
    names = [name for name, _ in layer.named_parameters()]
    assert names == list(before)
    for name, parameter in layer.named_parameters():
        assert torch.equal(parameter, before[name])  # the parameters themselves are as they were
        assert parameter.grad is not None
        share = (parameter.grad == 0).float().mean().item()
        # A dropped weight gets no gradient; first states are zero, so the others do.
        assert (0.2 < share < 0.8) if name.endswith("weight_hh_l0") else share == 0
    again, _ = drop(layer, x, None)
    assert not torch.equal(output, again)


def test_a_dropped_layer_is_the_layer_with_the_dropped_weights() -> None:
    layer, x = nn.LSTM(4, 3), torch.randn(3, 2, 4)
    drop = WeightDrop(0.5)
    torch.manual_seed(2)
    output, (hidden, _) = drop(layer, x, (torch.ones(1, 2, 3), torch.ones(1, 2, 3)))
    torch.manual_seed(2)
    dropped = drop.drop(layer.weight_hh_l0.detach())
    with torch.no_grad():
        layer.weight_hh_l0.copy_(dropped)
    expected, (expected_hidden, _) = layer(x, (torch.ones(1, 2, 3), torch.ones(1, 2, 3)))
    assert torch.equal(output, expected)
    assert torch.equal(hidden, expected_hidden)


def test_weight_drop_survives_evaluation() -> None:
    """Evaluation uses the raw weights, and the training after it still drops."""
    layer, x = nn.LSTM(4, 3), torch.randn(3, 2, 4)
    drop = WeightDrop(0.5)
    drop(layer, x, None)
    drop.eval()
    assert torch.equal(drop(layer, x, None)[0], layer(x)[0])
    drop.train()
    first, second = drop(layer, x, None)[0], drop(layer, x, None)[0]
    assert not torch.equal(first, second)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    first.sum().backward()
    optimizer.step()
    drop.eval()
    assert torch.equal(drop(layer, x, None)[0], layer(x)[0])


def test_nothing_is_dropped_in_evaluation_or_at_rate_zero() -> None:
    x, words = torch.randn(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64)
    for rate, training in ((0.0, True), (0.5, False)):
        assert LockedDropout(rate).train(training)(x) is x
        assert WordDropout(rate).train(training)(x, words, 5) is x
        layer = nn.LSTM(4, 3)
        assert torch.equal(WeightDrop(rate).train(training)(layer, x, None)[0], layer(x)[0])


@pytest.mark.parametrize("module", [LockedDropout, WordDropout, WeightDrop])
@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_rates_are_checked(module: type[nn.Module], rate: float) -> None:
    with pytest.raises(ConfigError, match="not a dropout rate"):
        module(rate)
