import numpy as np
import pytest

from sparse_bench.tasks.intent_metrics import entity_metrics, intent_metrics
from tests.tasks.test_bilou import ids


def test_intents_by_hand():
    gold = np.array([0, 0, 0, 1])
    predicted = np.array([0, 0, 1, 1])
    # Intent 0: precision 1, recall 2/3, F1 0.8. Intent 1: precision 1/2, recall 1, F1 2/3. Weights 3/4 and 1/4.
    metrics = intent_metrics(gold, predicted)
    assert metrics["intent_f1"] == pytest.approx(0.75 * 0.8 + 0.25 * 2 / 3)
    assert metrics["intent_accuracy"] == 0.75


def test_intents_outside_gold_have_no_weight():
    # Intent 0: precision 1, recall 1/2, F1 2/3. Intent 7 is never right, but does not occur.
    assert intent_metrics(np.array([0, 0]), np.array([0, 7]))["intent_f1"] == pytest.approx(2 / 3)


def test_intents_that_are_never_predicted_count_zero():
    assert intent_metrics(np.array([0, 1]), np.array([0, 0]))["intent_f1"] == pytest.approx(0.5 * 2 / 3)


def one_message(gold, predicted):
    gold, predicted = ids(gold), ids(predicted)
    return entity_metrics(gold, predicted, np.array([len(gold)]))


def test_entities_by_hand():
    metrics = one_message("B-a I-a L-a O U-b O", "B-a L-a O O U-b U-b")
    # Tokens. a: 2 of 2 right, 2 of 3 found, F1 0.8, weight 3/4. b: 1 of 2 right, 1 of 1 found, F1 2/3, weight 1/4.
    assert metrics["entity_f1"] == pytest.approx(0.75 * 0.8 + 0.25 * 2 / 3)
    assert metrics["entity_precision"] == pytest.approx(0.75 * 1 + 0.25 * 0.5)
    assert metrics["entity_recall"] == pytest.approx(0.75 * 2 / 3 + 0.25 * 1)
    # Spans. Gold: a[0:3], b[4:5]. Predicted: a[0:2], b[4:5], b[5:6]. One is right.
    assert metrics["entity_span_precision"] == pytest.approx(1 / 3)
    assert metrics["entity_span_recall"] == pytest.approx(1 / 2)
    assert metrics["entity_span_f1"] == pytest.approx(2 / 5)


def test_prefixes_do_not_matter_to_tokens_but_to_spans():
    metrics = one_message("B-a L-a", "U-a U-a")
    assert metrics["entity_f1"] == 1
    assert metrics["entity_span_f1"] == 0


def test_tokens_without_entity_are_no_type():
    # Of 100 tokens 99 are rightly without an entity: that must not help.
    gold = ids("U-a" + " O" * 99)
    assert entity_metrics(gold, np.zeros_like(gold), np.array([100]))["entity_f1"] == 0


def test_predictions_are_repaired_first():
    metrics = one_message("B-a I-a L-a O", "B-a I-b L-b O")
    assert metrics["entity_f1"] == metrics["entity_span_f1"] == 1
    assert one_message("B-a L-a O", "B-a I-a O")["entity_span_f1"] == 1


def test_repair_and_spans_stay_within_messages():
    gold, predicted = ids("U-a U-a"), ids("B-a L-a")
    assert entity_metrics(gold, predicted, np.array([1, 1]))["entity_span_f1"] == 1
    assert entity_metrics(gold, predicted, np.array([2]))["entity_span_f1"] == 0


def test_a_span_needs_its_type():
    metrics = one_message("U-a U-b", "U-b U-b")
    assert metrics["entity_span_precision"] == metrics["entity_span_recall"] == 0.5


def test_types_outside_gold_cost_precision_of_spans_only():
    metrics = one_message("U-a O", "U-a U-b")
    assert metrics["entity_f1"] == 1
    assert metrics["entity_span_precision"] == 0.5


def test_nothing_predicted():
    metrics = one_message("U-a O", "O O")
    assert set(metrics.values()) == {0.0}


def test_no_entity_in_gold_is_no_metric():
    assert one_message("O O", "U-a O") == {}
