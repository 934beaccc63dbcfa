"""Titles, directions and choices of metrics."""

import pytest

from sparse_bench.evidence.names import UnknownMetricError, choose, lower_is_better, matching, title


@pytest.mark.parametrize(
    ("metric", "text", "lower"),
    [
        ("test/intent_f1", "intent F1 (test)", False),
        ("test/perplexity", "perplexity (test)", True),
        ("train/loss", "loss (train)", True),
        ("test/bleu", "BLEU (test)", False),
        ("accuracy", "accuracy", False),
        ("valid/bits_per_character", "bits per character (valid)", True),
        ("lossless/accuracy", "accuracy (lossless)", False),
    ],
)
def test_title_and_direction(metric: str, text: str, lower: bool) -> None:
    assert title(metric) == text
    assert lower_is_better(metric) is lower


def test_the_test_split_is_reported_unless_asked_otherwise() -> None:
    available = ["valid/f1", "test/f1", "test/accuracy"]
    assert choose(available) == ["test/accuracy", "test/f1"]
    assert choose(available, ["valid/f1", "test/f1", "valid/f1"]) == ["valid/f1", "test/f1"]
    assert choose(["valid/f1"]) == ["valid/f1"]


def test_an_unknown_metric_names_the_valid_ones() -> None:
    with pytest.raises(UnknownMetricError, match=r"'test/f2'\. Did you mean 'test/f1'\?.*: test/f1, valid/f1"):
        choose(["valid/f1", "test/f1"], ["test/f2"])


def test_a_metric_is_followed_on_its_own_split_or_on_others() -> None:
    assert matching("test/f1", ["valid/f1", "test/f1"]) == ["test/f1"]
    assert matching("test/f1", ["valid/f1", "valid/loss"]) == ["valid/f1"]
    assert matching("test/f1", ["valid/loss"]) == []
