"""Domains: what a policy sees of slots and messages, by hand."""

from pathlib import Path

import pytest

from sparse_bench.data.dialogues import Action, SlotSet, UserMessage
from sparse_bench.data.rasa_domain import DEFAULT_ACTIONS, Domain, Mention, Slot, Source
from sparse_bench.data.rasa_domain_file import read_domain
from sparse_bench.data.rasa_markdown import read_markdown_stories
from sparse_bench.data.rasa_yaml import read_yaml_stories
from sparse_bench.errors import DataError

TEXT = """
version: '2.0'
intents:
- greet
- faq: {use_entities: [product]}
- chitchat: {use_entities: []}
- deny: {use_entities: true}
entities: [product, name, {city: {roles: [from, to]}}]
slots:
  name: {type: text}
  product: {type: rasa.shared.core.slots.CategoricalSlot, values: [core, Rasa X]}
  done: {type: bool, auto_fill: false}
  city: {type: text, influence_conversation: false}
  note: {type: any}
responses:
  utter_greet: [{text: hello}]
  utter_bye: [{text: bye}]
actions: [action_search, utter_greet, action_back]
forms:
  sales_form: {}
"""


def read(folder: Path, text: str) -> Domain:
    (folder / "domain.yml").write_text(text)
    return read_domain("domain.yml", folder / "domain.yml", ["faq"])


@pytest.fixture
def domain(tmp_path: Path) -> Domain:
    return read(tmp_path, TEXT)


def test_names(domain: Domain) -> None:
    assert domain.intents == {
        "greet": None,
        "faq": frozenset({"product"}),
        "chitchat": frozenset(),
        "deny": None,
    }
    assert domain.entities == ("product", "name", "city", "city#from", "city#to")
    assert len(DEFAULT_ACTIONS) == 11
    assert domain.actions == (
        *DEFAULT_ACTIONS,
        *("action_search", "utter_greet", "utter_bye", "utter_faq", "sales_form"),
    )
    assert set(domain.checksums) == {"domain.yml"}


def test_features_of_slots(domain: Domain) -> None:
    assert domain.featurized_slots == {
        *("name", "done", "done=true"),
        *("product=core", "product=Rasa X", "product=__other__"),
    }


@pytest.mark.parametrize(
    ("slot", "value", "active"),
    [
        ("name", "akela", {"name"}),
        ("name", "", {"name"}),
        ("name", None, set()),
        ("done", "true", {"done", "done=true"}),
        ("done", "false", {"done"}),
        ("done", "True", {"done", "done=true"}),
        ("done", "1", {"done", "done=true"}),
        ("done", "0", {"done"}),
        ("done", None, set()),
        ("product", "rasa x", {"product=Rasa X"}),
        ("product", "nlu", {"product=__other__"}),
        ("product", None, set()),
    ],
)
def test_setting_a_slot_sets_all_its_features(domain: Domain, slot: str, value: str | None, active: set[str]) -> None:
    events = domain.slot(slot, value)
    assert {event.name for event in events if event.value is not None} == active
    assert {event.name for event in events} == set(domain.slots[slot].features(slot))


NUMBERS = """
version: '3.1'
intents: [inform]
entities: [size, topping]
slots:
  size: {type: float, min_value: 20, max_value: 40, mappings: [{type: from_entity, entity: size}]}
  share: {type: rasa.shared.core.slots.FloatSlot, initial_value: 0.25, mappings: []}
  toppings: {type: list, mappings: [{type: from_entity, entity: topping}]}
"""


@pytest.mark.parametrize(
    ("slot", "value", "amounts"),
    [
        ("size", "25", {"size": 1, "size=amount": 0.25}),
        ("size", "40", {"size": 1, "size=amount": 1}),
        ("size", "99.5", {"size": 1, "size=amount": 1}),
        ("size", "20", {"size": 1}),  # it is set, and the second feature is 0
        ("size", "-inf", {"size": 1}),
        ("size", "large", {}),
        ("size", "nan", {}),
        ("size", None, {}),
        ("toppings", '["ham"]', {"toppings": 1}),
        ("toppings", "ham", {"toppings": 1}),
        ("toppings", "[]", {}),
        ("toppings", "", {}),
        ("toppings", None, {}),
    ],
)
def test_numbers_and_lists_as_rasa_sees_them(
    slot: str, value: str | None, amounts: dict[str, float], tmp_path: Path
) -> None:
    domain = read(tmp_path, NUMBERS)
    events = domain.slot(slot, value)
    assert {event.name for event in events} == set(domain.slots[slot].features(slot))
    assert {event.name: event.amount for event in events if event.value is not None} == amounts


