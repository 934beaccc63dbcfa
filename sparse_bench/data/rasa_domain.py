"""The domain of a Rasa assistant: its intents, entities, slots and actions, and the features of them for a policy.

It follows Rasa 2.6, and Rasa 3 in how entities fill slots. A text slot has one 0/1 feature (it is set), and a list slot
too (it is not empty). A boolean slot has two (it is set; it is true). A categorical slot has one per value, and
``__other__`` for any other value. A float slot has two: it holds a number; the number's place in the slot's range, from
0 to 1. A slot with several features becomes several slots here, one per feature. An entity with roles or groups is seen
as itself and as ``entity#role``.
:func:`sparse_bench.data.rasa_domain_file.read_domain` reads the file.
"""

import contextlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from sparse_bench.data.dialogues import LISTEN, Action, DialogueCorpus, Event, SlotSet, Story, UserMessage
from sparse_bench.errors import DataError, shortened, unknown_choice

#: Actions of every assistant. The last one stands for any action, in rules.
DEFAULT_ACTIONS = (
    LISTEN,
    "action_restart",
    "action_session_start",
    "action_default_fallback",
    "action_deactivate_loop",
    "action_revert_fallback_events",
    "action_default_ask_affirmation",
    "action_default_ask_rephrase",
    "action_two_stage_fallback",
    "action_back",
    "...",
)
SlotKind = Literal["text", "bool", "categorical", "float", "list", "any"]
OTHER = "__other__"


class Mention(NamedTuple):
    """An entity of a message: its type, its value, and its role and group within the type."""

    type: str
    value: str = ""
    role: str | None = None
    group: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The names under which a policy may see the entity."""
        return self.type, *(label_of(self.type, part) for part in (self.role, self.group) if part is not None)


class Source(NamedTuple):
    """Entities that fill a slot: those of a type with exactly this role and group."""

    type: str
    role: str | None = None
    group: str | None = None


def label_of(entity: str, part: str) -> str:
    """The name of an entity's role or group, as Rasa writes it."""
    return f"{entity}#{part}"


@dataclass(frozen=True)
class Slot:
    """A slot: its kind, which decides its features (``any``: none), and the values of a categorical slot."""

    kind: SlotKind
    values: tuple[str, ...] = ()
    #: The entities that set the slot; None: all entities with its name and any role, as in Rasa 2.
    filled_by: tuple[Source, ...] | None = None
    #: Its value before a conversation begins.
    initial: str | None = None
    #: For a float slot: the numbers that become 0 and 1. Numbers beyond them count as these.
    bounds: tuple[float, float] = (0.0, 1.0)

    def features(self, name: str) -> tuple[str, ...]:
        """Names of the features of the slot ``name``."""
        match self.kind:
            case "text" | "list":
                return (name,)
            case "bool":
                return name, f"{name}=true"
            case "float":
                return name, f"{name}=amount"
            case "categorical":
                return tuple(f"{name}={value}" for value in (*self.values, OTHER))
        return ()

    def events(self, name: str, value: str | None) -> tuple[SlotSet, ...]:
        """The events that set the features of the slot ``name`` to those of ``value``.

        A slot without features just holds the value.

        Raises:
            DataError: a boolean slot gets another value than true or false.
        """
        if self.kind == "any":
            return (SlotSet(name, value),)
        amounts: dict[str, float] = {}  # of the features that are not 0
        if value is not None:
            match self.kind:
                case "text":
                    amounts = {name: 1.0}
                case "list":
                    amounts = {name: 1.0} if value not in ("", "[]") else {}
                case "bool":
                    amounts = {name: 1.0, f"{name}=true": float(_truth(name, value))}
                case "categorical":
                    same = [known for known in self.values if known.lower() == value.lower()]
                    amounts = {f"{name}={same[0] if same else OTHER}": 1.0}
                case "float" if (number := number_of(value)) is not None:
                    low, high = self.bounds
                    amounts = {name: 1.0, f"{name}=amount": (max(low, min(high, number)) - low) / (high - low)}
        return tuple(
            SlotSet(feature, value, amount) if (amount := amounts.get(feature)) else SlotSet(feature, None)
            for feature in self.features(name)
        )

    def filling(self, name: str, mentions: Iterable[Mention]) -> tuple[SlotSet, ...]:
        """The events by which a message's entities fill the slot ``name``.

        A list slot gets the values of all entities that fill it, any other slot the last one.
        """
        if self.filled_by is None:
            values = [mention.value for mention in mentions if mention.type == name]
        else:
            found = tuple(mentions)
            values = [m.value for source in self.filled_by for m in found if (m.type, m.role, m.group) == source]
        return self.events(name, text_of(values) if self.kind == "list" else values[-1]) if values else ()


