"""Rasa's files with anything anywhere: what cannot be read is refused by the file's name, with no other error."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_bench.data.rasa_domain import Domain
from sparse_bench.data.rasa_domain_file import read_domain
from sparse_bench.data.rasa_nlu import read_nlu
from sparse_bench.data.rasa_yaml import read_yaml_stories
from sparse_bench.errors import DataError

DOMAIN: dict[str, Any] = {
    "version": "2.0",
    "config": {"store_entities_as_slots": True},
    "intents": ["greet", {"inform": {"use_entities": ["city"], "ignore_entities": ["name"]}}],
    "entities": ["name", {"city": {"roles": ["from"], "groups": ["one"], "influence_conversation": True}}],
    "slots": {
        "name": {"type": "text", "auto_fill": False, "initial_value": None},
        "city": {"type": "categorical", "values": ["rome"], "mappings": [{"type": "from_entity", "entity": "city"}]},
        "done": {"type": "bool", "influence_conversation": True, "initial_value": True},
    },
    "responses": {"utter_bye": [{"text": "bye"}]},
    "actions": ["search", {"find": {"send_domain": True}}],
    "forms": {"form": {"required_slots": ["name"]}},
}
STORIES: dict[str, Any] = {
    "version": "2.0",
    "rules": [{"rule": "r"}],
    "stories": [
        {
            "story": "s",
            "steps": [
                {"intent": "greet", "entities": ["name", {"city": "rome", "role": "from"}]},
                {"or": [{"intent": "greet"}, {"intent": "inform", "entities": []}]},
                {"action": "search"},
                {"slot_was_set": [{"done": True}, "name", {"city": None}]},
                {"active_loop": "form"},
                {"active_loop": None},
            ],
        }
    ],
}
NLU: dict[str, Any] = {
    "version": "3.1",
    "nlu": [
        {"intent": "greet", "examples": "- hi [Bob](name)\n- hey\n"},
        {"intent": "inform", "examples": [{"text": '[Rome]{"entity": "city"}', "metadata": {"a": "b"}}]},
        {"synonym": "rome", "examples": "- roma\n"},
        {"regex": "zip", "examples": "- [0-9]+\n"},
        {"lookup": "city", "examples": "- Rome\n"},
    ],
}
#: Of each file; enough to find each of the faults that this was written for.
EXAMPLES = 150
ODD = st.sampled_from(
    [
        None,
        True,
        7,
        2.5,
        "",
        " ",
        "x",
        "name",
        "- [",
        "- [a]{",
        [],
        [[]],
        [None],
        ["a", ["b"]],
        {},
        {"a": {}},
        {"a": None},
    ]
)


@st.composite
def damaged(draw: st.DrawFn, whole: dict[str, Any]) -> Any:
    """The tree with something else in up to two places."""
    tree = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 2))):
        place: Any = tree
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            inside = place[key]
            if isinstance(inside, dict | list) and inside and draw(st.booleans()):
                place = inside
                continue
            if isinstance(place, dict) and draw(st.booleans()):
                place[draw(st.sampled_from(["x", "1", "type", "intent", "entities"]))] = copy.deepcopy(draw(ODD))
            else:
                place[key] = copy.deepcopy(draw(ODD))
            break
    return tree


def write(folder: Path, tree: Any) -> Path:
    (folder / "file.yml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return folder / "file.yml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rasa")


@pytest.fixture(scope="module")
def domain(folder: Path) -> Domain:
    return read_domain("domain.yml", write(folder, DOMAIN))


def refused_by_name(reader: Callable[[], object]) -> None:
    try:
        reader()
    except DataError as error:
        message = str(error)
    else:
        return
    assert "file.yml" in message


@settings(max_examples=EXAMPLES)
@given(tree=damaged(DOMAIN))
def test_domains(folder: Path, tree: Any) -> None:
    path = write(folder, tree)
    refused_by_name(lambda: hash(read_domain("file.yml", path).beginning))


@settings(max_examples=EXAMPLES)
@given(tree=damaged(STORIES))
def test_stories(folder: Path, domain: Domain, tree: Any) -> None:
    path = write(folder, tree)
    refused_by_name(lambda: hash(tuple(read_yaml_stories({"file.yml": path}, domain).stories)))


@settings(max_examples=EXAMPLES)
@given(tree=damaged(NLU))
def test_messages(folder: Path, tree: Any) -> None:
    path = write(folder, tree)
    refused_by_name(lambda: hash(read_nlu({"file.yml": path}).messages))
