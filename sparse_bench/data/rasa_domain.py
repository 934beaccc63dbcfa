"""The domain of a Rasa assistant: which intents, entities, slots and actions there are, and what a policy sees of them.

Follows Rasa 2.6, and Rasa 3 in how entities fill slots. A policy sees 0/1 features of slots: one of a text slot (it is
set), two of a boolean (it is set; it is true), one a value of a categorical slot, and ``__other__`` for any other
value. A slot of several features becomes as many slots here, so that to everything that comes after a featurised slot
is set or not. An entity with roles or groups is seen as itself and as ``entity#role``. The file is read by
:func:`sparse_bench.data.rasa_domain_file.read_domain`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from sparse_bench.data.dialogues import LISTEN, Action, Event, SlotSet, UserMessage
from sparse_bench.errors import DataError, shortened, unknown_choice

#: What every assistant can do. The last one stands for any action, in rules.
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
SlotKind = Literal["text", "bool", "categorical", "any"]
OTHER = "__other__"


class Mention(NamedTuple):
    """An entity of a message: its type, what it says, and the role and group that it has within its type."""

    type: str
    value: str = ""
    role: str | None = None
    group: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What a policy may see of it."""
        return self.type, *(label_of(self.type, part) for part in (self.role, self.group) if part is not None)


class Source(NamedTuple):
    """Which entities fill a slot: those of a type with just this role and group."""

    type: str
    role: str | None = None
    group: str | None = None


def label_of(entity: str, part: str) -> str:
    """The name of an entity's role or group, as Rasa writes it."""
    return f"{entity}#{part}"


@dataclass(frozen=True)
class Slot:
    """A slot: how it is featurised (``any``: not at all), and the values that a categorical one tells apart."""

    kind: SlotKind
    values: tuple[str, ...] = ()
    #: The entities that set it; None: all of its name, whatever their role, as Rasa 2 has it.
    filled_by: tuple[Source, ...] | None = None
    #: What it is set to before a conversation begins.
    initial: str | None = None

    def features(self, name: str) -> tuple[str, ...]:
        """Names of the features of the slot ``name``."""
        match self.kind:
            case "text":
                return (name,)
            case "bool":
                return name, f"{name}=true"
            case "categorical":
                return tuple(f"{name}={value}" for value in (*self.values, OTHER))
        return ()

    def events(self, name: str, value: str | None) -> tuple[SlotSet, ...]:
        """What setting the slot to ``value`` does to its features; what is not featurised just holds the value.

        Raises:
            DataError: a boolean slot gets something else than true or false.
        """
        if self.kind == "any":
            return (SlotSet(name, value),)
        active: set[str] = set()
        if value is not None:
            match self.kind:
                case "text":
                    active = {name}
                case "bool":
                    active = {name, f"{name}=true"} if _truth(name, value) else {name}
                case "categorical":
                    same = [known for known in self.values if known.lower() == value.lower()]
                    active = {f"{name}={same[0] if same else OTHER}"}
        return tuple(SlotSet(feature, value if feature in active else None) for feature in self.features(name))

    def filling(self, name: str, mentions: Iterable[Mention]) -> tuple[SlotSet, ...]:
        """What the entities of a message do to the slot ``name``; of several that fill it the last one counts."""
        if self.filled_by is None:
            values = [mention.value for mention in mentions if mention.type == name]
        else:
            found = tuple(mentions)
            values = [m.value for source in self.filled_by for m in found if (m.type, m.role, m.group) == source]
        return self.events(name, values[-1]) if values else ()


@dataclass(frozen=True)
class Domain:
    """Everything that stories may speak of.

    Attributes:
        intents: intent → the entity types that a policy sees of its messages; None: all.
        entities: all entity types, and their roles and groups (``city#from``).
        slots: slot name → slot.
        actions: all actions: those of every assistant (:data:`DEFAULT_ACTIONS`), the domain's own, and its forms.
        checksums: of the file that it was read from, if it was.
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

    @property
    def beginning(self) -> tuple[SlotSet, ...]:
        """What a policy sees of the slots before a conversation begins: their initial values."""
        initial = [(name, slot) for name, slot in self.slots.items() if slot.initial is not None and slot.kind != "any"]
        return tuple(event for name, slot in initial for event in slot.events(name, slot.initial))

    def message(self, intent: str, mentions: Iterable[Mention]) -> tuple[Event, ...]:
        """A message, and the slots that its entities fill.

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
        """What setting a slot does.

        Raises:
            DataError: it is not in the domain, or cannot have this value.
        """
        if name not in self.slots:
            raise DataError(unknown_choice("slot", name, self.slots))
        return self.slots[name].events(name, value)


def text_of(value: Any) -> str | None:
    """A value as text, whatever its type: only whether it is set, and which one it is, matters."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _truth(name: str, value: str) -> bool:
    lowered = value.strip().lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    if re.fullmatch(r"\d+(\.\d+)?", lowered):
        return float(lowered) == 1
    raise DataError(f"the slot '{name}' of type bool cannot be {shortened(value)}; valid choices: true, false")
