"""Stories from Markdown and YAML: the same small stories in both, alternatives, forms, and what is refused."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sparse_bench.data.dialogues import Action, Event, LoopChange, SlotSet, Story, UserMessage
from sparse_bench.data.rasa_domain import DEFAULT_ACTIONS, Domain, Slot
from sparse_bench.data.rasa_markdown import read_markdown_stories
from sparse_bench.data.rasa_stories import StoryFiles
from sparse_bench.data.rasa_yaml import read_yaml_stories
from sparse_bench.errors import DataError

DOMAIN = Domain(
    intents={"greet": None, "inform": None, "deny": None},
    entities=("city", "people"),
    slots={"city": Slot("text"), "people": Slot("any"), "done": Slot("bool")},
    actions=(*DEFAULT_ACTIONS, "utter_hello", "utter_bye", "table_form"),
)
MARKDOWN = """
<!-- two stories
     in a comment of two lines -->
## first
* greet
    - utter_hello
* inform{"city": "oslo", "people": 2} <!-- with a slot -->
    - table_form
    - active_loop{"name": "table_form"}
* form: inform{"people": "3"}
    - form: table_form
    - slot{"done": true, "people": null}
    - active_loop{"name": null}
    - utter_bye

# second
* greet OR inform{"city": ["oslo", "rome"]}
    - utter_hello
* deny OR greet
    - utter_bye
"""
YAML = """
version: "2.0"
stories:
- story: first
  steps:
  - intent: greet
  - action: utter_hello
  - intent: inform
    entities:
    - city: oslo
    - people: 2
  - action: table_form
  - active_loop: table_form
  - slot_was_set:
    - done: true
    - people: null
  - active_loop: null
  - action: utter_bye
    metadata: {x: 1}
- story: second
  metadata: {y: 2}
  steps:
  - or:
    - intent: greet
    - intent: /inform
      entities: [{city: oslo, role: from}, city: rome]
  - action: utter_hello
  - or:
    - intent: deny
    - intent: greet
  - action: utter_bye
"""
FIRST: tuple[Event, ...] = (
    UserMessage("greet"),
    Action("utter_hello"),
    UserMessage("inform", (("city", "oslo"), ("people", "2"))),
    SlotSet("city", "oslo"),  # filled by the entity
    SlotSet("people", "2"),
    Action("table_form"),
    LoopChange("table_form"),
    SlotSet("done", "true"),
    SlotSet("done=true", "true"),
    SlotSet("people", None),
    LoopChange(None),
    Action("utter_bye"),
)
CITIES: tuple[Event, ...] = (UserMessage("inform", (("city", "oslo"), ("city", "rome"))), SlotSet("city", "rome"))
Reader = Callable[..., StoryFiles]


def read(reader: Reader, folder: Path, text: str) -> StoryFiles:
    (folder / "stories").write_text(text)
    return reader({"stories": folder / "stories"}, DOMAIN)


@pytest.mark.parametrize(("reader", "text"), [(read_markdown_stories, MARKDOWN), (read_yaml_stories, YAML)])
def test_both_formats_say_the_same(reader: Reader, text: str, tmp_path: Path) -> None:
    found = read(reader, tmp_path, text)
    (first,), second = found.stories
    assert first == Story("first", FIRST)
    starts: list[tuple[Event, ...]] = [(UserMessage("greet"),), CITIES]
    ends = [UserMessage("deny"), UserMessage("greet")]
    assert [story.events for story in second] == [
        (*start, Action("utter_hello"), end, Action("utter_bye")) for start in starts for end in ends
    ]
    assert [story.name for story in second] == [f"second ({number} of 4)" for number in (1, 2, 3, 4)]
    assert len(found.checksums["stories"]) == 64


def test_files_are_read_in_the_given_order(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(f"## {name}\n* greet\n  - utter_hello\n")
    found = read_markdown_stories({name: tmp_path / name for name in "ba"}, DOMAIN)
    assert [story.name for (story,) in found.stories] == ["b", "a"]
    assert list(found.checksums) == ["b", "a"]


def test_values_in_yaml_are_texts(tmp_path: Path) -> None:
    slots = "{slot_was_set: [{city: no}, {people: 'null'}, {people: 2.0}]}"
    text = f"stories: [{{story: s, steps: [{slots}, {{action: table_form}}]}}]"
    ((story,),) = read(read_yaml_stories, tmp_path, text).stories
    assert story.events[:-1] == (SlotSet("city", "no"), SlotSet("people", "null"), SlotSet("people", "2.0"))


def test_lists_and_mappings_as_values_set_a_slot(tmp_path: Path) -> None:
    """Rasa's text slots show whether they are set, to whatever."""
    slots = "{slot_was_set: [{city: [a, b]}, {people: {x: é}}]}"
    text = f"stories: [{{story: s, steps: [{slots}, {{action: table_form}}]}}]"
    ((story,),) = read(read_yaml_stories, tmp_path, text).stories
    assert story.events[:-1] == (SlotSet("city", '["a", "b"]'), SlotSet("people", '{"x": "é"}'))


def test_a_slot_without_a_value_gets_the_one_that_shows(tmp_path: Path) -> None:
    text = "stories: [{story: s, steps: [{slot_was_set: [city, done]}, {action: table_form}]}]"
    ((story,),) = read(read_yaml_stories, tmp_path, text).stories
    assert {event.name for event in story.events if isinstance(event, SlotSet)} == {"city", "done", "done=true"}


def test_rules_are_left_out_and_the_log_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "rules: [{rule: r, steps: [{intent: nonsense}]}]\nstories: [{story: s, steps: [{intent: greet}]}]"
    with caplog.at_level(logging.INFO):
        assert len(read(read_yaml_stories, tmp_path, text).stories) == 1
    assert "stories: 1 rules left out" in caplog.text


