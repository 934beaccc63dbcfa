"""SparseLang's language model: published counts, the factored head, controls."""

import math

import pytest
import torch

from sparse_bench.batch.language import LanguageSizes
from sparse_bench.errors import ConfigError
from sparse_bench.models.lstm_lm import LSTMLM, FactoredHead

SIZES = LanguageSizes(vocabulary=11, frequencies=(1,) * 11)


def weights(model: torch.nn.Module, prefix: str) -> int:
    """Trainable ones."""
    return sum(p.numel() for name, p in model.named_parameters() if name.startswith(prefix) and p.requires_grad)


def test_published_counts() -> None:
    with torch.device("meta"):
        assert weights(LSTMLM(SIZES, hidden=2500), "layers.") == 81_020_000
        assert weights(LSTMLM(SIZES, hidden=2900), "layers.") == 107_903_200


def test_factored_head_by_hand() -> None:
    head = FactoredHead(4, 3)
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 10, 0, 0], [0, 0, 100, 1000]]))
        head.linear.bias.copy_(torch.tensor([0.0, 0.0, 0.5]))
    # [[1, 2], [3, 4]]: rows 3 and 7, columns 4 and 6.
    scores = head(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert scores.tolist() == [[3.0, 70.0, 400.0 + 6000.0 + 0.5]]
    with pytest.raises(ConfigError, match="2500, 2601"):
        FactoredHead(2599, 3)


def test_state_is_carried() -> None:
    torch.manual_seed(0)
    model = LSTMLM(SIZES, embedding_dim=5, hidden=9, head="factored").eval()
    inputs = torch.randint(11, (6, 2))
    whole = model(inputs, None)
    first = model(inputs[:4], None)
    second = model(inputs[4:], first.state)
    torch.testing.assert_close(torch.cat([first.logits, second.logits]), whole.logits)
    assert whole.logits.shape == (6, 2, 11)


def test_first_weights() -> None:
    model = LSTMLM(SIZES, embedding_dim=50, hidden=100)
    for name, parameter in model.named_parameters():
        if "bias" in name:
            assert parameter.eq(0).all()
        limit = {"layers.0": math.sqrt(3 / 150), "layers.1": math.sqrt(3 / 200)}.get(name[:8], 0.04)
        assert parameter.abs().max() <= limit
        assert "bias" in name or parameter.abs().max() > 0.9 * limit


def test_frozen_layers_have_no_gradient_and_absent_ones_no_state() -> None:
    frozen = LSTMLM(SIZES, embedding_dim=5, hidden=9, recurrence="frozen")
    frozen(torch.randint(11, (3, 2)), None).logits.sum().backward()
    assert all(parameter.grad is None for parameter in frozen.layers.parameters())
    assert frozen.embedding.weight.grad is not None
    none = LSTMLM(SIZES, embedding_dim=5, hidden=9, recurrence="none")
    output = none(torch.randint(11, (3, 2)), None)
    assert output.state == ()
    assert output.logits.shape == (3, 2, 11)


def test_dropout_acts_in_training_alone() -> None:
    model = LSTMLM(SIZES, embedding_dim=5, hidden=9, dropout=0.5)
    inputs = torch.randint(11, (3, 2))
    assert not torch.equal(model(inputs, None).logits, model(inputs, None).logits)
    model.eval()
    assert torch.equal(model(inputs, None).logits, model(inputs, None).logits)


def test_narrower_variants() -> None:
    assert LSTMLM.widths({"hidden": 10, "head": "factored"}) == [{"hidden": 1}, {"hidden": 4}, {"hidden": 9}]
    assert len(LSTMLM.widths({})) == 2500


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"head": "round"}, "factored, linear"), ({"recurrence": "some"}, "frozen, none, trained"), ({"layers": 0}, "1")],
)
def test_bad_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LSTMLM(SIZES, **settings)  # type: ignore[arg-type]
