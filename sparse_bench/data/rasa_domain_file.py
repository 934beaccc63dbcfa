"""Read the domain file of a Rasa assistant, in version 2 or 3 of the format.

Every scalar is a text, as in stories, so a categorical slot may have the values ``yes`` and ``no``. Flags are ``true``
or ``false``. In version 2 an entity fills the slot with its name, unless ``auto_fill`` is false. In version 3, and for
any slot with ``mappings``, the mappings of type ``from_entity`` without conditions name the entities that fill it.
Mappings from intents and texts are for forms, and stories already contain the slots that they set. In cases where Rasa
only warns, or fails later, this reader refuses the file.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from sparse_bench.data.rasa_domain import (
    DEFAULT_ACTIONS,
    OTHER,
    Domain,
    Slot,
    SlotKind,
    Source,
    label_of,
    number_of,
    text_of,
)
from sparse_bench.data.text_files import read_text
from sparse_bench.data.yaml_texts import TextOrNullLoader, load_yaml, major_version
from sparse_bench.errors import DataError, shortened, unknown_choice

_KINDS: dict[str, SlotKind] = {
    **{kind: kind for kind in get_args(SlotKind)},
    "unfeaturized": "any",
    "TextSlot": "text",
    "BooleanSlot": "bool",
    "CategoricalSlot": "categorical",
    "FloatSlot": "float",
    "ListSlot": "list",
    "AnySlot": "any",
    "UnfeaturizedSlot": "any",
}
#: Valid keys in the entries of each section.
_INTENT = ("use_entities", "ignore_entities", "triggers", "is_retrieval_intent")
_ENTITY = ("roles", "groups", "influence_conversation")
_SLOT = (
    *("type", "values", "initial_value", "influence_conversation", "auto_fill", "mappings"),
    *("value_reset_delay", "min_value", "max_value"),
)
_MAPPINGS = ("from_entity", "from_intent", "from_trigger_intent", "from_text", "custom")


def read_domain(name: str, path: Path, retrieval_intents: Iterable[str] = ()) -> Domain:
    """Read a domain file.

    Args:
        name: name of the file, for errors and checksums.
        path: the file.
        retrieval_intents: intents whose answers are stored with the training messages; each adds an action
            ``utter_…``.

    Raises:
        DataError: the file cannot be read or is malformed, or a slot has an unknown type. The message names the file
            and the entry.
    """
    file = read_text(path, name)
    tree = load_yaml(file, TextOrNullLoader)
    if not isinstance(tree, dict) or not tree.get("intents"):
        raise DataError(f"{name} has no list 'intents', as a domain has.")
    version = major_version(name, tree)

    # Entities first: intents and slots refer to them, their roles and their groups.
    entities = _entries(name, "entity", tree.get("entities"), _ENTITY)
    labels = {entity: _labels(f"{name}, entity '{entity}'", entity, found) for entity, found in entities.items()}
    unseen = [
        entity
        for entity, found in entities.items()
        if not _flag(f"{name}, entity '{entity}'", found, "influence_conversation")
    ]
    intents = {
        intent: _used(f"{name}, intent '{intent}'", found, labels, unseen)
        for intent, found in _entries(name, "intent", tree["intents"], _INTENT).items()
    }
    fills = _flag(f"{name}, config", _mapping(f"{name}, config", tree.get("config")), "store_entities_as_slots")
    slots = {
        slot: _slot(f"{name}, slot '{slot}'", slot, found, labels, version, fills)
        for slot, found in _entries(name, "slot", tree.get("slots"), _SLOT).items()
    }
    own = [action for section in ("actions", "responses") for action in _entries(name, section, tree.get(section))]
    own += [f"utter_{intent}" for intent in retrieval_intents]
    return Domain(
        intents=intents,
        entities=(*entities, *(label for several in labels.values() for label in several[1:])),
        slots=slots,
        actions=tuple(dict.fromkeys([*DEFAULT_ACTIONS, *own, *_entries(name, "forms", tree.get("forms"))])),
        checksums={name: file.sha256},
    )


def _entries(file: str, kind: str, items: Any, known: Collection[str] | None = None) -> dict[str, Any]:
    """Names and settings of a section, which is a list of names and of mappings ``name: settings``, or one mapping.

    If ``known`` is given, the settings must be a mapping with no other keys.
    """
    place = f"{file}, {kind}"
    if not isinstance(items, list | dict | None):
        raise DataError(f"{place}: a list or a mapping of names is needed; found {shortened(items)}.")
    pairs: list[tuple[Any, Any]] = []
    for item in items if isinstance(items, list) else [items or {}]:
        pairs += item.items() if isinstance(item, dict) else [(item, {})]
    found: dict[str, Any] = {}
    for name, settings in pairs:
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{place}: {shortened(name)} is not a name.")
        if name in found:
            raise DataError(f"{place}: '{name}' occurs twice.")
        found[name] = settings
        if known is not None:
            if not isinstance(settings, dict):
                raise DataError(f"{place} '{name}': settings must follow the colon: {', '.join(known)}.")
            if unknown := settings.keys() - {*known}:
                raise DataError(f"{place} '{name}': {unknown_choice('key', min(unknown), known)}")
    return found


def _mapping(place: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict | None):
        raise DataError(f"{place}: a mapping is needed; found {shortened(value)}.")
    return value or {}


def _texts(place: str, key: str, value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise DataError(f"{place}, {key}: a list of texts is needed; found {shortened(value)}.")
    return value


def _flag(place: str, settings: Mapping[str, Any], key: str) -> bool:
    """A setting that is true where it is not given."""
    value = settings.get(key)
    if value is None:
        return True
    if str(value).lower() not in ("true", "false"):
        raise DataError(f"{place}, {key}: {shortened(value)}. Valid choices: true, false.")
    return str(value).lower() == "true"


def _labels(place: str, entity: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The entity itself, then its roles and groups."""
    parts = [part for key in ("roles", "groups") for part in _texts(place, key, settings.get(key))]
    return entity, *dict.fromkeys(label_of(entity, part) for part in parts)


