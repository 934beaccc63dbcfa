"""Splits of corpora that come without one: no test example may be one of the training examples again."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Annotated

import numpy as np
from sklearn.model_selection import train_test_split

from sparse_bench.data.dialogues import Story
from sparse_bench.data.featurizers import counted_words
from sparse_bench.data.messages import Message
from sparse_bench.data.tokenizer import tokenize
from sparse_bench.errors import DataError
from sparse_bench.limits import Part, Seed, checked, one_of
from sparse_bench.streams import Streams

#: What makes one example the duplicate of another: all of it, or what a model sees of it.
DUPLICATES = ("exact", "features")
Duplicates = Annotated[str, one_of(*DUPLICATES)]


def merged_intent(intent: str) -> str:
    """The intent that a retrieval intent belongs to: ``faq/ask_price`` → ``faq``. Any other intent is itself."""
    return intent.split("/", 1)[0]


@checked
def split_messages(
    messages: Sequence[Message], test_fraction: Part, seed: Seed, duplicates: Duplicates
) -> tuple[list[Message], list[Message]]:
    """Training and test messages, each in corpus order.

    Of duplicates the first alone is kept, with its intent and entities. The split is random with every merged intent
    in its share of the whole (scikit-learn's stratified split).

    Args:
        messages: the corpus.
        test_fraction: share of the different messages that is tested on.
        seed: of the random choice.
        duplicates: ``features``: messages with the same :func:`counted_words`, whatever their intents, so that no test
            message looks like one in training. ``exact``: messages with the very same text and merged intent; then
            texts that differ in case, punctuation or numbers are different, and a text under two intents stays under
            both.

    Raises:
        ConfigError: ``test_fraction`` is not between 0 and 1, or there is no such rule for duplicates.
        DataError: too few messages for a stratified split, or a blank one.
    """
    first: dict[Hashable, Message] = {}
    for message in messages:
        exact = message.text, merged_intent(message.intent)
        first.setdefault(exact if duplicates == "exact" else counted_words(tokenize(message.text)), message)
    unique = list(first.values())
    intents = [merged_intent(message.intent) for message in unique]
    try:
        train, test = train_test_split(
            np.arange(len(unique)), test_size=test_fraction, stratify=intents, random_state=seed
        )
    except ValueError as error:
        raise DataError(
            f"Cannot split {len(unique)} different messages by intent, of which there are {len(set(intents))}: {error} "
            "Use more messages, or another dataset.test_fraction."
        ) from error
    return [unique[index] for index in sorted(train)], [unique[index] for index in sorted(test)]


@checked
def split_stories(
    stories: Sequence[tuple[Story, ...]],
    test_fraction: Part,
    seed: Seed,
    featurized_slots: frozenset[str],
    duplicates: Duplicates,
) -> tuple[tuple[Story, ...], tuple[Story, ...]]:
    """Training and test stories, each in the given order.

    Args:
        stories: the paths of each written story (its alternatives, OR); they stay together.
        test_fraction: share of the different written stories that is held out, rounded to a whole number of them.
        seed: of the random choice.
        featurized_slots: slots that a policy sees.
        duplicates: ``features``: of paths of which a policy sees the same (:meth:`Story.course`), in whatever stories,
            the first alone is kept, so that no test story looks like one in training. ``exact``: of written stories
            with the very same events, whatever their names, the first alone is kept; then stories that differ in the
            values of entities alone are different.

    Raises:
        ConfigError: ``test_fraction`` is not between 0 and 1, or there is no such rule for duplicates.
    """
    first: dict[Hashable, tuple[int, tuple[Story, ...]]] = {}
    for number, paths in enumerate(stories):
        if duplicates == "exact":
            first.setdefault(tuple(story.events for story in paths), (number, paths))
        else:
            for story in paths:
                first.setdefault(story.course(featurized_slots), (number, (story,)))
    written: defaultdict[int, list[Story]] = defaultdict(list)
    for number, kept in first.values():
        written[number] += kept
    different = list(written.values())
    order = Streams(seed).numpy("data", "sara_stories").permutation(len(different)).tolist()
    held_out = round(test_fraction * len(different))

    def part(numbers: list[int]) -> tuple[Story, ...]:
        return tuple(story for number in sorted(numbers) for story in different[number])

    return part(order[held_out:]), part(order[:held_out])
