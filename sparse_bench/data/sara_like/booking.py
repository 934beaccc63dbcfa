"""Generated booking dialogues with sub-dialogues, in the style of the simulated corpus of the TED paper.

An assistant books trains and concerts. It asks for one field after the other. The user may answer, chat, correct an
earlier answer, or ask what a question means. Afterwards the assistant has to return to its question, which is then
several turns back. Explanations, corrections and the search differ between trains and concerts, so the assistant must
also remember what is being booked.

The assistant follows rules that read only the states of the conversation. A story is kept only if the rules give the
same actions from the latest :data:`HISTORY` states as from all states. So a policy with that history can be perfect;
one with a shorter history cannot.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from random import Random

from sparse_bench.data.dialogues import (
    LISTEN,
    Action,
    DialogueCorpus,
    DialogueTurn,
    Event,
    SlotSet,
    StateTracker,
    Story,
    UserMessage,
)
from sparse_bench.data.sara_like.grammar import pick
from sparse_bench.data.splits import Duplicates
from sparse_bench.errors import ConfigError
from sparse_bench.limits import Many, Seed, checked
from sparse_bench.streams import Streams

#: Repeated stories per requested story, after which the generator is taken to have too few different ones.
_PATIENCE = 50
#: Number of latest states from which every action follows.
HISTORY = 10
#: Item to book → its fields, in the order in which the assistant asks for them.
FIELDS = {
    "train": ("departure", "return", "price", "place", "people"),
    "concert": ("genre", "price", "place", "people"),
}
#: The fields that belong to one item only.
OWN = {"train": {"departure", "return"}, "concert": {"genre"}}
VALUES = {
    "departure": ("tomorrow", "friday", "june 3rd", "next week", "04.07."),
    "return": ("sunday", "in ten days", "june 9th", "the day after", "11.07."),
    "genre": ("jazz", "opera", "folk", "punk"),
    "price": ("cheap", "mid-range", "first class"),
    "place": ("oslo", "lisbon", "leipzig", "toronto"),
    "people": ("1", "2", "4", "6"),
}
INTENTS = (
    "request_train",
    "request_concert",
    "inform",
    "explain",
    "correct",
    "chitchat",
    "did_that_work",
    "affirm",
)
ACTIONS = (
    LISTEN,
    "utter_ask_details",
    *(f"utter_ask_{field}" for field in VALUES),
    "utter_chitchat",
    "utter_filled_slots",
    "utter_happy",
    *(f"utter_{kind}_{field}_{item}" for item in FIELDS for kind in ("explain", "correct") for field in FIELDS[item]),
    *(
        f"{kind}_{item}"
        for item in FIELDS
        for kind in ("action_search", "utter_suggest", "utter_worked", "utter_more_info")
    ),
)
#: Digressions of the user instead of an answer, and their probabilities.
DIGRESSIONS = {"chitchat": 0.28, "explain": 0.14, "correct": 0.14, "did_that_work": 0.08}
#: After a chat: probability that the user continues to chat; and if not, that the user asks to return to the question.
CHATS_ON = 0.55
BACK = 0.6
#: Largest number of turns of the user.
LONGEST = 24


def reply(states: Sequence[DialogueTurn]) -> str | None:
    """The assistant's next action after these states, oldest first; None if they do not determine it.

    All states of a conversation always determine it.
    """
    now = states[-1]
    item = _item(states)
    question = _open_question(states)
    if now.intent is None:
        return _own_next(now.previous_action, item, question)
    match now.intent:
        case "chitchat":
            return "utter_chitchat"
        case "request_train" | "request_concert":
            return "utter_ask_details"
        case "inform":
            return _after(item, now.entities)
        case "affirm" if len(states) > 1 and states[-2].previous_action != "utter_chitchat":
            return "utter_happy"
        case "affirm":
            return _again(item, question)
        case "explain":
            return None if item is None or question is None else f"utter_explain_{question}_{item}"
        case "correct":
            return None if item is None else f"utter_correct_{now.entities[0]}_{item}"
        case "did_that_work" if item is not None and question is not None:
            return f"utter_worked_{item}" if question == "suggestion" else f"utter_more_info_{item}"
    return None


def _own_next(previous: str, item: str | None, question: str | None) -> str | None:
    """The action that follows another action of the assistant, without a user message in between."""
    if previous == "utter_filled_slots":
        return None if item is None else f"action_search_{item}"
    if previous.startswith("action_search_"):
        return f"utter_suggest_{item}"
    if previous.startswith("utter_correct_") and question == "suggestion":
        return f"action_search_{item}"
    if previous.startswith(("utter_explain_", "utter_correct_", "utter_worked_", "utter_more_info_")):
        return _again(item, question)
    return LISTEN


def _item(states: Sequence[DialogueTurn]) -> str | None:
    """The item being booked, from the latest state that belongs to only one item."""
    return next((item for state in reversed(states) if (item := _item_of(state)) is not None), None)


@cache
def _item_of(state: DialogueTurn) -> str | None:
    """The item being booked, if this one state shows it."""
    asked = state.previous_action.removeprefix("utter_ask_")
    for item, own in OWN.items():
        named = state.intent == f"request_{item}" or state.previous_action.endswith(f"_{item}") or item in state.slots
        if named or asked in own or not own.isdisjoint(state.entities):
            return item
    return None


def _open_question(states: Sequence[DialogueTurn]) -> str | None:
    """The field that the assistant last asked for, ``details``, or ``suggestion`` once it has proposed something."""
    for state in reversed(states):
        if state.slots:
            return "suggestion"
        if state.previous_action.startswith("utter_ask_"):
            return state.previous_action.removeprefix("utter_ask_")
    return None


def _again(item: str | None, question: str | None) -> str | None:
    """The action that returns to the open question."""
    if question is None or (question == "suggestion" and item is None):
        return None
    return f"utter_suggest_{item}" if question == "suggestion" else f"utter_ask_{question}"


def _after(item: str | None, answered: Sequence[str]) -> str | None:
    """The action after an answer: the question for the next field in order, or the message that all are filled."""
    nexts = set()
    for order in FIELDS.values() if item is None else [FIELDS[item]]:
        last = max(order.index(field) for field in answered)
        nexts.add("utter_filled_slots" if last + 1 == len(order) else f"utter_ask_{order[last + 1]}")
    return nexts.pop() if len(nexts) == 1 else None


class _Conversation:
    """A conversation between a simulated user and the assistant's rules."""

    def __init__(self, random: Random, name: str) -> None:
        self._random = random
        self.name = name
        self.events: list[Event] = []
        self.item = tuple(FIELDS)[pick(random, len(FIELDS))]
        self._known: list[str] = []
        self._tracker = StateTracker(frozenset(FIELDS))
        self._states: list[DialogueTurn] = []

    def story(self) -> Story:
        """Run the conversation until the user accepts a suggestion, or for :data:`LONGEST` turns."""
        self._user(f"request_{self.item}", ())
        for _ in range(LONGEST):
            if self._states[-1].previous_action == "utter_happy":
                break
            self._user(*self._wish())
        return Story(self.name, tuple(self.events))

    def _wish(self) -> tuple[str, tuple[str, ...]]:
        """The user's next message: its intent, and the fields for which it gives a value."""
        chatting = self._states[-1].previous_action == "utter_chitchat"
        question = _open_question(self._states) or ""
        point = self._random.random()
        if chatting and point < CHATS_ON:
            return "chitchat", ()
        if chatting and self._random.random() < BACK:
            return "affirm", ()
        for intent, share in DIGRESSIONS.items():
            point -= share
            if point < 0 and self._possible(intent, question):
                return intent, (self._known[pick(self._random, len(self._known))],) if intent == "correct" else ()
        if question == "suggestion":
            return "affirm", ()
        answered = self._answer(question)
        self._known += answered
        return "inform", answered

    def _possible(self, intent: str, question: str) -> bool:
        if intent == "correct":
            return bool(self._known)
        if intent == "explain":
            return question not in ("details", "suggestion")
        return question != "details" or intent == "chitchat"

    def _answer(self, question: str) -> tuple[str, ...]:
        """The field of the open question; at the beginning, the first field or the first two."""
        if question != "details":
            return (question,)
        return FIELDS[self.item][: 1 + pick(self._random, 2)]

    def _user(self, intent: str, fields: tuple[str, ...]) -> None:
        """Add a message, and all actions of the assistant until it waits again."""
        values = tuple((field, VALUES[field][pick(self._random, len(VALUES[field]))]) for field in fields)
        self._happened(UserMessage(intent, values), *(SlotSet(field, value) for field, value in values))
        action = reply(self._states)
        while action is not None and action != LISTEN:
            found = [SlotSet(self.item, self.item)] if action.startswith("action_search_") else []
            self._happened(Action(action), *found)
            action = reply(self._states)

    def _happened(self, *events: Event) -> None:
        """Add events up to the assistant's next prediction."""
        for event in events:
            self.events.append(event)
            self._tracker.update(event)
        self._states.append(self._tracker.state())


