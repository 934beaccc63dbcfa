"""What every task says of its splits before training: unknown tokens, and held-out examples met in training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from sparse_bench.data.dialogues import Action, DialogueCorpus, Story, UserMessage
from sparse_bench.data.messages import Message, NluCorpus
from sparse_bench.data.parallel import ParallelCorpus, ParallelText
from sparse_bench.data.ptb import ptb
from sparse_bench.data.tagged import TaggedCorpus
from sparse_bench.data.text import numbered_corpus
from sparse_bench.data.text_types import TextTypeCorpus
from sparse_bench.errors import ConfigError
from sparse_bench.run import run
from sparse_bench.tasks.base import Task
from sparse_bench.tasks.dialogue import DialogueTask
from sparse_bench.tasks.intent import IntentTask
from sparse_bench.tasks.language_modelling import LanguageModellingTask
from sparse_bench.tasks.shares import REFUSED, WARNED, refuse_unknown, twin_share, unknown_token_warnings
from sparse_bench.tasks.tagging import TaggingTask
from sparse_bench.tasks.text_typing import TextTypingTask
from sparse_bench.tasks.translation import TranslationTask

#: Lines of training, validation and test. Of two validation lines one has a twin, and one of its four words is new; of
#: two test lines the words are known, in another order than in training.
TRAIN, VALID, TEST = ["a a b b b", "a c", "d a b"], ["a c", "a e"], ["c a", "b a b d"]


def language_modelling(**settings: Any) -> Task:
    lines = [[line.split() for line in lines] for lines in (TRAIN, VALID, TEST)]
    corpus = numbered_corpus(*lines, vocabulary=settings.pop("vocabulary", None))
    return LanguageModellingTask(corpus=corpus, batch_size=1, valid_batch_size=1, **settings)


def tagging(**settings: Any) -> Task:
    splits = [
        tuple((tuple(line.split()), ("T",) * len(line.split())) for line in lines) for lines in (TRAIN, VALID, TEST)
    ]
    return TaggingTask(corpus=TaggedCorpus(*splits, tags=("T",)), batch_size=1, **settings)


def text_typing(**settings: Any) -> Task:
    splits = [tuple((tuple(line.split()), "T") for line in lines) for lines in (TRAIN, VALID, TEST)]
    return TextTypingTask(corpus=TextTypeCorpus(*splits, types=("T",)), weighted=False, **settings)


def translation(**settings: Any) -> Task:
    # Of the target every word is known: the share is that of the source.
    train, valid, test = (ParallelText(tuple(lines), ("x x x",) * len(lines)) for lines in (TRAIN, VALID, TEST))
    corpus = ParallelCorpus(("en", "de"), train, valid, test, references=test.target)
    return TranslationTask(corpus=corpus, tokenizer="tokenised", translate=False, **settings)


MAKERS: dict[str, Callable[..., Task]] = {
    "dataset.corpus.vocabulary": language_modelling,
    "dataset.vocabulary": tagging,
    "dataset.least_count": text_typing,
    "dataset.min_count": translation,
}


@pytest.mark.parametrize("make", MAKERS.values())
def test_every_split_of_a_task_with_a_vocabulary(make: Callable[..., Task]) -> None:
    assert make().shares == {
        "train": {"unknown_tokens": 0.0},
        "valid": {"unknown_tokens": 0.25, "twins": 0.5},
        "test": {"unknown_tokens": 0.0, "twins": 0.0},
    }


@pytest.mark.parametrize(
    ("setting", "few", "fewer"),
    # a and b alone are known (of 10 words in training 8, of 4 for validation 2, of 6 in the test 4), and still less.
    [
        ("dataset.corpus.vocabulary", 4, 3),
        ("dataset.vocabulary", 4, 3),
        ("dataset.least_count", 4, 5),
        ("dataset.min_count", 4, 5),
    ],
)
def test_few_known_words_are_warned_of_and_too_few_refused(setting: str, few: int, fewer: int) -> None:
    name = setting.rpartition(".")[2]
    task = MAKERS[setting](**{name: few})
    assert task.unknown_tokens == {"train": 0.2, "valid": 0.5, "test": pytest.approx(1 / 3)}
    assert [text.partition(":")[0] for text in unknown_token_warnings(task.unknown_tokens)] == [
        "50% of the tokens of the split 'valid' are unknown",
        "33% of the tokens of the split 'test' are unknown",
    ]
    with pytest.raises(
        ConfigError, match=rf"With {setting}={fewer}, \d+% of the tokens of the split '\w+' are unknown"
    ):
        MAKERS[setting](**{name: fewer})


def test_borders_are_still_allowed() -> None:
    assert not list(unknown_token_warnings({"train": WARNED}))
    assert len(list(unknown_token_warnings({"train": WARNED + 1e-9}))) == 1
    refuse_unknown({"train": REFUSED}, "x=1")
    with pytest.raises(ConfigError, match="More than 60% is refused"):
        refuse_unknown({"train": 0.0, "test": REFUSED + 1e-9}, "x=1")


def test_messages_are_compared_as_they_are_counted() -> None:
    # Among the exactly different messages of each intent all but the first are twins of it, wherever they are.
    messages = [Message(text, f"i{n}") for n in range(4) for text in (f"w{n} 1", f"W{n} 2", f"w{n}, 3!", f"w{n} 4?")]
    corpus = NluCorpus(messages=tuple(messages))
    assert IntentTask(corpus=corpus, batch_epochs=1, test_fraction=0.25).shares == {
        "test": {"unknown_tokens": 0.0, "twins": 1.0}
    }
    different = [Message(f"{word}{n}", f"i{n}") for n in range(4) for word in ("one ", "two ", "one two ", "")]
    task = IntentTask(corpus=NluCorpus(messages=tuple(different)), batch_epochs=1, duplicates="features")
    assert task.shares["test"]["twins"] == 0.0


def test_actions_are_compared_by_the_turns_before_them() -> None:
    def story(*actions: str) -> Story:
        return Story("s", (UserMessage("hi"), *map(Action, actions)))

    corpus = DialogueCorpus(
        stories=(story("a", "b"),),
        test_stories=(story("a", "c"),),
        intents=("hi",),
        entities=(),
        actions=("action_listen", "a", "b", "c"),
        featurized_slots=frozenset(),
    )
    # Before "a" and before "c" (or "b") the turns are the same; before the wait behind "c" they are new.
    assert DialogueTask(corpus=corpus, batch_epochs=1).shares == {"test": {"twins": 2 / 3}}


def test_twins() -> None:
    assert twin_share(["a", "b", "b"], ["b", "c", "b", "B"]) == 0.5
    assert twin_share([], ["a"]) == 0.0


def test_a_result_holds_the_shares(compose_config: Callable[..., DictConfig], tmp_path: Path) -> None:
    small = ("dataset=pos_like", "dataset.corpus.sentences=100", "model=bilstm_tagger", "model.hidden=4")
    small += ("trainer.epochs=1", "logger=none", "progress=false", f"output={tmp_path}")
    result = run(compose_config(*small, "sparsity=dense", "dataset.vocabulary=60"))
    assert result is not None
    assert result.error is None
    assert [text for text in result.warnings if "tokens of the split 'test' are unknown" in text]
    assert set(result.counts["data"]) == {"train", "valid", "test"}
    assert 0 < result.counts["data"]["test"]["unknown_tokens"] < 0.5
    assert result.counts["sparse_layers"] > 0

    refused = run(compose_config(*small, "sparsity=dense", "dataset.vocabulary=3"))
    assert refused is not None
    assert refused.error is not None
    assert refused.error["type"] == "ConfigError"
    assert refused.error["message"].startswith("With dataset.vocabulary=3, ")
    assert refused.steps is None


@pytest.mark.parametrize(("fraction", "vocabulary"), [(0.02, None), (0.05, 2000)])
def test_reduced_treebanks_of_the_sweeps_are_not_refused(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fraction: float, vocabulary: int | None
) -> None:
    monkeypatch.setenv("SPARSE_BENCH_MIRROR", str(shared_data))
    monkeypatch.setenv("SPARSE_BENCH_DATA", str(tmp_path))
    task = LanguageModellingTask(corpus=ptb(fraction=fraction, vocabulary=vocabulary))
    assert 0.15 < task.unknown_tokens["test"] < 0.25
