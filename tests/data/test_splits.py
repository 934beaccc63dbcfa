"""Splits of corpora that come without one: shares, order, seeds, and no duplicate across the split."""

from collections import Counter
from pathlib import Path

import pytest

from sparse_bench.config import build
from sparse_bench.data.dialogues import Action, SlotSet, Story, UserMessage
from sparse_bench.data.featurizers import CountFeaturizer, counted_words
from sparse_bench.data.messages import Message
from sparse_bench.data.sara_like import sara_like
from sparse_bench.data.splits import DUPLICATES, merged_intent, split_messages, split_stories
from sparse_bench.data.tokenizer import tokenize
from sparse_bench.errors import ConfigError, DataError
from tests.tasks.nlu_corpus import small_corpus


@pytest.fixture
def real_corpora(shared_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPARSE_BENCH_MIRROR", str(shared_data))
    monkeypatch.setenv("SPARSE_BENCH_DATA", str(tmp_path))


# ---------------------------------------------------------------- messages


def test_sub_intents_are_merged() -> None:
    assert merged_intent("faq/price/now") == "faq"
    assert merged_intent("greet") == "greet"


def test_duplicates_are_dropped_and_every_intent_has_its_share() -> None:
    train, test = split_messages(small_corpus().messages, 0.25, 0, "exact")
    assert len(train) + len(test) == 59  # 61 messages, two of them copies
    assert len({(message.text, message.intent) for message in train + test}) == 59
    share = {"greet": 5, "travel": 6, "order": 3, "faq": 1}
    found = {intent: sum(merged_intent(message.intent) == intent for message in test) for intent in share}
    assert found == pytest.approx(share, abs=1)


def test_exact_duplicates_are_the_same_text_under_the_same_intent() -> None:
    messages = [Message("same", "a"), Message("same", "b"), Message("Same", "a"), Message("same?", "b")]
    train, test = split_messages([*messages, Message("same", "a")], 0.5, 0, "exact")
    assert sorted(train + test, key=messages.index) == messages


def test_sub_intents_of_one_intent_are_no_difference() -> None:
    messages = [Message("same", "a/x"), Message("same", "a/y"), Message("other", "a"), *(Message(c, "b") for c in "cd")]
    train, test = split_messages(messages, 0.5, 0, "exact")
    assert sorted(message.intent for message in train + test) == ["a", "a/x", "b", "b"]


def test_of_messages_with_the_same_features_the_first_is_kept_whatever_its_intent() -> None:
    kept = [Message("Same here", "a"), Message("other", "a"), Message("12 of them", "b"), Message("here same", "b")]
    dropped = [Message("same, here!", "b"), Message("OTHER?", "a"), Message("7 of  them", "a"), Message("other", "b")]
    train, test = split_messages([*kept, *dropped], 0.5, 0, "features")
    assert sorted(train + test, key=kept.index) == kept


@pytest.mark.parametrize("duplicates", DUPLICATES)
def test_order_is_that_of_the_corpus(duplicates: str) -> None:
    messages = list(small_corpus().messages)
    for part in split_messages(messages, 0.2, 3, duplicates):
        positions = [messages.index(message) for message in part]
        assert positions == sorted(positions)


@pytest.mark.parametrize("duplicates", DUPLICATES)
def test_the_seed_alone_decides(duplicates: str) -> None:
    messages = small_corpus().messages
    assert split_messages(messages, 0.2, 1, duplicates) == split_messages(messages, 0.2, 1, duplicates)
    assert split_messages(messages, 0.2, 1, duplicates) != split_messages(messages, 0.2, 2, duplicates)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 2])
def test_a_fraction_outside_its_range(fraction: float) -> None:
    with pytest.raises(ConfigError, match="test_fraction"):
        split_messages(small_corpus().messages, fraction, 0, "exact")


def test_an_unknown_rule_for_duplicates() -> None:
    with pytest.raises(ConfigError, match=r"'feature'\. Did you mean 'features'"):
        split_messages(small_corpus().messages, 0.2, 0, "feature")
    with pytest.raises(ConfigError, match="Valid choices: exact, features"):
        split_stories(WRITTEN, 0.3, 0, frozenset(), "text")


def test_too_few_messages() -> None:
    with pytest.raises(DataError, match="Cannot split 2 different messages"):
        split_messages([Message("a", "a"), Message("b", "b")], 0.5, 0, "exact")