def _decided(story: Story) -> bool:
    """Whether every action follows from the latest :data:`HISTORY` states, and the story reached its end."""
    pairs = list(story.predictions(frozenset(FIELDS)))
    states = [state for state, _ in pairs]
    return Action("utter_happy") == story.events[-1] and all(
        reply(states[max(0, end - HISTORY) : end]) == action for end, (_, action) in enumerate(pairs, start=1)
    )


@checked
def dialogues(
    seed: Seed = 0, stories: Many = 150, test_stories: Many = 30, duplicates: Duplicates = "exact"
) -> DialogueCorpus:
    """Generate booking dialogues. The ten latest states determine every action; the five latest do not.

    Args:
        seed: seed of the generator.
        stories: number of training stories.
        test_stories: number of held-out stories.
        duplicates: ``features``: no two stories, in either split, look the same to a policy. ``exact``: stories are
            kept as drawn, so two stories may differ only in the values of entities.

    Returns:
        The corpus; ``checksums["dialogues"]`` is the SHA-256 of its stories. The same arguments give the same stories
        on every machine and in every Python version.

    Raises:
        ConfigError: the rule for duplicates is unknown, or the generator has too few different stories.
    """
    seen: set[tuple[tuple[DialogueTurn, str], ...]] = set()

    def part(name: str, count: int) -> tuple[Story, ...]:
        random = Random(Streams(seed).derive("data", "dialogues", name))
        kept: list[Story] = []
        repeated = 0
        while len(kept) < count:
            story = _Conversation(random, f"{name} {len(kept) + 1}").story()
            if not _decided(story):
                continue
            course = story.course(frozenset(FIELDS))
            if duplicates == "features" and course in seen:
                repeated += 1
                if repeated > count * _PATIENCE:
                    raise ConfigError(f"Only {len(seen)} different stories were found; more were requested.")
                continue
            seen.add(course)
            kept.append(story)
        return tuple(kept)

    train, test = part("train", stories), part("test", test_stories)
    digest = hashlib.sha256()
    for story in (*train, *test):
        events = []
        for event in story.events:
            content = asdict(event)
            if content.get("amount") == 1.0:
                del content["amount"]  # checksums of runs are older than amounts
            events.append([type(event).__name__, content])
        digest.update(json.dumps([story.name, events]).encode() + b"\n")
    return DialogueCorpus(
        stories=train,
        test_stories=test,
        intents=INTENTS,
        entities=tuple(VALUES),
        actions=ACTIONS,
        featurized_slots=frozenset(FIELDS),
        checksums={"dialogues": digest.hexdigest()},
    )
