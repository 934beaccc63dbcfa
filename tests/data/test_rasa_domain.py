"""Domains: what a policy sees of slots and messages, by hand."""

from pathlib import Path

import pytest

from sparse_bench.data.dialogues import Action, SlotSet, UserMessage
from sparse_bench.data.rasa_domain import DEFAULT_ACTIONS, Domain, Slot, read_domain
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


@pytest.fixture
def domain(tmp_path: Path) -> Domain:
    (tmp_path / "domain.yml").write_text(TEXT)
    return read_domain("domain.yml", tmp_path / "domain.yml", ["faq"])


def test_names(domain: Domain) -> None:
    assert domain.intents == {
        "greet": None,
        "faq": frozenset({"product"}),
        "chitchat": frozenset(),
        "deny": None,
    }
    assert domain.entities == ("product", "name", "city")
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


def test_a_slot_without_features_just_holds_its_value(domain: Domain) -> None:
    assert domain.slot("note", "x") == (SlotSet("note", "x"),)
    assert domain.slot("city", None) == (SlotSet("city", None),)


def test_entities_fill_slots_of_their_name_and_are_seen_where_the_intent_uses_them(domain: Domain) -> None:
    entities = (("product", "core"), ("name", "mo"), ("product", "nlu"))
    filled = (*domain.slot("name", "mo"), *domain.slot("product", "nlu"))
    assert domain.message("greet", entities) == (UserMessage("greet", entities), *filled)
    seen = (("product", "core"), ("product", "nlu"))
    assert domain.message("faq", entities) == (UserMessage("faq", seen), *filled)
    assert domain.message("chitchat", entities) == (UserMessage("chitchat"), *filled)


def test_an_assistant_may_fill_no_slots(tmp_path: Path) -> None:
    (tmp_path / "domain.yml").write_text(TEXT + "config: {store_entities_as_slots: false}\n")
    domain = read_domain("domain.yml", tmp_path / "domain.yml")
    assert domain.message("greet", [("name", "mo")]) == (UserMessage("greet", (("name", "mo"),)),)


def test_what_is_not_in_the_domain_is_named(domain: Domain) -> None:
    assert domain.action("sales_form") == Action("sales_form")
    with pytest.raises(DataError, match=r"Unknown intent 'gret'. Did you mean 'greet'\?"):
        domain.message("gret", ())
    with pytest.raises(DataError, match="Unknown entity 'town'"):
        domain.message("greet", [("town", "x")])
    with pytest.raises(DataError, match="Unknown action 'utter_hello'"):
        domain.action("utter_hello")
    with pytest.raises(DataError, match="Unknown slot 'town'"):
        domain.slot("town", "x")


def test_a_slot_that_has_no_0_1_features_is_refused(tmp_path: Path) -> None:
    (tmp_path / "domain.yml").write_text("intents: [a]\nslots: {age: {type: float}}\n")
    with pytest.raises(DataError, match="slot 'age': Unknown type with 0/1 features 'float'"):
        read_domain("domain.yml", tmp_path / "domain.yml")


@pytest.mark.parametrize("text", ["a: [", "- x", "slots: {}", "intents: [a]\nslots: {x: {}}"])
def test_what_is_no_domain_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "domain.yml").write_text(text)
    with pytest.raises(DataError, match=r"domain\.yml cannot be read as a domain"):
        read_domain("domain.yml", tmp_path / "domain.yml")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"domain\.yml cannot be read"):
        read_domain("domain.yml", tmp_path / "domain.yml")


def test_slots_of_every_kind_have_distinct_features() -> None:
    slots = [Slot("text"), Slot("bool"), Slot("categorical", ("a", "b")), Slot("any")]
    assert [len(slot.features("s")) for slot in slots] == [1, 2, 3, 0]
