"""Splits of corpora that have none. No test example may be a duplicate of a training example."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
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

#: Rules for duplicates: examples that are exactly equal, or that have equal features for a model.
DUPLICATES = ("exact", "features")
Duplicates = Annotated[str, one_of(*DUPLICATES)]


def merged_intent(intent: str) -> str:
    """The intent to which a retrieval intent belongs: ``faq/ask_price`` → ``faq``. Other intents are not changed."""
    return intent.split("/", 1)[0]


def held_out(
    inputs: Sequence[Hashable], shares: Mapping[str, float], seed: int, labels: Sequence[Hashable] | None = None
) -> dict[str, list[int]]:
    """Draw held-out splits at random. Examples with equal inputs are in the same split.

    With labels every label has nearly the same share of each split, and its first example is for training.

    Args:
        inputs: what a model sees of each example [n].
        shares: held-out split → share of the different inputs, rounded to a whole number, but at least one.
        seed: seed of the draw.
        labels: label of each example [n]; of equal inputs the first label counts.

    Returns:
        Split → numbers of its examples, in order: each split of ``shares``, and ``train``.

    Raises:
        DataError: too few different examples.
    """
    labels = [None] * len(inputs) if labels is None else labels
    label_of: dict[Hashable, Hashable] = {}
    for one, label in zip(inputs, labels, strict=True):
        label_of.setdefault(one, label)
    different = list(label_of)
    first = set({label: number for number, label in reversed([*enumerate(label_of.values())])}.values())
    ranks = {label: rank for rank, label in enumerate(dict.fromkeys(label_of.values()))}

    # Sort the candidates by label, in random order within a label, and take every so-and-so-many-th.
    order = Streams(seed).numpy("data", "held_out").permutation(len(different)).tolist()
    left = sorted((place for place in order if place not in first), key=lambda n: ranks[label_of[different[n]]])
    split_of = dict.fromkeys(different, "train")
    for split, share in shares.items():
        count = max(1, round(share * len(different)))
        if count > len(left):
            classes = f" of {len(first)} classes" if len(first) > 1 else ""
            raise DataError(f"{len(different)} different examples{classes} are too few for the shares {dict(shares)}.")
        chosen = {round((place + 0.5) * len(left) / count - 0.5) for place in range(count)}
        split_of |= {different[left[place]]: split for place in chosen}
        left = [number for place, number in enumerate(left) if place not in chosen]
    found: dict[str, list[int]] = {split: [] for split in ("train", *shares)}
    for number, one in enumerate(inputs):
        found[split_of[one]].append(number)
    return found


@checked
def split_messages(
    messages: Sequence[Message], test_fraction: Part, seed: Seed, duplicates: Duplicates
) -> tuple[list[Message], list[Message]]:
    """Split messages into training and test messages, each in corpus order.

    Of duplicates only the first is kept, with its intent and entities. The split is random and stratified by merged
    intent (scikit-learn).

    Args:
        messages: the corpus.
        test_fraction: share of the different messages in the test split.
        seed: seed of the split.
        duplicates: ``features``: messages with the same :func:`counted_words` are duplicates, even if their intents
            differ, so that no test message looks like a training message. ``exact``: messages with the same text and
            merged intent are duplicates. Then texts that differ in case, punctuation or numbers are all kept, and so is
            a text with two intents.

    Raises:
        ConfigError: ``test_fraction`` is not between 0 and 1, or the rule for duplicates is unknown.
        DataError: too few messages for a stratified split, or a blank message.
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
            f"Cannot split {len(unique)} different messages of {len(set(intents))} intents by intent: {error} "
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
    """Split stories into training and test stories, each in the given order. Of duplicates only the first is kept.

    Args:
        stories: the paths of each written story, one for each combination of its alternatives (OR). The paths of a
            story stay in the same split.
        test_fraction: share of the different written stories that is held out, rounded to a whole number.
        seed: seed of the split.
        featurized_slots: slots that a policy sees.
        duplicates: ``features``: paths that look the same to a policy (:meth:`Story.course`) are duplicates, in any
            story, so that no test story looks like a training story. ``exact``: written stories with the same events
            are duplicates. Then stories that differ only in the values of entities are all kept.

    Raises:
        ConfigError: ``test_fraction`` is not between 0 and 1, or the rule for duplicates is unknown.
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
