"""What a metric's name says: a title for people, and whether more of it is better."""

import re
from collections.abc import Iterable, Sequence

from sparse_bench.errors import SparseBenchError, unknown_choice

_LOWER_IS_BETTER = re.compile(r"loss|perplexity|ppl|nll|cross_entropy|error|bits_per|seconds|bytes")
_SPELLING = {"f1": "F1", "bleu": "BLEU", "crf": "CRF", "ppl": "perplexity", "nll": "NLL", "l1": "L1", "l2": "L2"}


class UnknownMetricError(SparseBenchError):
    """A metric was asked for that no run has measured."""


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value of ``metric`` is the better one, judged by its name (losses, perplexity, errors)."""
    return _LOWER_IS_BETTER.search(metric.rsplit("/", 1)[-1].lower()) is not None


def title(metric: str) -> str:
    """``test/intent_f1`` → ``intent F1 (test)``."""
    *split, name = metric.split("/")
    words = " ".join(_SPELLING.get(word, word) for word in name.split("_"))
    return f"{words} ({' '.join(split)})" if split else words


def choose(available: Iterable[str], asked: Sequence[str] = ()) -> list[str]:
    """The metrics to report: those asked for, in that order; else all of the test split, else all.

    Raises:
        UnknownMetricError: one asked for is in no result; the message lists those that are.
    """
    known = sorted(set(available))
    for metric in asked:
        if metric not in known:
            raise UnknownMetricError(unknown_choice("metric", metric, known))
    return list(dict.fromkeys(asked)) or [metric for metric in known if metric.startswith("test/")] or known


def matching(metric: str, available: Iterable[str]) -> list[str]:
    """Names under which ``metric`` was followed during training: itself if it was, else its other splits.

    A metric that is measured on the test split at the end is often followed on a validation split.
    """
    known = sorted(set(available))
    if metric in known:
        return [metric]
    name = metric.rsplit("/", 1)[-1]
    return [other for other in known if other.rsplit("/", 1)[-1] == name]
