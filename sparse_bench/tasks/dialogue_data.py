"""Dialogue data: turn stories into examples of turns and an action, and gather packed batches from them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from sparse_bench.batch import Attribute, DialogueBatch, Layout
from sparse_bench.data.dialogues import DialogueCorpus, DialogueTurn, Story
from sparse_bench.errors import DataError, unknown_choice
from sparse_bench.tasks.ranges import ranges

#: The latest turns before a prediction, oldest first, and the action.
Example = tuple[tuple[DialogueTurn, ...], str]
#: A turn's value of an attribute: its features that are not 0, with their amounts; empty without the attribute.
Value = tuple[tuple[str, float], ...]


def examples(stories: Iterable[Story], featurized_slots: frozenset[str], max_history: int) -> list[Example]:
    """Make one example per action, story after story: the latest turns, at most ``max_history``, and the action.

    Raises:
        DataError: a story without a message or an action.
    """
    found = []
    for story in stories:
        turns: list[DialogueTurn] = []
        for turn, action in story.predictions(featurized_slots):
            turns = [*turns[1 - max_history or len(turns) :], turn]
            found.append((tuple(turns), action))
    return found


def ceiling(data: Sequence[Example]) -> float:
    """The best possible accuracy on ``data`` of a policy that only reads the turns of each example."""
    actions: dict[tuple[DialogueTurn, ...], Counter[str]] = {}
    for turns, action in data:
        actions.setdefault(turns, Counter())[action] += 1
    return sum(max(counts.values()) for counts in actions.values()) / len(data)


def _values(turn: DialogueTurn) -> dict[str, Value]:
    amounts = dict(turn.amounts)
    return {
        "intent": _present(turn.intent) if turn.intent else (),
        "previous_action": _present(turn.previous_action),
        "entities": _present(*turn.entities),
        "slots": tuple((slot, amounts.get(slot, 1.0)) for slot in turn.slots),
        "loop": _present(turn.loop) if turn.loop else (),
    }


def _present(*names: str) -> Value:
    return tuple((name, 1.0) for name in names)


class Attributes:
    """Numbering of the values of turns' attributes.

    The values of single-valued attributes are the names in the domain. The values of ``entities`` and ``slots`` are the
    sets that occur in training or test: a set that only the test has still has the features of its members.

    Args:
        corpus: the corpus, for its domain.
        train: training examples. Attributes that none of their turns has are left out.
        test: test examples.

    Attributes:
        sizes: the attributes that exist, by name.

    Raises:
        DataError: an entity or slot that the domain does not have.
    """

    def __init__(self, corpus: DialogueCorpus, train: Sequence[Example], test: Sequence[Example]) -> None:
        seen = [_values(turn) for turn in _distinct(train)]
        everything = seen + [_values(turn) for turn in _distinct(test)]
        loops = sorted({name for values in everything for name, _ in values["loop"]})
        names: dict[str, Sequence[str]] = {
            "intent": corpus.intents,
            "previous_action": corpus.actions,
            "entities": corpus.entities,
            "slots": sorted(corpus.featurized_slots),
            "loop": loops,
        }
        self._numbers: dict[str, Mapping[Value, int]] = {}
        self.sizes: dict[str, Attribute] = {}
        for attribute, features in names.items():
            if not any(values[attribute] for values in seen):
                continue
            if attribute in ("entities", "slots"):
                occurring = sorted({values[attribute] for values in everything if values[attribute]})
            else:
                occurring = [_present(name) for name in features]
            self._numbers[attribute] = {value: number for number, value in enumerate(occurring)}
            counts = Counter(name for turns, _ in train for turn in turns for name, _ in _values(turn)[attribute])
            frequencies = tuple(counts[name] for name in features)
            self.sizes[attribute] = Attribute(_features(attribute, occurring, features), frequencies)

    def encode(self, turn: DialogueTurn) -> list[int]:
        """The number of the turn's value of each attribute. If the turn has none, it is the count of values.

        Raises:
            DataError: a value that the domain does not have.
        """
        values = _values(turn)
        return [
            _number(attribute, numbers, values[attribute]) if values[attribute] else len(numbers)
            for attribute, numbers in self._numbers.items()
        ]


def _number(attribute: str, numbers: Mapping[Value, int], value: Value) -> int:
    if value not in numbers:
        names = (name for known in numbers for name, _ in known)
        raise DataError(unknown_choice(attribute, " + ".join(name for name, _ in value), names))
    return numbers[value]


def _features(attribute: str, values: Sequence[Value], names: Sequence[str]) -> torch.Tensor:
    """A table [values, names]: one row per value, with the amount of each of its features, and zeros."""
    numbers = {name: number for number, name in enumerate(names)}
    table = torch.zeros(len(values), len(names))
    for row, value in enumerate(values):
        for name, amount in value:
            if name not in numbers:
                raise DataError(unknown_choice(f"name among {attribute}", name, names))
            table[row, numbers[name]] = amount
    return table


def _distinct(data: Iterable[Example]) -> list[DialogueTurn]:
    """The different turns, in the order of their first occurrence."""
    return list(dict.fromkeys(turn for turns, _ in data for turn in turns))


class ExampleArrays:
    """The encoded examples of a split, from which batches are gathered.

    Args:
        data: the examples, at least one.
        attributes: numbering of the values of turns' attributes.
        actions: all actions, in the order of their labels.

    Attributes:
        actions: label of each example [examples], int64.
        lengths: turns of each example [examples], int64.

    Raises:
        DataError: a name that the domain does not have.
    """

    def __init__(self, data: Sequence[Example], attributes: Attributes, actions: Sequence[str]) -> None:
        labels = {action: label for label, action in enumerate(actions)}
        for _, action in data:
            if action not in labels:
                raise DataError(unknown_choice("action", action, actions))
        self.actions = np.array([labels[action] for _, action in data], dtype=np.int64)
        self.lengths = np.array([len(turns) for turns, _ in data], dtype=np.int64)
        self._first = np.cumsum(self.lengths) - self.lengths
        turns = _distinct(data)
        numbers = {turn: number for number, turn in enumerate(turns)}
        self._values = np.array([attributes.encode(turn) for turn in turns], dtype=np.int64)
        # Latest turn first, so that the turn to be answered has position 0 for any length.
        self._turns = np.array([numbers[turn] for example, _ in data for turn in reversed(example)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.actions)

    def batch(self, numbers: np.ndarray) -> DialogueBatch:
        """A packed batch of the examples with these numbers, in this order."""
        lengths = self.lengths[numbers]
        return DialogueBatch(
            turns=torch.from_numpy(self._values[self._turns[ranges(self._first[numbers], lengths)]]),
            layout=Layout.of(lengths),
            latest_rows=torch.from_numpy(np.cumsum(lengths) - lengths),
            actions=torch.from_numpy(self.actions[numbers]),
        )
