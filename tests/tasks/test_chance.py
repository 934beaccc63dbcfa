"""What guessing reaches is what a model that always gives the one answer is measured to reach, and is warned of."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.batch import Batch, DialogueBatch, IntentBatch
from sparse_bench.batch.language import LanguageOutput
from sparse_bench.batch.tagging import TaggingBatch
from sparse_bench.batch.translation import EOS, TranslationBatch
from sparse_bench.tasks.base import Task, metric_warnings
from sparse_bench.tasks.intent import IntentTask
from tests.tasks import test_dialogue, test_language_modelling, test_tagging, test_text_typing, tiny_translator
from tests.tasks.nlu_corpus import small_corpus
from tests.toy import ToyTask


class Guess(nn.Module):
    """One answer whatever is asked, by the protocols of all tasks; all answers are nearly equally probable."""

    def __init__(self, answer: int, answers: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(F.one_hot(torch.tensor(answer), answers) * 1e-6)

    def _rows(self, *shape: int) -> Tensor:
        return self.scores.expand(*shape, -1)

    def predict(self, batch: Batch) -> Tensor | tuple[Tensor, Tensor]:
        if isinstance(batch, TaggingBatch):
            return self._rows(*batch.tags.shape).argmax(-1)
        if isinstance(batch, IntentBatch):
            return self._rows(*batch.intents.shape), torch.zeros_like(batch.tags)
        assert isinstance(batch, DialogueBatch)
        return self._rows(*batch.actions.shape)

    def forward(self, asked: Batch | Tensor, state: object = None) -> Tensor | LanguageOutput:
        if isinstance(asked, Tensor):
            return LanguageOutput(self._rows(*asked.shape), {}, ())
        return self._rows(*(asked.target_output if isinstance(asked, TranslationBatch) else asked.types).shape)


#: Task, answer that training has most often, number of answers, and what that reaches on the test split, by hand.
CASES: dict[str, tuple[Callable[[], Task], int, int, dict[str, float]]] = {
    "tagging": (test_tagging.task, 2, 4, {"accuracy": 1.0}),
    "text typing": (
        lambda: test_text_typing.TextTypingTask(corpus=test_text_typing.CORPUS),
        0,
        2,
        {"accuracy": 2 / 3, "macro_f1": 0.8 / 2},
    ),
    # Waiting is the action of three of seven training examples, and of one of three in the test.
    "dialogue": (test_dialogue.make, 0, 5, {"action_accuracy": 1 / 3, "action_f1": 0.5 / 3}),
    "language modelling": (test_language_modelling.make, 0, 10, {"perplexity": 10.0, "accuracy": 1 / 19}),
    # "ein Hund schläft .", "zwei Männer" and "ein Mann", each with EOS behind it.
    "translation": (
        lambda: tiny_translator.make(translate=False),
        EOS,
        14,
        {"sentence_accuracy": (1 / 5 + 1 / 3 + 1 / 3) / 3, "token_accuracy": 3 / 11, "perplexity": 14.0},
    ),
    # Of 12 test messages 5 are of the most frequent intent.
    "intent": (lambda: IntentTask(corpus=small_corpus(), batch_epochs=1), 3, 4, {"intent_accuracy": 5 / 12}),
}


@pytest.mark.parametrize("name", CASES)
def test_guessing(name: str) -> None:
    make, answer, answers, expected = CASES[name]
    task = make()
    chance = task.chance("test")
    assert {metric: chance[metric][0] for metric in expected} == pytest.approx(expected)
    assert chance[task.monitor[0]][1] == task.monitor[1]
    assert set(chance) <= set(task.metrics)
    metrics = {}
    for split in task.splits:
        measured = task.evaluate(Guess(answer, answers).eval(), split)
        of_split = task.chance(split)
        assert {metric: measured[metric] for metric in of_split} == pytest.approx(
            {metric: value for metric, (value, _) in of_split.items()}, rel=1e-4
        )
        # To the last bits a model need not be as good as guessing.
        metrics |= {f"{split}/{metric}": value for metric, (value, _) in of_split.items()}
    found = list(metric_warnings(task, metrics))
    assert len(found) == len(metrics)
    assert all("no better than guessing" in doubt for doubt in found)
    better = {
        f"{split}/{metric}": value + (0.01 if direction == "max" else -0.01)
        for split in task.splits
        for metric, (value, direction) in task.chance(split).items()
    }
    assert list(metric_warnings(task, better)) == []


def test_what_is_not_finite_is_doubtful_and_a_task_need_not_know_chance() -> None:
    metrics = {"valid/accuracy": 0.1, "test/cross_entropy": math.nan, "weights/x": math.inf}
    assert list(metric_warnings(ToyTask(), metrics)) == [
        "test/cross_entropy is nan, which is not a finite number.",
        "weights/x is inf, which is not a finite number.",
    ]