def _used(
    place: str, settings: Mapping[str, Any], labels: Mapping[str, tuple[str, ...]], unseen: Collection[str]
) -> frozenset[str] | None:
    """The entities that a policy sees in an intent's messages; None: all."""
    everything = frozenset(label for several in labels.values() for label in several)

    def of(key: str, names: Iterable[str]) -> frozenset[str]:
        for name in names:
            if name not in everything:
                raise DataError(f"{place}, {key}: {unknown_choice('entity', name, everything)}")
        return frozenset(label for name in names for label in labels.get(name, (name,)))

    use, ignore = settings.get("use_entities", "true"), settings.get("ignore_entities", unseen)
    if use is None or isinstance(use, list):
        used = of("use_entities", _texts(place, "use_entities", use))
    else:
        used = everything - of("ignore_entities", unseen) if _flag(place, settings, "use_entities") else frozenset()
    used -= of("ignore_entities", _texts(place, "ignore_entities", ignore))
    return None if used == everything else used


def _slot(
    place: str,
    name: str,
    settings: Mapping[str, Any],
    labels: Mapping[str, tuple[str, ...]],
    version: int | None,
    fills: bool,
) -> Slot:
    given = str(settings.get("type")).rpartition(".")[2]
    seen = _flag(place, settings, "influence_conversation")
    if "type" not in settings or (seen and given not in _KINDS):
        raise DataError(f"{place}: {unknown_choice('type of slot', given, _KINDS)}")
    kind = _KINDS[given] if seen else "any"
    filled_by = _sources(place, settings, labels, version)
    values = tuple(value for value in _texts(place, "values", settings.get("values")) if value != OTHER)
    slot = Slot(
        kind=kind,
        values=values if kind == "categorical" else (),
        filled_by=filled_by if fills else (),
        initial=text_of(settings.get("initial_value")),
        bounds=_bounds(place, settings) if kind == "float" else (0.0, 1.0),
    )
    try:
        slot.events(name, slot.initial)
    except DataError as error:
        raise DataError(f"{place}, initial_value: {error}.") from error
    return slot


def _bounds(place: str, settings: Mapping[str, Any]) -> tuple[float, float]:
    """The numbers between which a float slot counts. Its initial value, if any, must lie between them."""
    low, high = (number_of(settings.get(key, default)) for key, default in (("min_value", 0.0), ("max_value", 1.0)))
    if low is None or high is None or not -math.inf < low < high < math.inf:
        raise DataError(
            f"{place}: min_value and max_value must be numbers, the first one smaller; found "
            f"{shortened(settings.get('min_value', 0.0))} and {shortened(settings.get('max_value', 1.0))}."
        )
    first = settings.get("initial_value")
    number = number_of(first)
    if first is not None and (number is None or not low <= number <= high):
        raise DataError(f"{place}, initial_value: {shortened(first)} is no number from {low:g} to {high:g}.")
    return low, high


def _sources(
    place: str, settings: Mapping[str, Any], labels: Mapping[str, tuple[str, ...]], version: int | None
) -> tuple[Source, ...] | None:
    """The entities that fill a slot; None: those with its name."""
    if "mappings" not in settings:
        if version == 3:
            raise DataError(f"{place} has no 'mappings', which version 3 of the format needs (or none: []).")
        return None if _flag(place, settings, "auto_fill") else ()
    mappings = settings["mappings"] or []
    if not isinstance(mappings, list):
        raise DataError(f"{place}, mappings: a list is needed; found {shortened(mappings)}.")
    sources = []
    for number, item in enumerate(mappings, start=1):
        here = f"{place}, mapping {number}"
        mapping = _mapping(here, item)
        if mapping.get("type") not in _MAPPINGS:
            raise DataError(f"{here}: {unknown_choice('type', mapping.get('type'), _MAPPINGS)}")
        if mapping["type"] != "from_entity":
            continue
        entity, role, group = (mapping.get(key) for key in ("entity", "role", "group"))
        if not isinstance(entity, str) or entity not in labels:
            raise DataError(f"{here}: {unknown_choice('entity', entity, labels)}")
        for part in (role, group):
            if part is not None and label_of(entity, str(part)) not in labels[entity]:
                raise DataError(f"{here}: the entity '{entity}' has no role or group {shortened(part)}.")
        if not mapping.get("conditions"):
            sources.append(Source(entity, role, group))
    return tuple(sources)