@dataclass(frozen=True)
class Domain:
    """The intents, entities, slots and actions that stories may contain.

    Attributes:
        intents: intent → the entity types that a policy sees in its messages; None: all.
        entities: all entity types, and their roles and groups (``city#from``).
        slots: slot name → slot.
        actions: all actions: those of every assistant (:data:`DEFAULT_ACTIONS`), the domain's own, and its forms.
        checksums: SHA-256 of the file from which the domain was read, by name; empty if there is none.
    """

    intents: Mapping[str, frozenset[str] | None]
    entities: tuple[str, ...]
    slots: Mapping[str, Slot]
    actions: tuple[str, ...]
    checksums: dict[str, str] = field(default_factory=dict)

    @property
    def featurized_slots(self) -> frozenset[str]:
        """The features of all slots."""
        return frozenset(feature for name, slot in self.slots.items() for feature in slot.features(name))

    def corpus(
        self, stories: tuple[Story, ...], test_stories: tuple[Story, ...], checksums: dict[str, str]
    ) -> DialogueCorpus:
        """The corpus of stories in this domain."""
        return DialogueCorpus(
            stories=stories,
            test_stories=test_stories,
            intents=tuple(self.intents),
            entities=self.entities,
            actions=self.actions,
            featurized_slots=self.featurized_slots,
            checksums=checksums,
        )

    @property
    def beginning(self) -> tuple[SlotSet, ...]:
        """The events that set the slots to their initial values before a conversation begins."""
        initial = [(name, slot) for name, slot in self.slots.items() if slot.initial is not None and slot.kind != "any"]
        return tuple(event for name, slot in initial for event in slot.events(name, slot.initial))

    def message(self, intent: str, mentions: Iterable[Mention]) -> tuple[Event, ...]:
        """The events of a message: the message itself, and the slots that its entities fill.

        Raises:
            DataError: an intent or an entity that is not in the domain.
        """
        if intent not in self.intents:
            raise DataError(unknown_choice("intent", intent, self.intents))
        mentions = tuple(mentions)
        for mention in mentions:
            if mention.type not in self.entities:
                raise DataError(unknown_choice("entity", mention.type, self.entities))
        used = self.intents[intent]
        known = self.entities if used is None else used
        seen = tuple((label, mention.value) for mention in mentions for label in mention.labels if label in known)
        return UserMessage(intent, seen), *(
            e for name, slot in self.slots.items() for e in slot.filling(name, mentions)
        )

    def action(self, name: str) -> Action:
        """An action.

        Raises:
            DataError: it is not in the domain.
        """
        if name not in self.actions:
            raise DataError(unknown_choice("action", name, self.actions))
        return Action(name)

    def slot(self, name: str, value: str | None) -> tuple[SlotSet, ...]:
        """The events of setting a slot.

        Raises:
            DataError: the slot is not in the domain, or cannot have this value.
        """
        if name not in self.slots:
            raise DataError(unknown_choice("slot", name, self.slots))
        return self.slots[name].events(name, value)


def text_of(value: Any) -> str | None:
    """A value of any type as text, which is enough to test whether it is set and to compare it."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def number_of(value: Any) -> float | None:
    """A text as a number; None if it is none. Infinity is a number, as in Rasa."""
    with contextlib.suppress(TypeError, ValueError):
        number = float(value)
        return None if math.isnan(number) else number
    return None


def _truth(name: str, value: str) -> bool:
    lowered = value.strip().lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    if re.fullmatch(r"\d+(\.\d+)?", lowered):
        return float(lowered) == 1
    raise DataError(f"the slot '{name}' of type bool cannot be {shortened(value)}; valid choices: true, false")