def test_numbers_and_lists_in_a_story(tmp_path: Path) -> None:
    domain = read(tmp_path, NUMBERS)
    (tmp_path / "stories.yml").write_text(
        "stories: [{story: s, steps: [{intent: inform, entities: [{size: 35}, {topping: ham}, {topping: ''}]},"
        "{action: action_back}, {slot_was_set: [{size: 20}, {toppings: []}, {share: 1.5}]}]}]"
    )
    ((story,),) = read_yaml_stories({"stories.yml": tmp_path / "stories.yml"}, domain).stories
    assert SlotSet("toppings", '["ham", ""]') in story.events
    first, last = (turn for turn, _ in story.predictions(domain.featurized_slots))
    assert first.slots == ("share", "share=amount", "size", "size=amount", "toppings")
    assert first.amounts == (("share=amount", 0.25), ("size=amount", 0.75))
    assert (last.slots, last.amounts) == (("share", "share=amount", "size"), ())


def test_a_slot_without_features_just_holds_its_value(domain: Domain) -> None:
    assert domain.slot("note", "x") == (SlotSet("note", "x"),)
    assert domain.slot("city", None) == (SlotSet("city", None),)


def test_a_slot_that_no_policy_sees_may_be_of_any_type(tmp_path: Path) -> None:
    domain = read(tmp_path, "intents: [a]\nslots: {people: {type: float, influence_conversation: false}}\n")
    assert domain.slots == {"people": Slot("any")}


def test_entities_fill_slots_of_their_name_and_are_seen_where_the_intent_uses_them(domain: Domain) -> None:
    entities = (Mention("product", "core"), Mention("name", "mo"), Mention("product", "nlu"))
    filled = (*domain.slot("name", "mo"), *domain.slot("product", "nlu"))
    all_seen = tuple((entity.type, entity.value) for entity in entities)
    assert domain.message("greet", entities) == (UserMessage("greet", all_seen), *filled)
    seen = (("product", "core"), ("product", "nlu"))
    assert domain.message("faq", entities) == (UserMessage("faq", seen), *filled)
    assert domain.message("chitchat", entities) == (UserMessage("chitchat"), *filled)


def test_an_assistant_may_fill_no_slots(tmp_path: Path) -> None:
    domain = read(tmp_path, TEXT + "config: {store_entities_as_slots: false}\n")
    assert domain.message("greet", [Mention("name", "mo")]) == (UserMessage("greet", (("name", "mo"),)),)


def test_what_is_not_in_the_domain_is_named(domain: Domain) -> None:
    assert domain.action("sales_form") == Action("sales_form")
    with pytest.raises(DataError, match=r"Unknown intent 'gret'. Did you mean 'greet'\?"):
        domain.message("gret", ())
    with pytest.raises(DataError, match="Unknown entity 'town'"):
        domain.message("greet", [Mention("town", "x")])
    with pytest.raises(DataError, match="Unknown action 'utter_hello'"):
        domain.action("utter_hello")
    with pytest.raises(DataError, match="Unknown slot 'town'"):
        domain.slot("town", "x")


def test_values_are_texts(tmp_path: Path) -> None:
    """For YAML 1.1, which Rasa does not read, ``yes`` and ``no`` would be true and false."""
    domain = read(
        tmp_path,
        "intents: [yes, no, 12]\nentities: [on]\nactions: [off]\n"
        "slots: {answer: {type: categorical, values: [yes, no, 1.0, true]}, open: {type: text}}\n",
    )
    assert domain.slots["answer"].values == ("yes", "no", "1.0", "true")
    assert (list(domain.intents), domain.entities) == (["yes", "no", "12"], ("on",))
    assert "off" in domain.actions
    (tmp_path / "stories.yml").write_text(
        "stories: [{story: s, steps: [{intent: no}, {slot_was_set: [{answer: no}]}, {action: off}]}]"
    )
    ((story,),) = read_yaml_stories({"stories.yml": tmp_path / "stories.yml"}, domain).stories
    assert [event.name for event in story.events if isinstance(event, SlotSet) and event.value] == ["answer=no"]


@pytest.mark.parametrize(
    ("settings", "used"),
    [
        ("{ignore_entities: [product]}", {"name", "city", "city#from", "city#to"}),
        ("{ignore_entities: []}", None),
        ("{use_entities: [product, name], ignore_entities: [name]}", {"product"}),  # to ignore takes precedence
        ("{use_entities: [city]}", {"city", "city#from", "city#to"}),
        ("{use_entities: [city], ignore_entities: [city#to]}", {"city", "city#from"}),
        ("{use_entities: false}", set()),
        ("{use_entities: }", set()),
        ("{triggers: action_search}", None),
    ],
)
def test_which_entities_are_seen(tmp_path: Path, settings: str, used: set[str] | None) -> None:
    assert read(tmp_path, TEXT.replace("- greet\n", f"- greet: {settings}\n", 1)).intents["greet"] == used


