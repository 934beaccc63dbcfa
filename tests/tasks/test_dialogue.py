"""The dialogue task: examples by hand, their encoding, epochs, metrics, and what is known of the real corpus."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparse_bench.batch import DialogueBatch
from sparse_bench.data.dialogues import (
    LISTEN,
    Action,
    DialogueCorpus,
    DialogueTurn,
    LoopChange,
    SlotSet,
    Story,
    UserMessage,
)
from sparse_bench.data.sara_like import dialogues
from sparse_bench.data.ted import ted
from sparse_bench.errors import ConfigError, DataError
from sparse_bench.streams import Streams
from sparse_bench.tasks.balancing import balanced_order
from sparse_bench.tasks.dialogue import DialogueTask, action_metrics, spaced
from sparse_bench.tasks.dialogue_data import ceiling, examples

SEARCH = (
    UserMessage("request", (("people", "2"), ("city", "oslo"))),
    Action("ask"),
    UserMessage("inform"),
    Action("search"),
    SlotSet("found", "yes"),
    Action("suggest"),
)
SMALL = DialogueCorpus(
    stories=(Story("search", SEARCH), Story("again", SEARCH), Story("short", (UserMessage("inform"), Action("ask")))),
    test_stories=(Story("test", (UserMessage("inform"), Action("search"), SlotSet("found", "yes"), Action("ask"))),),
    intents=("request", "inform", "bye"),
    entities=("city", "people", "price"),
    actions=(LISTEN, "ask", "search", "suggest", "wave"),
    featurized_slots=frozenset({"found"}),
    checksums={"small": "0" * 64},
)
#: The states of SEARCH.
REQUEST = DialogueTurn(LISTEN, "request", ("city", "people"))
ASKED = DialogueTurn("ask")
INFORM = DialogueTurn(LISTEN, "inform")
SEARCHED = DialogueTurn("search", slots=("found",))
SUGGESTED = DialogueTurn("suggest", slots=("found",))
#: Columns of a batch: intent, previous action, entities, slots; the number behind the last value is "none".
CODES = {
    REQUEST: [0, 0, 0, 1],
    ASKED: [3, 1, 1, 1],
    INFORM: [1, 0, 1, 1],
    SEARCHED: [3, 2, 1, 0],
    SUGGESTED: [3, 3, 1, 0],
}


def make(**settings) -> DialogueTask:
    return DialogueTask(**{"corpus": SMALL, "batch_epochs": 10, "batch_size": (4, 8), **settings})


@pytest.fixture(scope="module")
def booking() -> DialogueTask:
    return DialogueTask(corpus=dialogues(stories=12, test_stories=3), batch_epochs=10)


class Oracle(nn.Module):
    """Predicts the actions of the batch, and waits instead of doing ``missed``."""

    def __init__(self, actions: int, missed: int = -1):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.actions, self.missed, self.batches = actions, missed, 0

    def predict(self, batch: DialogueBatch):
        self.batches += 1
        return F.one_hot(torch.where(batch.actions == self.missed, 0, batch.actions), self.actions).float()


class LinearModel(nn.Module):
    """Actions from the latest turn alone."""

    def __init__(self, sizes):
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(len(a.values) + 1, sizes.actions) for a in sizes.attributes.values())

    def predict(self, batch: DialogueBatch):
        latest = batch.turns.index_select(0, batch.latest_rows)
        return torch.stack([table(column) for table, column in zip(self.tables, latest.unbind(1), strict=True)]).sum(0)

    def forward(self, batch: DialogueBatch):
        return {"action": F.cross_entropy(self.predict(batch), batch.actions), "l2": self.tables[0].weight.sum() * 0}


class TestExamples:
    def test_table(self) -> None:
        turns = [REQUEST, ASKED, INFORM, SEARCHED, SUGGESTED]
        actions = ["ask", LISTEN, "search", "suggest", LISTEN]
        for history in (10, 5):
            assert examples([Story("s", SEARCH)], frozenset({"found"}), history) == [
                (tuple(turns[: end + 1]), action) for end, action in enumerate(actions)
            ]
        assert examples([Story("s", SEARCH)], frozenset({"found"}), 2) == [
            ((REQUEST,), "ask"),
            ((REQUEST, ASKED), LISTEN),
            ((ASKED, INFORM), "search"),
            ((INFORM, SEARCHED), "suggest"),
            ((SEARCHED, SUGGESTED), LISTEN),
        ]
        assert [turns for turns, _ in examples([Story("s", SEARCH)], frozenset({"found"}), 1)] == [
            (turn,) for turn in turns
        ]

    def test_ceiling(self) -> None:
        assert ceiling([((ASKED,), "a"), ((ASKED,), "a"), ((ASKED,), "b"), ((INFORM,), "b")]) == 0.75

    def test_duplicates_are_removed_in_training_alone(self) -> None:
        task = make()
        # Five predictions of the first story, none of the second, which is the same, and two of the third.
        assert len(task.train) == 7
        assert task.train.actions.tolist() == [1, 0, 2, 3, 0, 1, 0]
        assert task.train.lengths.tolist() == [1, 2, 3, 4, 5, 1, 2]
        doubled = DialogueCorpus(**{**vars(SMALL), "test_stories": SMALL.test_stories * 2})
        assert len(make(corpus=doubled).test) == 2 * len(task.test) == 6

    def test_the_same_turns_with_another_action_are_no_duplicate(self) -> None:
        # INFORM is answered with ask in the third story; with a history of 1 also with search.
        assert make(max_history=1).train.actions.tolist() == [1, 0, 2, 3, 0, 1]
        assert make(max_history=1).ceilings["train"] == 5 / 6


class TestBatch:
    def test_turns_stand_latest_first(self) -> None:
        batch = make().train.batch(np.array([2, 0, 4]))
        expected = [INFORM, ASKED, REQUEST, REQUEST, SUGGESTED, SEARCHED, INFORM, ASKED, REQUEST]
        assert batch.turns.tolist() == [CODES[turn] for turn in expected]
        assert batch.layout.lengths.tolist() == [3, 1, 5]
        assert batch.latest_rows.tolist() == [0, 3, 4]
        assert batch.layout.position[batch.latest_rows].tolist() == [0, 0, 0]
        assert batch.actions.tolist() == [2, 1, 0]

    def test_user_features_come_after_listening_alone(self, booking: DialogueTask) -> None:
        names = list(booking.sizes.attributes)
        batch = booking.train.batch(np.arange(len(booking.train)))
        columns = dict(zip(names, batch.turns.unbind(1), strict=True))
        listened = columns["previous_action"] == booking.corpus.actions.index(LISTEN)
        absent = {name: len(attribute.values) for name, attribute in booking.sizes.attributes.items()}
        assert torch.equal(columns["intent"] < absent["intent"], listened)
        assert not (columns["entities"][~listened] < absent["entities"]).any()
        assert (columns["entities"][listened] < absent["entities"]).any()

    def test_sizes(self) -> None:
        sizes = make().sizes
        assert list(sizes.attributes) == ["intent", "previous_action", "entities", "slots"]
        assert sizes.actions == 5
        assert torch.equal(sizes.attributes["intent"].values, torch.eye(3))
        assert torch.equal(sizes.attributes["previous_action"].values, torch.eye(5))
        assert sizes.attributes["entities"].values.tolist() == [[1, 1, 0]]
        assert sizes.attributes["slots"].values.tolist() == [[1]]

    def test_attributes_exist_as_far_as_training_turns_have_them(self) -> None:
        plain = Story("plain", (UserMessage("inform"), Action("ask")))
        loop = Story("loop", (UserMessage("bye"), LoopChange("form"), Action("wave")))
        only = DialogueCorpus(**{**vars(SMALL), "stories": (plain,)})
        assert list(make(corpus=only).sizes.attributes) == ["intent", "previous_action"]
        looped = make(corpus=DialogueCorpus(**{**vars(SMALL), "stories": (plain, loop)}))
        assert list(looped.sizes.attributes) == ["intent", "previous_action", "loop"]
        assert looped.train.batch(np.array([2])).turns.tolist() == [[2, 0, 0]]
        assert looped.train.batch(np.array([0])).turns.tolist() == [[1, 0, 1]]

    def test_sets_that_only_the_test_has_have_the_features_of_their_members(self) -> None:
        entities = (("price", "1"), ("city", "x"))
        test = Story("test", (UserMessage("inform", entities), Action("ask")))
        task = make(corpus=DialogueCorpus(**{**vars(SMALL), "test_stories": (test,)}))
        assert task.sizes.attributes["entities"].values.tolist() == [[1, 1, 0], [1, 0, 1]]

    @pytest.mark.parametrize(
        ("event", "message"),
        [
            (UserMessage("gret"), "Unknown intent 'gret'"),
            (UserMessage("inform", (("town", "x"),)), "Unknown name among entities 'town'"),
            (Action("wove"), r"Unknown action 'wove'. Did you mean 'wave'\?"),
        ],
    )
    def test_names_that_the_domain_lacks(self, event: UserMessage | Action, message: str) -> None:
        story = Story("odd", (UserMessage("inform"), event, Action("ask")))
        with pytest.raises(DataError, match=message):
            make(corpus=DialogueCorpus(**{**vars(SMALL), "stories": (*SMALL.stories, story)}))


class TestEpoch:
    def test_steps_are_the_batches_and_sizes_grow(self, booking: DialogueTask) -> None:
        for epoch, size in ((0, 32), (9, 64), (30, 64)):
            sizes = [batch.actions.shape[0] for batch in booking.epoch_batches(epoch, Streams(1))]
            assert booking.epoch_steps(epoch, Streams(1)) == len(sizes)
            assert set(sizes[:-1]) == {size}
            assert 0 < sizes[-1] <= size

    def test_order_is_the_balanced_one(self, booking: DialogueTask) -> None:
        streams = Streams(3)
        order = balanced_order(booking.train.actions, 32, streams.numpy("data", 0).permutation)
        actions = torch.cat([batch.actions for batch in booking.epoch_batches(0, streams)])
        assert actions.tolist() == booking.train.actions[order].tolist()

    def test_unbalanced_epochs_visit_each_example_once(self) -> None:
        task = make(balanced=False)
        actions = torch.cat([batch.actions for batch in task.epoch_batches(0, Streams(0))])
        assert sorted(actions.tolist()) == sorted(task.train.actions.tolist())

    def test_an_epoch_is_a_function_of_seed_and_epoch(self, booking: DialogueTask) -> None:
        def turns(epoch: int, seed: int) -> torch.Tensor:
            return torch.cat([batch.turns for batch in booking.epoch_batches(epoch, Streams(seed))])

        first = turns(1, 0)
        assert not torch.equal(first, turns(2, 0))
        assert torch.equal(first, turns(1, 0))
        assert not torch.equal(first, turns(1, 1))


class TestLoss:
    def test_parts_are_summed(self) -> None:
        task = make()
        batch = next(task.epoch_batches(0, Streams(0)))
        loss = task.loss(LinearModel(task.sizes), batch)
        assert loss.total.item() == pytest.approx(sum(part.item() for part in loss.parts.values()))
        assert not any(part.requires_grad for part in loss.parts.values())
        assert (loss.examples, loss.tokens) == (4, batch.turns.shape[0])

    def test_on_the_meta_device(self) -> None:
        task = make()
        batch = next(task.epoch_batches(0, Streams(0))).to(torch.device("meta"))
        assert task.loss(LinearModel(task.sizes).to("meta"), batch).total.is_meta


class TestEvaluate:
    NAMES = ("action_f1", "action_accuracy", "action_f1_without_listen", "action_accuracy_without_listen")

    def test_an_oracle_is_always_right(self, booking: DialogueTask) -> None:
        metrics = booking.evaluate(Oracle(booking.sizes.actions), "test")
        assert tuple(metrics) == self.NAMES
        assert set(metrics.values()) == {1.0}

    def test_numbers_do_not_depend_on_batches(self) -> None:
        one, several = make(), make(evaluate_batch_size=2)
        oracle = Oracle(5, missed=1)
        metrics = several.evaluate(oracle, "test")
        assert oracle.batches == 2
        assert metrics == one.evaluate(oracle, "test")
        assert metrics["action_accuracy"] == pytest.approx(2 / 3)

    def test_by_hand(self) -> None:
        # Waiting: 2 of 3 found, 1 wrongly given: F1 2/3. Action 1: 1 of 2, none wrong: F1 2/3. Action 2: 0.
        gold, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 3, 1, 0, 3])
        assert action_metrics(gold, predicted, 0) == {
            "action_f1": pytest.approx((3 * 2 / 3 + 2 * 2 / 3 + 0) / 6),
            "action_accuracy": pytest.approx(3 / 6),
            "action_f1_without_listen": pytest.approx((2 * 2 / 3 + 0) / 3),
            "action_accuracy_without_listen": pytest.approx(1 / 3),
        }

    def test_where_there_is_nothing_but_waiting(self) -> None:
        assert tuple(action_metrics(np.zeros(3), np.ones(3), 0)) == self.NAMES[:2]

    def test_an_unknown_split_is_named(self) -> None:
        with pytest.raises(ConfigError, match=r"Unknown split 'valid'.*Valid choices: test"):
            make().evaluate(Oracle(5), "valid")

    def test_a_linear_model_learns(self, booking: DialogueTask) -> None:
        torch.manual_seed(0)
        model = LinearModel(booking.sizes)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        before = booking.evaluate(model, "test")["action_f1"]
        for epoch in range(4):
            for batch in booking.epoch_batches(epoch, Streams(0)):
                optimizer.zero_grad()
                booking.loss(model, batch).total.backward()
                optimizer.step()
        assert booking.evaluate(model, "test")["action_f1"] > max(0.6, before)


@pytest.mark.parametrize(
    "settings", [{"batch_size": (8,)}, {"batch_size": (0, 8)}, {"batch_epochs": 0}, {"max_history": 0}]
)
def test_settings_outside_their_range_are_named(settings) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        make(**settings)


def test_both_sides_need_stories() -> None:
    with pytest.raises(DataError, match="training stories and test stories"):
        make(corpus=DialogueCorpus(**{**vars(SMALL), "test_stories": ()}))


def test_checksums_and_a_corpus_that_is_made() -> None:
    assert make(corpus=lambda: SMALL).checksums() == {"small": "0" * 64}


def test_generated_dialogues_can_be_told_from_ten_turns_and_not_from_five() -> None:
    corpus = dialogues()
    for history, least, most in ((10, 1.0, 1.0), (5, 0.9, 0.995)):
        ceilings = DialogueTask(corpus=corpus, batch_epochs=1, max_history=history).ceilings
        assert least <= ceilings["test"] <= most


def test_ted(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real corpus has the sizes and ceilings that are known of it."""
    monkeypatch.setenv("SPARSE_BENCH_MIRROR", str(shared_data))
    monkeypatch.setenv("SPARSE_BENCH_DATA", str(tmp_path))
    corpus = ted()
    task = DialogueTask(corpus=corpus, batch_epochs=100)
    assert (len(task.train), len(task.test)) == (1968, 977)
    assert list(task.sizes.attributes) == ["intent", "previous_action", "entities", "slots"]
    assert task.sizes.actions == 51
    assert task.ceilings["test"] == pytest.approx(0.999, abs=5e-4)
    short = DialogueTask(corpus=corpus, batch_epochs=100, max_history=5)
    assert short.ceilings["test"] == pytest.approx(0.983, abs=5e-4)
    assert task.evaluate(Oracle(51), "test")["action_f1_without_listen"] == 1


