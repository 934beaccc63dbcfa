"""The TED paper's dialogues: what is known of the corpus, checked on its files."""

from pathlib import Path

import pytest

from sparse_bench.data.dialogues import LISTEN, DialogueCorpus, DialogueTurn, LoopChange, SlotSet, UserMessage
from sparse_bench.data.rasa_domain import DEFAULT_ACTIONS
from sparse_bench.data.ted import DOMAIN, ted


def test_the_domain() -> None:
    assert len(DOMAIN.actions) == len(set(DOMAIN.actions)) == 51
    assert DOMAIN.actions[:11] == DEFAULT_ACTIONS
    assert DOMAIN.actions[0] == LISTEN
    assert (len(DOMAIN.intents), len(DOMAIN.entities)) == (10, 13)
    assert DOMAIN.featurized_slots == {"hotel", "restaurant"}


@pytest.fixture(scope="module")
def corpus(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> DialogueCorpus:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSE_BENCH_MIRROR", str(shared_data))
        patch.setenv("SPARSE_BENCH_DATA", str(tmp_path_factory.mktemp("data")))
        return ted()


def predictions(corpus: DialogueCorpus, part: str) -> list[tuple[DialogueTurn, str]]:
    return [pair for story in getattr(corpus, part) for pair in story.predictions(corpus.featurized_slots)]


def test_stories_and_predictions(corpus: DialogueCorpus) -> None:
    assert (len(corpus.stories), len(corpus.test_stories)) == (147, 30)
    train, test = predictions(corpus, "stories"), predictions(corpus, "test_stories")
    assert (len(train), len(test)) == (3560, 977)
    assert round(sum(action == LISTEN for _, action in test) / 977, 2) == 0.38
    assert {action for _, action in test} <= {action for _, action in train}


def test_what_occurs(corpus: DialogueCorpus) -> None:
    events = [event for story in (*corpus.stories, *corpus.test_stories) for event in story.events]
    assert len({event.intent for event in events if isinstance(event, UserMessage)}) == 8
    everything = predictions(corpus, "stories") + predictions(corpus, "test_stories")
    assert len({action for _, action in everything} - {LISTEN}) == 36
    assert {turn.slots for turn, _ in everything} == {(), ("hotel",), ("restaurant",)}
    assert not any(isinstance(event, LoopChange) for event in events)
    assert {event.name for event in events if isinstance(event, SlotSet)} > corpus.featurized_slots


def test_every_story_begins_with_the_user(corpus: DialogueCorpus) -> None:
    assert all(isinstance(story.events[0], UserMessage) for story in (*corpus.stories, *corpus.test_stories))
    assert len(corpus.checksums) == 5