@pytest.mark.parametrize(
    ("settings", "used"),
    [
        ("{use_entities: true}", {"product", "city", "city#from", "city#to"}),
        ("{use_entities: [name, product]}", {"product"}),
        ("{use_entities: [name], ignore_entities: []}", {"name"}),
        ("{ignore_entities: [city]}", {"product"}),
    ],
)
def test_an_entity_may_be_ignored_by_all_intents(tmp_path: Path, settings: str, used: set[str]) -> None:
    text = TEXT.replace("product, name,", "product, {name: {influence_conversation: false}},")
    assert read(tmp_path, text).intents["greet"] == {"product", "city", "city#from", "city#to"}
    assert read(tmp_path, text.replace("- greet\n", f"- greet: {settings}\n", 1)).intents["greet"] == used


def test_roles_are_seen_beside_their_entity(domain: Domain) -> None:
    message, *_ = domain.message("greet", [Mention("city", "rome", role="to"), Mention("city", "oslo", role="other")])
    assert message == UserMessage("greet", (("city", "rome"), ("city#to", "rome"), ("city", "oslo")))


MAPPED = """
version: "3.1"
intents: [go]
entities: [{city: {roles: [from, to], groups: ["1"]}}, name]
slots:
  city: {type: text, mappings: []}
  goal:
    type: text
    mappings:
    - {type: from_entity, entity: name}
    - {type: from_entity, entity: city, role: to, intent: go}
  second: {type: text, mappings: [{type: from_entity, entity: city, role: to, group: "1"}]}
  plain: {type: text, mappings: [{type: from_entity, entity: city}]}
  asked: {type: text, mappings: [{type: from_entity, entity: city, conditions: [{active_loop: form}]}]}
  said: {type: text, mappings: [{type: from_text}, {type: from_intent, value: x}, {type: custom}]}
"""


@pytest.mark.parametrize(
    ("mentions", "filled"),
    [
        ([Mention("city", "rome")], {"plain": "rome"}),
        ([Mention("city", "rome", "from")], {}),
        ([Mention("city", "rome", "to"), Mention("city", "oslo", "to")], {"goal": "oslo"}),
        ([Mention("city", "rome", "to", "1")], {"second": "rome"}),
        ([Mention("name", "mo"), Mention("city", "rome", "to")], {"goal": "rome"}),
        ([Mention("city", "rome", "to"), Mention("name", "mo")], {"goal": "rome"}),  # mapping by mapping
    ],
)
def test_mappings_say_which_entities_fill_a_slot(
    tmp_path: Path, mentions: list[Mention], filled: dict[str, str]
) -> None:
    domain = read(tmp_path, MAPPED)
    assert domain.slots["goal"].filled_by == (Source("name"), Source("city", "to"))
    _, *events = domain.message("go", mentions)
    assert {event.name: event.value for event in events if isinstance(event, SlotSet)} == filled


def test_stories_begin_with_the_initial_values_of_slots(tmp_path: Path) -> None:
    text = TEXT.replace("type: bool", "type: bool, initial_value: false").replace(
        "type: any", "type: any, initial_value: x"
    )
    domain = read(tmp_path, text.replace("values: [core", "initial_value: CORE, values: [core"))
    assert {(event.name, event.value) for event in domain.beginning if event.value is not None} == {
        ("done", "false"),
        ("product=core", "CORE"),
    }
    (tmp_path / "stories.yml").write_text("stories: [{story: s, steps: [{intent: greet}, {action: utter_bye}]}]")
    (tmp_path / "stories.md").write_text("## s\n* greet\n- utter_bye\n")
    ((story,),) = read_yaml_stories({"s": tmp_path / "stories.yml"}, domain).stories
    ((same,),) = read_markdown_stories({"s": tmp_path / "stories.md"}, domain).stories
    assert story == same
    turns = [turn for turn, _ in story.predictions(domain.featurized_slots)]
    assert [turn.slots for turn in turns] == [("done", "product=core")] * 2