def test_frequencies_are_the_turns_of_the_training_data_with_a_feature(booking: DialogueTask) -> None:
    turns = booking.train.batch(np.arange(len(booking.train))).turns
    for chosen, (name, attribute) in zip(turns.unbind(1), booking.sizes.attributes.items(), strict=True):
        known = chosen[chosen < len(attribute.values)]
        assert attribute.values[known].sum(0).tolist() == [*attribute.frequencies], name
        assert sum(attribute.frequencies) > 0


def test_validation_stories_are_evenly_spaced_and_the_test_stays() -> None:
    stories = tuple(Story(str(number), SEARCH[: 2 + 2 * (number % 2)]) for number in range(10))
    kept, held_out = spaced(stories, 0.3)
    assert [story.name for story in held_out] == ["3", "6", "9"]
    assert sorted([*kept, *held_out], key=stories.index) == list(stories)
    task = make(corpus=DialogueCorpus(**{**vars(SMALL), "stories": stories}), validation_fraction=0.3)
    assert (make().splits, task.splits) == (("test",), ("valid", "test"))
    assert task.inputs("test") == make().inputs("test")
    assert len(task.held_out["valid"]) == len(examples(held_out, SMALL.featurized_slots, 10))
    with pytest.raises(DataError, match="training stories and test stories"):
        make(validation_fraction=0.1)  # of three stories none