def test_words_that_count_alike_have_the_same_sentence_features() -> None:
    texts = [tokenize(text) for text in ("Send 12 euros, please!", "send  7 Euros please", "send euros 7 please")]
    words = [counted_words(text) for text in texts]
    assert words[0] == words[1] == ("send", "__number__", "euros", "please") != words[2]
    for featurizer in (CountFeaturizer(), CountFeaturizer("char_wb", (1, 4))):
        rows = featurizer.fit_transform(texts).sentences.toarray()
        assert (rows[0] == rows[1]).all()


def twins(train: list[Message], test: list[Message]) -> int:
    known = {counted_words(tokenize(message.text)) for message in train}
    return sum(counted_words(tokenize(message.text)) in known for message in test)


@pytest.mark.usefixtures("real_corpora")
@pytest.mark.parametrize(("dataset", "messages", "before"), [("sara", 4476, 159), ("sara_like", 4388, 173)])
def test_no_test_message_of_a_shipped_split_has_a_twin_in_training(
    compose_config, dataset: str, messages: int, before: int
) -> None:
    task = build(compose_config(f"dataset={dataset}").dataset, _partial_=False)
    assert twins(*split_messages(task.corpus.messages, 0.2, 0, "exact")) == before
    assert len(task.train_messages) + len(task.test_messages) == messages
    assert twins(task.train_messages, task.test_messages) == 0


def test_every_intent_stays_on_both_sides() -> None:
    messages = sara_like().messages
    for part in split_messages(messages, 0.2, 0, "features"):
        assert {message.intent for message in part} == {message.intent for message in messages}


# ---------------------------------------------------------------- stories


def story(name: str, *actions: str, value: str = "red") -> Story:
    said = UserMessage("greet", (("colour", value),)), SlotSet("colour", value)
    return Story(name, (*said, *map(Action, actions)))


#: Ten written stories; every third has two paths.
WRITTEN = [tuple(story(f"{n}.{path}", f"a{n}", f"b{path}") for path in range(1 + (n % 3 == 0))) for n in range(10)]
SLOTS = frozenset({"colour"})


@pytest.mark.parametrize("duplicates", DUPLICATES)
def test_the_split_keeps_paths_together_and_is_fixed_by_its_seed(duplicates: str) -> None:
    train, test = split_stories(WRITTEN, 0.3, 0, SLOTS, duplicates)
    assert (train, test) == split_stories(WRITTEN, 0.3, 0, SLOTS, duplicates)
    assert split_stories(WRITTEN, 0.3, 1, SLOTS, duplicates) != (train, test)
    sides = [{path.name.partition(".")[0] for path in side} for side in (train, test)]
    assert [len(side) for side in sides] == [7, 3]
    assert not sides[0] & sides[1]
    assert len(train) + len(test) == 14
    assert [path.name for path in test] == sorted(path.name for path in test)


def test_of_stories_with_the_same_events_the_first_is_kept() -> None:
    again = (story("again", "a1", "b0"),)
    assert split_stories([*WRITTEN, again], 0.3, 0, SLOTS, "exact") == split_stories(WRITTEN, 0.3, 0, SLOTS, "exact")


def test_of_paths_of_which_a_policy_sees_the_same_the_first_is_kept() -> None:
    # Another value of an entity is another story to the letter, and nothing that a policy sees.
    blue = (story("blue", "a1", "b0", value="blue"), story("new", "c", value="blue"))
    kept = {duplicates: split_stories([*WRITTEN, blue], 0.3, 0, SLOTS, duplicates) for duplicates in DUPLICATES}
    names = {duplicates: Counter(path.name for part in parts for path in part) for duplicates, parts in kept.items()}
    assert names["exact"] - names["features"] == Counter(["blue"])
    assert names["features"]["new"] == 1


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_neither_side_may_be_empty(fraction: float) -> None:
    with pytest.raises(ConfigError, match="test_fraction"):
        split_stories(WRITTEN, fraction, 0, SLOTS, "exact")


@pytest.mark.usefixtures("real_corpora")
@pytest.mark.parametrize("dataset", ["sara_stories", "booking_like"])
def test_of_no_test_story_of_a_shipped_split_a_policy_saw_the_same_in_training(compose_config, dataset: str) -> None:
    config = compose_config(f"dataset={dataset}").dataset.corpus
    # Without exact duplicates there are twins still, in the split of Sara's stories with seed 7 for instance.
    seed = {"split_seed": 7} if dataset == "sara_stories" else {"seed": 0}
    found = {}
    for duplicates in DUPLICATES:
        corpus = build(config, **seed, duplicates=duplicates)
        known = {story.course(corpus.featurized_slots) for story in corpus.stories}
        found[duplicates] = sum(story.course(corpus.featurized_slots) in known for story in corpus.test_stories)
    assert found["exact"] > 0
    assert found["features"] == 0
    assert config.duplicates == "features"
