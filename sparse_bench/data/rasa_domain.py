"""The domain of a Rasa assistant: which intents, entities, slots and actions there are, and what a policy sees of them.

Follows Rasa 2.6. A policy sees 0/1 features of slots: one of a text slot (it is set), two of a boolean (it is set; it
is true), one a value of a categorical slot, and ``__other__`` for any other value. A slot of several features becomes
as many slots here, so that to everything that comes after a featurised slot is set or not.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from sparse_bench.data.dialogues import LISTEN, Action, Event, SlotSet, UserMessage
from sparse_bench.errors import DataError, unknown_choice

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
_KINDS: dict[str, SlotKind] = {
    **{kind: kind for kind in get_args(SlotKind)},
    "unfeaturized": "any",
    "TextSlot": "text",
    "BooleanSlot": "bool",
    "CategoricalSlot": "categorical",
    "AnySlot": "any",
    "UnfeaturizedSlot": "any",
}
_OTHER = "__other__"


@dataclass(frozen=True)
class Slot:
    """A slot: how it is featurised (``any``: not at all), and the values that a categorical one tells apart."""

    kind: SlotKind
    values: tuple[str, ...] = ()
    #: Whether an entity of the slot's name sets it.
    auto_fill: bool = True

    def features(self, name: str) -> tuple[str, ...]:
        """Names of the features of the slot ``name``."""
        match self.kind:
            case "text":
                return (name,)
            case "bool":
                return name, f"{name}=true"
            case "categorical":
                return tuple(f"{name}={value}" for value in (*self.values, _OTHER))
        return ()

    def events(self, name: str, value: str | None) -> tuple[SlotSet, ...]:
        """What setting the slot to ``value`` does to its features; what is not featurised just holds the value."""
        if self.kind == "any":
            return (SlotSet(name, value),)
        active: set[str] = set()
        if value is not None:
            match self.kind:
                case "text":
                    active = {name}
                case "bool":
                    active = {name, f"{name}=true"} if value.lower() == "true" else {name}
                case "categorical":
                    same = [known for known in self.values if known.lower() == value.lower()]
                    active = {f"{name}={same[0] if same else _OTHER}"}
        return tuple(SlotSet(feature, value if feature in active else None) for feature in self.features(name))


@dataclass(frozen=True)
class Domain:
    """Everything that stories may speak of.

    Attributes:
        intents: intent → the entity types that a policy sees of its messages; None: all.
        entities: all entity types.
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

    def message(self, intent: str, entities: Iterable[tuple[str, str]]) -> tuple[Event, ...]:
        """A message, and the slots that its entities fill (the last one of a type counts).

        Raises:
            DataError: an intent or an entity that is not in the domain.
        """
        if intent not in self.intents:
            raise DataError(unknown_choice("intent", intent, self.intents))
        filled: dict[str, str] = {}
        for kind, value in (entities := tuple(entities)):
            if kind not in self.entities:
                raise DataError(unknown_choice("entity", kind, self.entities))
            filled[kind] = value
        used = self.intents[intent]
        seen = tuple((kind, value) for kind, value in entities if used is None or kind in used)
        slots = [
            event
            for name, slot in self.slots.items()
            if slot.auto_fill and name in filled
            for event in slot.events(name, filled[name])
        ]
        return UserMessage(intent, seen), *slots

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
            DataError: it is not in the domain.
        """
        if name not in self.slots:
            raise DataError(unknown_choice("slot", name, self.slots))
        return self.slots[name].events(name, value)


def read_domain(name: str, path: Path, retrieval_intents: Iterable[str] = ()) -> Domain:
    """Reads a domain file (version 2 of the format).

    Args:
        name: of the file, for errors and checksums.
        path: the file.
        retrieval_intents: intents whose answers stand with the training messages; each adds the action ``utter_…``.

    Raises:
        DataError: the file cannot be read, or holds a slot that has no 0/1 features.
    """
    try:
        content = path.read_bytes()
        tree: Any = yaml.safe_load(content)
        intents = dict(_intent(item) for item in tree["intents"])
        entities = tuple(item if isinstance(item, str) else next(iter(item)) for item in tree.get("entities") or ())
        slots = {
            slot: _slot(f"{name}, slot '{slot}'", settings) for slot, settings in (tree.get("slots") or {}).items()
        }
        own = [*(tree.get("actions") or ()), *(tree.get("responses") or ())]
        forms = list(tree.get("forms") or ())
        fills = (tree.get("config") or {}).get("store_entities_as_slots", True)
    except (OSError, UnicodeError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{name} cannot be read as a domain: {type(error).__name__}: {error}") from error
    if not fills:
        slots = {slot: Slot(settings.kind, settings.values, auto_fill=False) for slot, settings in slots.items()}
    own += [f"utter_{intent}" for intent in retrieval_intents]
    return Domain(
        intents=intents,
        entities=entities,
        slots=slots,
        actions=tuple(dict.fromkeys([*DEFAULT_ACTIONS, *own, *forms])),
        checksums={name: hashlib.sha256(content).hexdigest()},
    )


def _intent(item: Any) -> tuple[str, frozenset[str] | None]:
    """An intent, and the entity types that are used of it: all (None) unless it lists some."""
    if isinstance(item, str):
        return item, None
    ((intent, settings),) = item.items()
    used = settings.get("use_entities", True)
    return intent, (None if used is True else frozenset(used or ()))


def _slot(place: str, settings: Mapping[str, Any]) -> Slot:
    given = str(settings["type"]).rpartition(".")[2]
    if given not in _KINDS:
        raise DataError(f"{place}: {unknown_choice('type with 0/1 features', given, _KINDS)}")
    kind = _KINDS[given] if settings.get("influence_conversation", True) else "any"
    values = tuple(str(value) for value in settings.get("values") or () if str(value) != _OTHER)
    return Slot(kind, values if kind == "categorical" else (), bool(settings.get("auto_fill", True)))
