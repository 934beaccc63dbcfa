"""Sara's stories: counts, alternatives, the split, and what a policy sees, on the corpus's files."""

from pathlib import Path

import pytest

from sparse_bench.data.dialogues import LISTEN, Action, DialogueCorpus, LoopChange, UserMessage
from sparse_bench.data.sara_stories import sara_stories


@pytest.fixture(scope="module")
def corpus(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> DialogueCorpus:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSE_BENCH_MIRROR", str(shared_data))
        patch.setenv("SPARSE_BENCH_DATA", str(tmp_path_factory.mktemp("data")))
        return sara_stories()


def test_counts(corpus: DialogueCorpus) -> None:
    assert (len(corpus.intents), len(corpus.entities), len(corpus.actions)) == (41, 14, 178)
    assert corpus.actions[0] == LISTEN
    assert len(corpus.featurized_slots) == 30
    assert (len(corpus.stories), len(corpus.test_stories)) == (315, 78)
    assert len(corpus.checksums) == 12  # eleven files of stories and the domain; no rules


def test_no_course_of_a_test_story_is_trained_on(corpus: DialogueCorpus) -> None:
    assert not {story.events for story in corpus.stories} & {story.events for story in corpus.test_stories}


def test_loops_slots_and_entities_are_seen(corpus: DialogueCorpus) -> None:
    turns = [
        turn
        for story in (*corpus.stories, *corpus.test_stories)
        for turn, _ in story.predictions(corpus.featurized_slots)
    ]
    assert {turn.loop for turn in turns} == {None, "sales_form", "subscribe_newsletter_form"}
    assert any({"onboarding", "onboarding=true"} <= set(turn.slots) for turn in turns)
    assert any(turn.slots == ("current_api=__other__",) for turn in turns)
    assert not any(turn.entities for turn in turns if turn.intent in ("chitchat", "enter_data"))
    # Of the answer 'name: akela' a policy sees no entity, but the slot that it fills.
    assert any(turn.intent == "enter_data" and "name" in turn.slots for turn in turns)


def test_three_stories_go_on_from_an_action(corpus: DialogueCorpus) -> None:
    stories = (*corpus.stories, *corpus.test_stories)
    begun = [story for story in stories if not isinstance(story.events[0], UserMessage)]
    assert {story.events[0] for story in begun} == {Action("utter_anything_else")}
    assert len(begun) == 3
    assert any(isinstance(event, LoopChange) for story in stories for event in story.events)
