"""Metrics of intents and entities: those of the released Rasa 2.6, and also metrics of whole entity spans."""

import numpy as np
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from sparse_bench.tasks import bilou


def intent_metrics(gold: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy and weighted F1 of intents: the mean of the F1 of each intent in ``gold``, weighted by its frequency.

    Args:
        gold: true intent of each message [B], B at least 1.
        predicted: predicted intent of each message [B].
    """
    _, _, f1 = _weighted(gold, predicted, np.unique(gold))
    return {"intent_f1": f1, "intent_accuracy": float(accuracy_score(gold, predicted))}


def entity_metrics(gold: np.ndarray, predicted: np.ndarray, lengths: np.ndarray) -> dict[str, float]:
    """F1, precision and recall of entities by token and by span; empty if ``gold`` has no entity.

    ``entity_*`` count tokens. Each token has one type: its BILOU prefix is removed after :func:`bilou.repair`. The
    scores are means over the types in ``gold``, weighted by frequency; no entity is not a type. ``entity_span_*`` count
    entities (micro average). An entity is correct if its first token, last token and type are correct.

    Args:
        gold: true BILOU tags of the tokens of all messages [N].
        predicted: predicted BILOU tags, before any repair [N].
        lengths: tokens of each message, summing to N.
    """
    predicted = bilou.repair(predicted, lengths)
    gold_types, predicted_types = bilou.types_of(gold), bilou.types_of(predicted)
    present = np.setdiff1d(gold_types, [bilou.OUTSIDE])
    if present.size == 0:
        return {}
    precision, recall, f1 = _weighted(gold_types, predicted_types, present)
    metrics = {"entity_f1": f1, "entity_precision": precision, "entity_recall": recall}
    gold_spans, predicted_spans = bilou.spans(gold, lengths), bilou.spans(predicted, lengths)
    right = len(gold_spans & predicted_spans)
    return metrics | {
        "entity_span_f1": 2 * right / (len(gold_spans) + len(predicted_spans)),
        "entity_span_precision": right / len(predicted_spans) if predicted_spans else 0.0,
        "entity_span_recall": right / len(gold_spans),
    }


def _weighted(gold: np.ndarray, predicted: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and F1, each averaged over ``labels`` and weighted by their frequency in ``gold``."""
    precision, recall, f1, _ = precision_recall_fscore_support(
        gold, predicted, labels=labels, average="weighted", zero_division=0.0
    )
    return float(precision), float(recall), float(f1)