FORM = ("* greet", "- table_form", '- form{"name": "table_form"}')


def steps(*lines: str) -> str:
    return "## s\n" + "\n".join(lines)


@pytest.mark.parametrize(
    "lines",
    [
        # Rasa erases what stands between two runs of a form, unless another action answered a message in between.
        (*FORM, "* inform", "- table_form"),
        (*FORM, "- utter_hello", "* inform", "- table_form"),
        (*FORM, "- table_form"),
    ],
)
def test_a_form_that_runs_again_after_nothing_but_messages_is_refused(lines: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="story 's': the form 'table_form' runs again"):
        read(read_markdown_stories, tmp_path, steps(*lines))


@pytest.mark.parametrize(
    "lines",
    [
        (
            *FORM,
            "* deny",
            "- utter_hello",
            "* inform",
            "- table_form",
        ),
        (*FORM, '- form{"name": null}', "* inform", "- table_form"),
        ("* greet", "- utter_hello", "* greet", "- utter_hello", "- utter_hello"),
    ],
)
def test_other_repetitions_are_read_as_they_stand(lines: tuple[str, ...], tmp_path: Path) -> None:
    ((story,),) = read(read_markdown_stories, tmp_path, steps(*lines)).stories
    assert len(story.events) == len(lines)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("> checkpoint", "a checkpoint joins this story to others; that is not supported"),
        (">> rule", "a learned policy is not trained on rules"),
        ("* gret", r"line 2 \('\* gret'\): Unknown intent 'gret'. Did you mean 'greet'"),
        ("- utter_hi", "Unknown action 'utter_hi'"),
        ("- restart", "Unknown action 'restart'"),
        ('- utter_bye{"x": 1}', "'utter_bye' takes no arguments"),
        ('- slot{"x": 1}', "Unknown slot 'x'"),
        ('- slot{"city": }', "is not JSON"),
        ("- slot}{", "expected: name"),
        ('- form{"name": "other"}', "Unknown action 'other'"),
        ("greet", "a line begins with '##'"),
        ("*", "a line begins with '##'"),
    ],
)
def test_markdown_lines_that_are_refused(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(read_markdown_stories, tmp_path, steps(line))


def test_a_step_before_the_first_story(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="comes before the first story"):
        read(read_markdown_stories, tmp_path, "* greet")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("checkpoint: x", "a checkpoint joins this story to others"),
        ("intent: gret", r"story 1 \('s'\), step 1: Unknown intent 'gret'"),
        ("action: utter_hi", "Unknown action 'utter_hi'"),
        ("user: hello", "Unknown step 'user'"),
        ("bot: hello", "Unknown step 'bot'"),
        ("or: []", "'or' is a list of intents"),
        ("or: [{action: table_form}]", "'or' is a list of intents"),
        ("or: [{entities: [city]}]", "'or' is a list of intents"),
        ("intent: inform, entities: city", "'entities' is a list; found 'city'"),
        ("intent: inform, entities: [[city]]", r"an entity is 'type', or .*; found \['city'\]"),
        ("intent: inform, entities: [{role: from}]", "an entity is 'type', or"),
        ("intent: inform, entities: [{city: a, people: b}]", "an entity is 'type', or"),
        ("action: table_form, entities: [city]", "Unknown step 'action, entities'"),
        (
            "slot_was_set: [{done: [a, b]}]",
            r"the slot 'done' of type bool cannot be '\[\"a\", \"b\"\]'; valid choices: true, false",
        ),
        ("slot_was_set: [{done: yes}]", "the slot 'done' of type bool cannot be 'yes'"),
        ("slot_was_set: [[city]]", "'slot_was_set' is a list of 'slot: value'"),
        ("active_loop: [table_form]", "Unknown action"),
        ("slot_was_set: [people]", "the slot 'people' needs a value"),
        ("slot_was_set: [{x: 1}]", "Unknown slot 'x'"),
        ("active_loop: other", "Unknown action 'other'"),
    ],
)
def test_yaml_steps_that_are_refused(step: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(read_yaml_stories, tmp_path, f"stories: [{{story: s, steps: [{{{step}}}]}}]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "stories cannot be read"),
        ("nlu: []", "has neither 'stories' nor 'rules'"),
        ("version: '4.1'\nstories: []", "version 4.1 of the format"),
        ("stories: text", "'stories' is a list; found 'text'"),
        ("rules: {a: b}", "'rules' is a list"),
        ("stories: [{story: [s], steps: []}]", "story 1 must have a name"),
        ("stories: [{story: s}]", "story 1 must have a name"),
        ("stories: [{steps: []}]", "story 1 must have a name"),
        ("stories: [{story: s, steps: [text]}]", "a step has one of the keys"),
        ("stories: []\nstories: []", "a key occurs twice"),
        (
            "stories: [{story: s, steps: [{action: table_form}, {active_loop: table_form}, {action: table_form}]}]",
            "stories: story 's': the form 'table_form' runs again",
        ),
    ],
)
def test_yaml_files_that_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(read_yaml_stories, tmp_path, text)


@pytest.mark.parametrize("reader", [read_markdown_stories, read_yaml_stories])
def test_missing_files_are_named(reader: Reader, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.md cannot be read"):
        reader({"nowhere.md": tmp_path / "nowhere.md"}, DOMAIN)


def test_comments_take_linear_time(tmp_path: Path) -> None:
    began = time.process_time()
    with pytest.raises(DataError, match="line 1 "):
        read(read_markdown_stories, tmp_path, "<!-- done --> " + "<!-- begun " * 20_000)
    assert time.process_time() - began < 1
