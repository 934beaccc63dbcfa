"""Dialogues as a policy sees them: stories of events, and the state of the conversation before each action.

The events and states are those of the Rasa 2.6 dialogue policies, so that stories read from files and generated ones
are the same to everything that comes after.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from sparse_bench.errors import DataError

#: The action of waiting for the user; every user message follows one.
LISTEN = "action_listen"


@dataclass(frozen=True)
class UserMessage:
    """What the user said: the intent, and pairs of entity type and value."""

    intent: str
    entities: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Action:
    """What the assistant did; waiting for the user (:data:`LISTEN`) is not written into stories."""

    name: str


@dataclass(frozen=True)
class SlotSet:
    """A slot got a value; None empties it."""

    name: str
    value: str | None


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
        intent: of the latest message, if that is what happened last, i.e. after :data:`LISTEN`; else None.
        entities: entity types in that message, sorted, each once.
        slots: featurised slots that are set, sorted.
        loop: the active loop, if any.
    """

    previous_action: str
    intent: str | None = None
    entities: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()
    loop: str | None = None


@dataclass(frozen=True)
class Story:
    """One conversation, from the user's first message to the assistant's last action."""

    name: str
    events: tuple[Event, ...]

    def predictions(self, featurized_slots: frozenset[str]) -> Iterator[tuple[DialogueTurn, str]]:
        """Every state in which the assistant acts, and the action that it takes, waiting included.

        A policy with a history of k predicts the n-th action from the states n − k + 1 to n. The wait before the
        first message is no prediction: there is nothing yet to predict it from.

        Raises:
            DataError: the story does not begin with a message of the user.
        """
        if not self.events or not isinstance(self.events[0], UserMessage):
            raise DataError(f"Story '{self.name}' does not begin with a message of the user.")
        slots: set[str] = set()
        previous = LISTEN
        message: UserMessage | None = None
        loop: str | None = None

        def state() -> DialogueTurn:
            entities = {kind for kind, _ in message.entities} if message else set()
            intent = message.intent if message else None
            return DialogueTurn(previous, intent, tuple(sorted(entities)), tuple(sorted(slots)), loop)

        for event in self.events:
            match event:
                case UserMessage():
                    if previous != LISTEN:
                        yield state(), LISTEN
                    previous, message = LISTEN, event
                case Action(name):
                    yield state(), name
                    previous, message = name, None
                case SlotSet(name, value) if name in featurized_slots:
                    slots = slots | {name} if value is not None else slots - {name}
                case LoopChange(name):
                    loop = name
        # After its last action the assistant waits for the user again.
        yield state(), LISTEN


@dataclass(frozen=True)
class DialogueCorpus:
    """Stories to train a policy on and to test it, and the domain that they speak of.

    Attributes:
        stories: for training.
        test_stories: held out.
        intents: all intents of the domain.
        entities: all entity types of the domain.
        actions: all actions of the domain, :data:`LISTEN` first.
        featurized_slots: slots that a policy sees; the others only hold values.
        checksums: file (or generator) name → SHA-256 of what the corpus was made from.
    """

    stories: tuple[Story, ...]
    test_stories: tuple[Story, ...]
    intents: tuple[str, ...]
    entities: tuple[str, ...]
    actions: tuple[str, ...]
    featurized_slots: frozenset[str]
    checksums: dict[str, str] = field(default_factory=dict)
