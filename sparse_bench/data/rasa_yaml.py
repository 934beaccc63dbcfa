"""Read stories in version 2 or 3 of Rasa's YAML format.

A file is ``stories:`` with a list of stories, each with a name (``story``) and ``steps``: ``intent`` (with
``entities``), ``action``, ``slot_was_set``, ``active_loop``, or ``or`` with a list of intents. Rules are left out, and
the log reports their number, because Rasa trains no learned policy on them. Checkpoints, messages as text (``user``)
and answers as text (``bot``) are refused.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sparse_bench.data.dialogues import Event, LoopChange
from sparse_bench.data.rasa_domain import Domain, Mention, text_of
from sparse_bench.data.rasa_stories import CHECKPOINT, Step, StoryFiles, WrittenStory
from sparse_bench.data.text_files import read_text
from sparse_bench.data.yaml_texts import TextOrNullLoader, load_yaml, major_version
from sparse_bench.errors import DataError, shortened, unknown_choice

_LOG = logging.getLogger(__name__)
_STEPS = ("intent", "or", "action", "slot_was_set", "active_loop")
_ROLES = ("role", "group")


def read_yaml_stories(files: Mapping[str, Path], domain: Domain) -> StoryFiles:
    """Read story files by the name that errors and checksums use, in the order of ``files``.

    Raises:
        DataError: a file cannot be read or is malformed. The message names the file, the story and the step.
    """
    found = StoryFiles()
    for name, path in files.items():
        file = read_text(path, name)
        found.checksums[name] = file.sha256
        for story in _read(name, load_yaml(file, TextOrNullLoader), domain):
            try:
                found.stories.append(story.paths())
            except DataError as error:
                raise DataError(f"{name}: {error}.") from error
    return found


def _read(file: str, tree: Any, domain: Domain) -> Iterator[WrittenStory]:
    if not isinstance(tree, dict) or not {"stories", "rules"} & tree.keys():
        raise DataError(f"{file} has neither 'stories' nor 'rules'.")
    major_version(file, tree)
    for section in ("stories", "rules"):
        if not isinstance(tree.get(section), list | None):
            raise DataError(f"{file}: '{section}' is a list; found {shortened(tree[section])}.")
    if rules := tree.get("rules"):
        _LOG.info("%s: %d rules left out; no learned policy is trained on rules.", file, len(rules))
    for number, item in enumerate(tree.get("stories") or (), start=1):
        name = item.get("story") if isinstance(item, dict) else None
        if not isinstance(name, str) or not name or not isinstance(item.get("steps"), list):
            raise DataError(f"{file}, story {number} must have a name ('story') and a list of 'steps'.")
        place = f"{file}, story {number} ('{name}')"
        steps: list[Step] = [(domain.beginning,)]
        for position, step in enumerate(item["steps"], start=1):
            try:
                steps.append(_step(step, domain))
            except DataError as error:
                raise DataError(f"{place}, step {position}: {error}.") from error
        yield WrittenStory(name, tuple(steps))


def _step(step: Any, domain: Domain) -> Step:
    if not isinstance(step, dict):
        raise DataError(f"a step has one of the keys {', '.join(_STEPS)}; it is {shortened(step)}")
    if "checkpoint" in step:
        raise DataError(CHECKPOINT)
    keys = step.keys() - {"metadata", *(["entities"] if "intent" in step else [])}
    if len(keys) != 1 or not keys < {*_STEPS}:
        raise DataError(unknown_choice("step", ", ".join(sorted(keys)), _STEPS))
    (key,) = keys
    value = step[key]
    match key:
        case "intent":
            return (_message(step, domain),)
        case "or":
            ways = value if isinstance(value, list) else []
            if not ways or not all(
                isinstance(way, dict) and {"intent"} <= way.keys() <= {"intent", "entities"} for way in ways
            ):
                raise DataError("'or' is a list of intents")
            return tuple(_message(way, domain) for way in ways)
        case "action":
            return ((domain.action(str(value).strip()),),)
        case "slot_was_set":
            return (tuple(event for slot, given in _pairs(value, domain) for event in domain.slot(slot, given)),)
    return ((LoopChange(None if value is None else domain.action(value).name),),)


def _message(step: Mapping[str, Any], domain: Domain) -> tuple[Event, ...]:
    entities = step.get("entities") or []
    if not isinstance(entities, list):
        raise DataError(f"'entities' is a list; found {shortened(entities)}")
    return domain.message(str(step["intent"]).strip().removeprefix("/"), [_mention(entity) for entity in entities])


def _mention(entity: Any) -> Mention:
    """Read an entity: its type, or a mapping of the type to the value, with the role and group if it has them."""
    types = [entity] if isinstance(entity, str) else [*entity.keys() - {*_ROLES}] if isinstance(entity, dict) else []
    if len(types) != 1:
        raise DataError(f"an entity is 'type', or 'type: value' with 'role' and 'group'; found {shortened(entity)}")
    given = {} if isinstance(entity, str) else {key: text_of(value) for key, value in entity.items()}
    return Mention(types[0], given.get(types[0]) or "", given.get("role"), given.get("group"))


def _pairs(slots: Any, domain: Domain) -> Iterator[tuple[str, str | None]]:
    """Slots and their values. A text, list or boolean slot without a value gets ``true``: its features are 1."""
    for slot in slots if isinstance(slots, list) else [slots]:
        if isinstance(slot, dict):
            yield from ((name, text_of(value)) for name, value in slot.items())
        elif not isinstance(slot, str):
            raise DataError(f"'slot_was_set' is a list of 'slot: value'; found {shortened(slot)}")
        elif slot in domain.slots and domain.slots[slot].kind in ("text", "list", "bool"):
            yield slot, "true"
        else:
            raise DataError(f"the slot '{slot}' needs a value")