@pytest.mark.parametrize(
    "section", ["forms: [sales_form, {other_form: {required_slots: [name]}}]", "forms: {sales_form: , other_form: {}}"]
)
def test_names_may_stand_in_lists_and_mappings(tmp_path: Path, section: str) -> None:
    domain = read(tmp_path, f"intents: [a]\nactions: [one, {{two: {{send_domain: true}}}}]\n{section}\n")
    assert domain.actions == (*DEFAULT_ACTIONS, "one", "two", "utter_faq", "sales_form", "other_form")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "cannot be read: while parsing"),
        ("- x", "has no list 'intents'"),
        ("slots: {}", "has no list 'intents'"),
        ("intents: [a]\nversion: 4.0", r"is in version 4\.0 of the format. Valid choices: 2\.x, 3\.x"),
        ("intents: [a]\nversion: [2]", "is in version"),
        ("intents: a", "intent: a list or a mapping of names is needed; found 'a'"),
        ("intents: [a, a]", "intent: 'a' occurs twice"),
        ("intents: [[a]]", r"intent: \['a'\] is not a name"),
        ("intents: [a: ]", "intent 'a': settings must follow the colon"),
        ("intents: [a: {use_entites: []}]", "intent 'a': Unknown key 'use_entites'. Did you mean 'use_entities'"),
        ("intents: [a: {use_entities: [x]}]", "intent 'a', use_entities: Unknown entity 'x'"),
        ("intents: [a: {use_entities: {x: y}}]", r"intent 'a', use_entities: \{'x': 'y'\}. Valid choices: true, false"),
        ("intents: [a: {ignore_entities: x}]", "intent 'a', ignore_entities: a list of texts is needed; found 'x'"),
        ("intents: [a]\nentities: [{b: {roles: c}}]", "entity 'b', roles: a list of texts is needed"),
        ("intents: [a]\nactions: [{b: {}}, b]", "actions: 'b' occurs twice"),
        ("intents: [a]\nresponses: x", "responses: a list or a mapping"),
        ("intents: [a]\nconfig: [x]", "config: a mapping is needed"),
        ("intents: [a]\nconfig: {store_entities_as_slots: no}", "config, store_entities_as_slots: 'no'. Valid choices"),
        ("intents: [a]\nslots: {x: {}}", "slot 'x': Unknown type of slot 'None'"),
        ("intents: [a]\nslots: {x: {type: flot}}", r"slot 'x': Unknown type of slot 'flot'. Did you mean 'float'\?"),
        ("intents: [a]\nslots: {x: {type: float, max_value: 0}}", "slot 'x': min_value and max_value must be numbers"),
        ("intents: [a]\nslots: {x: {type: float, min_value: low}}", "found 'low' and 1.0"),
        ("intents: [a]\nslots: {x: {type: float, initial_value: 2}}", "initial_value: '2' is no number from 0 to 1"),
        ("intents: [a]\nslots: {x: {type: text, inital_value: 1}}", "slot 'x': Unknown key 'inital_value'"),
        ("intents: [a]\nslots: {x: {type: categorical, values: yes}}", "slot 'x', values: a list of texts is needed"),
        ("intents: [a]\nslots: {x: {type: bool, initial_value: [1]}}", "slot 'x', initial_value: the slot 'x' of type"),
        ("intents: [a]\nslots: {x: {type: bool, influence_conversation: no}}", "influence_conversation: 'no'. Valid"),
        ("intents: [a]\nversion: '3.0'\nslots: {x: {type: text}}", "slot 'x' has no 'mappings'"),
        ("intents: [a]\nslots: {x: {type: text, mappings: y}}", "slot 'x', mappings: a list is needed"),
        ("intents: [a]\nslots: {x: {type: text, mappings: [y]}}", "slot 'x', mapping 1: a mapping is needed"),
        (
            "intents: [a]\nslots: {x: {type: text, mappings: [{type: from_entty}]}}",
            "mapping 1: Unknown type 'from_entty'",
        ),
        (
            "intents: [a]\nslots: {x: {type: text, mappings: [{type: from_entity, entity: y}]}}",
            "mapping 1: Unknown entity 'y'",
        ),
        (
            "intents: [a]\nentities: [y]\n"
            "slots: {x: {type: text, mappings: [{type: from_entity, entity: y, role: z}]}}",
            "mapping 1: the entity 'y' has no role or group 'z'",
        ),
    ],
)
def test_what_is_no_domain_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"^domain\.yml.*{message}"):
        read(tmp_path, text)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"domain\.yml cannot be read"):
        read_domain("domain.yml", tmp_path / "domain.yml")


def test_slots_of_every_kind_have_distinct_features() -> None:
    slots = [Slot("text"), Slot("bool"), Slot("categorical", ("a", "b")), Slot("any")]
    assert [len(slot.features("s")) for slot in slots] == [1, 2, 3, 0]
