"""Stories to states and actions, by a hand-written example of every kind of event."""

import pytest

from sparse_bench.data.dialogues import LISTEN, Action, DialogueTurn, LoopChange, SlotSet, Story, UserMessage
from sparse_bench.errors import DataError

STORY = Story(
    "a table for two",
    (
        UserMessage("request", (("people", "2"), ("cuisine", "thai"), ("people", "3"))),
        SlotSet("people", "2"),
        Action("table_form"),
        LoopChange("table_form"),
        Action("utter_ask_price"),
        UserMessage("inform"),
        Action("action_search"),
        SlotSet("restaurant", "thai house"),
        LoopChange(None),
        Action("utter_suggest"),
        SlotSet("restaurant", None),
    ),
)


def test_states_before_every_action() -> None:
    assert list(STORY.predictions(frozenset({"restaurant"}))) == [
        (DialogueTurn(LISTEN, "request", ("cuisine", "people")), "table_form"),
        (DialogueTurn("table_form", loop="table_form"), "utter_ask_price"),
        (DialogueTurn("utter_ask_price", loop="table_form"), LISTEN),
        (DialogueTurn(LISTEN, "inform", loop="table_form"), "action_search"),
        (DialogueTurn("action_search", slots=("restaurant",)), "utter_suggest"),
        (DialogueTurn("utter_suggest"), LISTEN),
    ]


def test_slots_that_are_not_featurised_are_not_seen() -> None:
    assert all(state.slots == () for state, _ in STORY.predictions(frozenset()))
    assert [state.slots for state, _ in STORY.predictions(frozenset({"people"}))] == [("people",)] * 6


def test_what_a_story_begins_with_is_not_predicted() -> None:
    story = Story(
        "closing", (SlotSet("restaurant", "x"), Action("utter_more"), UserMessage("deny"), Action("utter_bye"))
    )
    assert list(story.predictions(frozenset({"restaurant"}))) == [
        (DialogueTurn("utter_more", slots=("restaurant",)), LISTEN),
        (DialogueTurn(LISTEN, "deny", slots=("restaurant",)), "utter_bye"),
        (DialogueTurn("utter_bye", slots=("restaurant",)), LISTEN),
    ]


def test_two_messages_in_a_row_are_waited_for() -> None:
    story = Story("impatient", (UserMessage("greet"), UserMessage("deny"), Action("utter_bye")))
    assert [action for _, action in story.predictions(frozenset())] == [LISTEN, "utter_bye", LISTEN]


@pytest.mark.parametrize("events", [(), (SlotSet("people", "2"),)])
def test_in_a_story_something_is_said_or_done(events: tuple[SlotSet, ...]) -> None:
    with pytest.raises(DataError, match="'odd' has neither a message nor an action"):
        list(Story("odd", events).predictions(frozenset()))
