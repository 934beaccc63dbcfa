"""Names of quantities: column, title, and the direction in which each is better."""

import re
from collections.abc import Iterable, Sequence

from sparse_bench.errors import SparseBenchError, unknown_choice

# Columns of a table of runs.
SPARSE_WEIGHTS, SPARSE_SIZE, FROZEN = "count:sparse_layers", "count:sparse_layers_size", "count:sparse_layers_frozen"
DENSITY, TRAINABLE = "count:density", "count:trainable"
HELD, AVERAGE_DENSITY = "count:held", "count:average_density"
FORWARD, BACKWARD = "macs:training_forward", "macs:training_backward"
DEVICE = "made:device"

_LOWER_IS_BETTER = re.compile(r"loss|perplexity|ppl|nll|cross_entropy|error|bits_per|seconds|bytes")
#: Names that could be misunderstood: this accuracy is of tokens, averaged within each sentence first.
_TITLES = {"sentence_accuracy": "token accuracy, mean over sentences"}
_SPELLING = {"f1": "F1", "bleu": "BLEU", "crf": "CRF", "ppl": "perplexity", "nll": "NLL", "l1": "L1", "l2": "L2"}


class UnknownMetricError(SparseBenchError):
    """A requested metric that no run has measured."""


def lower_is_better(metric: str) -> bool:
    """Whether smaller values of ``metric`` are better, judged by its name (losses, perplexity, errors)."""
    return _LOWER_IS_BETTER.search(metric.rsplit("/", 1)[-1].lower()) is not None


def title(metric: str) -> str:
    """``test/intent_f1`` → ``intent F1 (test)``."""
    *split, name = metric.split("/")
    words = _TITLES.get(name) or " ".join(_SPELLING.get(word, word) for word in name.split("_"))
    return f"{words} ({' '.join(split)})" if split else words


def choose(available: Iterable[str], asked: Sequence[str] = ()) -> list[str]:
    """The metrics to report: those requested, in that order; else all of the test split; else all.

    Raises:
        UnknownMetricError: no result has a requested metric; the message lists the known ones.
    """
    known = sorted(set(available))
    for metric in asked:
        if metric not in known:
            raise UnknownMetricError(unknown_choice("metric", metric, known))
    return list(dict.fromkeys(asked)) or [metric for metric in known if metric.startswith("test/")] or known


def matching(metric: str, available: Iterable[str]) -> list[str]:
    """Names under which ``metric`` was logged during training: its own, else those of its other splits.

    A metric of the test split is often logged on the validation split during training.
    """
    known = sorted(set(available))
    if metric in known:
        return [metric]
    name = metric.rsplit("/", 1)[-1]
    return [other for other in known if other.rsplit("/", 1)[-1] == name]


#: Columns of runs that are not metrics.
_PREFIXED = re.compile(r"(count|seconds|macs):.+|tokens_per_second|examples_per_second|peak_memory_bytes|epochs|steps")
_WORDS = {
    SPARSE_WEIGHTS: "weights in the sparse layers",
    TRAINABLE: "trainable weights",
    HELD: "weights held while training",
    FORWARD: "multiply-accumulates of training, forward",
    BACKWARD: "multiply-accumulates of training, backward",
}


def column_of(name: str) -> str:
    """The column that holds a quantity in a table of runs."""
    return name if _PREFIXED.fullmatch(name) else f"metric:{name}"


def quantity(name: str) -> str:
    """A readable name: a metric's :func:`title`, or words for a count, a time or a number of operations."""
    kind, _, rest = name.partition(":")
    if name in _WORDS:
        return _WORDS[name]
    if match := re.fullmatch(r"count:groups\.(.+)\.(active|size)", name):
        return f"{'places for ' if match[2] == 'size' else ''}weights in the group {match[1].replace('_', ' ')}"
    if kind == "macs":
        return f"multiply-accumulates ({rest})"
    if kind == "seconds":
        return f"seconds ({rest.replace('_', ' ')})"
    return rest.replace("_", " ") if kind == "count" else title(name)


def direction(metric: str) -> str:
    """A metric's title, and whether lower or higher is better. Topology metrics have no direction."""
    if metric.startswith("topology/"):
        return title(metric)
    return f"{title(metric)}, {'lower' if lower_is_better(metric) else 'higher'} is better"
