"""From stories to packed batches: examples of states and actions, and the arrays from which batches are gathered."""

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
#: What a turn has of an attribute, as the names of its features; none: it lacks the attribute.
Value = tuple[str, ...]


def examples(stories: Iterable[Story], featurized_slots: frozenset[str], max_history: int) -> list[Example]:
    """One example an action, story after story: the at most ``max_history`` latest turns, and the action.

    Raises:
        DataError: nothing is said or done in a story.
    """
    found = []
    for story in stories:
        turns: list[DialogueTurn] = []
        for turn, action in story.predictions(featurized_slots):
            turns = [*turns[1 - max_history or len(turns) :], turn]
            found.append((tuple(turns), action))
    return found


def ceiling(data: Sequence[Example]) -> float:
    """The best accuracy that a policy can reach on ``data`` if it sees nothing but the turns of each example."""
    actions: dict[tuple[DialogueTurn, ...], Counter[str]] = {}
    for turns, action in data:
        actions.setdefault(turns, Counter())[action] += 1
    return sum(max(counts.values()) for counts in actions.values()) / len(data)


def _values(turn: DialogueTurn) -> dict[str, Value]:
    return {
        "intent": (turn.intent,) if turn.intent else (),
        "previous_action": (turn.previous_action,),
        "entities": turn.entities,
        "slots": turn.slots,
        "loop": (turn.loop,) if turn.loop else (),
    }


class Attributes:
    """Numbers for what turns have.

    The values of single-valued attributes are the domain's names; those of ``entities`` and ``slots`` are the sets
    that occur, in the test as well: a set that is not in the training data still has the features of its members.

    Args:
        corpus: the domain.
        train: training examples; an attribute that no turn of theirs has does not exist.
        test: test examples.
    """

    def __init__(self, corpus: DialogueCorpus, train: Sequence[Example], test: Sequence[Example]) -> None:
        seen = [_values(turn) for turn in _distinct(train)]
        everything = seen + [_values(turn) for turn in _distinct(test)]
        loops = sorted({value for values in everything for value in values["loop"]})
        names: dict[str, Sequence[str]] = {
            "intent": corpus.intents,
            "previous_action": corpus.actions,
            "entities": corpus.entities,
            "slots": sorted(corpus.featurized_slots),
            "loop": loops,
        }
        self._numbers: dict[str, Mapping[Value, int]] = {}
        #: As the model sees them.
        self.sizes: dict[str, Attribute] = {}
        for attribute, features in names.items():
            if not any(values[attribute] for values in seen):
                continue
            if attribute in ("entities", "slots"):
                occurring = sorted({values[attribute] for values in everything if values[attribute]})
            else:
                occurring = [(name,) for name in features]
            self._numbers[attribute] = {value: number for number, value in enumerate(occurring)}
            self.sizes[attribute] = Attribute(_features(attribute, occurring, features))

    def encode(self, turn: DialogueTurn) -> list[int]:
        """The number of the value of each attribute; the number of values where there is none.

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
        raise DataError(unknown_choice(attribute, " + ".join(value), (name for known in numbers for name in known)))
    return numbers[value]


def _features(attribute: str, values: Sequence[Value], names: Sequence[str]) -> torch.Tensor:
    """One row a value, 1 at each of its features [values, names]."""
    numbers = {name: number for number, name in enumerate(names)}
    table = torch.zeros(len(values), len(names))
    for row, value in enumerate(values):
        for name in value:
            if name not in numbers:
                raise DataError(unknown_choice(f"name among {attribute}", name, names))
            table[row, numbers[name]] = 1
    return table


def _distinct(data: Iterable[Example]) -> list[DialogueTurn]:
    """The turns that occur, in the order in which they first do."""
    return list(dict.fromkeys(turn for turns, _ in data for turn in turns))


class ExampleArrays:
    """The examples of a split, encoded once, ready for batches to be gathered from.

    Args:
        data: the examples, at least one.
        attributes: numbers for what turns have.
        actions: all actions; their order is that of the labels.

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
        # Latest first: the turn that is answered stands at position 0 whatever the length.
        self._turns = np.array([numbers[turn] for example, _ in data for turn in reversed(example)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.actions)

    def batch(self, numbers: np.ndarray) -> DialogueBatch:
        """The examples with these numbers, in this order, packed."""
        lengths = self.lengths[numbers]
        return DialogueBatch(
            turns=torch.from_numpy(self._values[self._turns[ranges(self._first[numbers], lengths)]]),
            layout=Layout.of(lengths),
            latest_rows=torch.from_numpy(np.cumsum(lengths) - lengths),
            actions=torch.from_numpy(self.actions[numbers]),
        )
