"""Reads stories in version 2 of Rasa's YAML format.

A file is ``stories:`` with a list of stories, each a name (``story``) and ``steps``: ``intent`` (with ``entities``),
``action``, ``slot_was_set``, ``active_loop``, or ``or`` with a list of intents. Rules are left out, with a line in the
log that says how many: Rasa trains no learned policy on them. Checkpoints, messages given as text (``user``) and
answers given as text (``bot``) are refused.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from sparse_bench.data.dialogues import Event, LoopChange
from sparse_bench.data.rasa_domain import Domain
from sparse_bench.data.rasa_stories import CHECKPOINT, Step, StoryFiles, WrittenStory, contents
from sparse_bench.data.yaml_texts import TextOrNullLoader
from sparse_bench.errors import DataError, unknown_choice

_LOG = logging.getLogger(__name__)
_STEPS = ("intent", "or", "action", "slot_was_set", "active_loop")
_ROLES = ("role", "group")


def read_yaml_stories(files: Mapping[str, Path], domain: Domain) -> StoryFiles:
    """Reads story files, in the order of ``files``.

    Args:
        files: name (for errors and checksums) → file.
        domain: what the stories may speak of.

    Raises:
        DataError: a file cannot be read or is malformed; names the file, the story and the step.
    """
    found = StoryFiles()
    for name, text, checksum in contents(files):
        found.checksums[name] = checksum
        for story in _read(name, text, domain):
            try:
                found.stories.append(story.paths())
            except DataError as error:
                raise DataError(f"{name}: {error}.") from error
    return found


def _read(file: str, text: str, domain: Domain) -> Iterator[WrittenStory]:
    try:
        tree = yaml.load(text, Loader=TextOrNullLoader)
    except yaml.YAMLError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    if not isinstance(tree, dict) or not {"stories", "rules"} & tree.keys():
        raise DataError(f"{file} has neither 'stories' nor 'rules'.")
    version = str(tree.get("version", "2.0"))
    if not re.fullmatch(r"2(\.\d+)*", version):
        raise DataError(f"{file} is in version {version} of the format; this reader knows version 2.")
    if rules := tree.get("rules"):
        _LOG.info("%s: %d rules left out; no learned policy is trained on rules.", file, len(rules))
    for number, item in enumerate(tree.get("stories") or (), start=1):
        if not isinstance(item, dict) or not isinstance(item.get("steps"), list) or not item.get("story"):
            raise DataError(f"{file}, story {number} must have a name ('story') and a list of 'steps'.")
        place = f"{file}, story {number} ('{item['story']}')"
        steps = []
        for position, step in enumerate(item["steps"], start=1):
            try:
                steps.append(_step(step, domain))
            except DataError as error:
                raise DataError(f"{place}, step {position}: {error}.") from error
        yield WrittenStory(item["story"], tuple(steps))


def _step(step: Any, domain: Domain) -> Step:
    if not isinstance(step, dict):
        raise DataError(f"a step has one of the keys {', '.join(_STEPS)}; it is {step!r}")
    if "checkpoint" in step:
        raise DataError(CHECKPOINT)
    keys = step.keys() - {"metadata", "entities"}
    if len(keys) != 1 or not keys < {*_STEPS}:
        raise DataError(unknown_choice("step", ", ".join(sorted(keys)), _STEPS))
    (key,) = keys
    value = step[key]
    match key:
        case "intent":
            return (_message(step, domain),)
        case "or":
            ways = value if isinstance(value, list) else []
            if not ways or not all(isinstance(way, dict) and way.keys() <= {"intent", "entities"} for way in ways):
                raise DataError("'or' is a list of intents")
            return tuple(_message(way, domain) for way in ways)
        case "action":
            return ((domain.action(str(value).strip()),),)
        case "slot_was_set":
            return (tuple(event for slot, given in _pairs(value, domain) for event in domain.slot(slot, given)),)
    return ((LoopChange(None if value is None else domain.action(value).name),),)


def _message(step: Mapping[str, Any], domain: Domain) -> tuple[Event, ...]:
    entities = []
    for entity in step.get("entities") or ():
        if isinstance(entity, str):
            entities.append((entity, ""))
        else:
            entities += [(kind, value or "") for kind, value in entity.items() if kind not in _ROLES]
    return domain.message(str(step["intent"]).strip().removeprefix("/"), entities)


def _pairs(slots: Any, domain: Domain) -> Iterator[tuple[str, str | None]]:
    """Slots and their values; a slot without one is set to what makes its features 1, where there is such a value."""
    for slot in slots if isinstance(slots, list) else [slots]:
        if isinstance(slot, dict):
            yield from slot.items()
        elif slot in domain.slots and domain.slots[slot].kind in ("text", "bool"):
            yield slot, "true"
        else:
            raise DataError(f"the slot '{slot}' needs a value")
