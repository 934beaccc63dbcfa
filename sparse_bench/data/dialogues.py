"""Dialogues as a policy sees them: stories of events, and the state of the conversation before each action.

Events and states are those of Rasa 2.6's dialogue policies. Stories from files and generated stories have this same
form.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from sparse_bench.errors import DataError

#: The action of waiting for the user; every user message follows one.
LISTEN = "action_listen"


@dataclass(frozen=True)
class UserMessage:
    """A user message: its intent, and pairs of entity type and value."""

    intent: str
    entities: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Action:
    """An action of the assistant. Stories do not contain the action of waiting for the user (:data:`LISTEN`)."""

    name: str


@dataclass(frozen=True)
class SlotSet:
    """A slot got a value; None empties it.

    Attributes:
        name: the slot.
        value: its value as text.
        amount: what a policy sees of a set slot, more than 0 and at most 1. It is less than 1 only for numbers.
    """

    name: str
    value: str | None
    amount: float = 1.0


@dataclass(frozen=True)
class LoopChange:
    """A loop (a form) became active; None: the active one ended."""

    name: str | None


Event = UserMessage | Action | SlotSet | LoopChange


@dataclass(frozen=True)
class DialogueTurn:
    """The state before one prediction.

    Attributes:
        previous_action: the latest action.
        intent: intent of the latest message, if nothing happened after it (``previous_action`` is :data:`LISTEN`); else
            None.
        entities: entity types in that message, sorted, each once.
        slots: featurised slots that are set, sorted.
        loop: the active loop, if any.
        amounts: for slots that hold a number: slot and amount, where the amount is less than 1, sorted. All other
            slots in ``slots`` have the amount 1.
    """

    previous_action: str
    intent: str | None = None
    entities: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()
    loop: str | None = None
    amounts: tuple[tuple[str, float], ...] = ()


class StateTracker:
    """Keeps the state of a conversation, event by event.

    Args:
        featurized_slots: slots that are part of the state.
    """

    def __init__(self, featurized_slots: frozenset[str]) -> None:
        self._featurized = featurized_slots
        self._slots: dict[str, float] = {}
        self._previous = LISTEN
        self._message: UserMessage | None = None
        self._loop: str | None = None

    def state(self) -> DialogueTurn:
        """The state after all events so far."""
        message = self._message
        return DialogueTurn(
            previous_action=self._previous,
            intent=message.intent if message else None,
            entities=tuple(sorted({kind for kind, _ in message.entities})) if message else (),
            slots=tuple(sorted(self._slots)),
            loop=self._loop,
            amounts=tuple(sorted((name, amount) for name, amount in self._slots.items() if amount < 1)),
        )

    def update(self, event: Event) -> None:
        """Update the state by the next event. A message implies that the assistant waited for it."""
        match event:
            case UserMessage():
                self._previous, self._message = LISTEN, event
            case Action(name):
                self._previous, self._message = name, None
            case SlotSet(name, value, amount) if name in self._featurized:
                self._slots.pop(name, None)
                if value is not None:
                    self._slots[name] = amount
            case LoopChange(name):
                self._loop = name


@dataclass(frozen=True)
class Story:
    """One conversation, from its first message or action to the assistant's last action."""

    name: str
    events: tuple[Event, ...]

    def predictions(self, featurized_slots: frozenset[str]) -> Iterator[tuple[DialogueTurn, str]]:
        """Every state in which the assistant acts, and its action there, including waiting for the user.

        A policy with a history of k predicts the n-th action from the states n − k + 1 to n. A story's first action
        (the wait before the first message, or an action of the assistant) is not predicted, as nothing precedes it.

        Raises:
            DataError: the story has neither a message nor an action.
        """
        tracker = StateTracker(featurized_slots)
        begun = False
        for event in self.events:
            if isinstance(event, Action | UserMessage):
                if begun:
                    yield tracker.state(), event.name if isinstance(event, Action) else LISTEN
                begun = True
            tracker.update(event)
        if not begun:
            raise DataError(f"Story '{self.name}' has neither a message nor an action.")
        # After its last action the assistant waits for the user again.
        yield tracker.state(), LISTEN

    def course(self, featurized_slots: frozenset[str]) -> tuple[tuple[DialogueTurn, str], ...]:
        """Everything that a policy sees of the story: all :meth:`predictions`."""
        return tuple(self.predictions(featurized_slots))


@dataclass(frozen=True)
class DialogueCorpus:
    """Stories for training and testing a policy, and their domain.

    Attributes:
        stories: for training.
        test_stories: held out.
        intents: all intents of the domain.
        entities: all entity types of the domain.
        actions: all actions of the domain, :data:`LISTEN` first.
        featurized_slots: slots that a policy sees; other slots only hold values.
        checksums: file (or generator) name → SHA-256 of what the corpus was made from.
    """

    stories: tuple[Story, ...]
    test_stories: tuple[Story, ...]
    intents: tuple[str, ...]
    entities: tuple[str, ...]
    actions: tuple[str, ...]
    featurized_slots: frozenset[str]
    checksums: dict[str, str] = field(default_factory=dict)
