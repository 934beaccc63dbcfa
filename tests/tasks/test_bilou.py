import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_bench.data.messages import Entity
from sparse_bench.data.tokenizer import tokenize
from sparse_bench.tasks.bilou import encode, repair, spans, tag_count, types_of

TAGS = ["O", "B-a", "I-a", "L-a", "U-a", "B-b", "I-b", "L-b", "U-b"]
TYPES = {"a": 0, "b": 1}


def ids(text):
    return np.array([TAGS.index(tag) for tag in text.split()], dtype=np.int64)


def names(tags):
    return " ".join(TAGS[tag] for tag in tags)


def entity(text, surface, kind):
    start = text.index(surface)
    return Entity(start, start + len(surface), kind, surface)


def test_count():
    assert tag_count(0) == 1
    assert tag_count(2) == len(TAGS)


def test_types():
    assert types_of(ids("O B-a I-a L-a U-a B-b I-b L-b U-b")).tolist() == [0, 1, 1, 1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("text", "entities", "expected"),
    [
        ("go to Rome now", [("Rome", "a")], "O O U-a O"),
        ("in New York today", [("New York", "b")], "O B-b L-b O"),
        ("The Hague by Sea?", [("The Hague by Sea", "a")], "B-a I-a I-a L-a"),
        ("from Rome to Bonn", [("Rome", "a"), ("Bonn", "b")], "O U-a O U-b"),
        ("a Romeward trip", [("Rome", "a")], "O O O"),  # ends inside a token
        ("a preRome trip", [("Rome", "a")], "O O O"),  # starts inside a token
        ("what? now", [("what?", "a")], "O O"),  # ends behind a sign that is no token
        ("nothing", [], "O"),
        ("क्या दिल्ली", [("दिल्ली", "a")], "O U-a"),  # vowel signs and viramas belong to their word
        ("from New York", [("New York", "a"), ("York", "b")], "O B-a L-a"),  # the first of two that overlap
    ],
)
def test_encode(text, entities, expected):
    found = [entity(text, surface, kind) for surface, kind in entities]
    tags, left_out = encode(tokenize(text).tokens, found, TYPES)
    assert names(tags) == expected
    in_tags = sum(tag[0] in "BU" for tag in expected.split())
    assert len(left_out) == len(found) - in_tags
    assert left_out == found[in_tags:]


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        ("B-a I-a L-a", "B-a I-a L-a"),
        ("B-a I-b L-a", "B-a I-a L-a"),
        ("B-a L-b", "B-a L-a"),
        ("B-a I-b L-b", "B-a I-a L-a"),
        ("B-a I-a O", "B-a L-a O"),
        ("B-a O", "U-a O"),
        ("O B-b", "O U-b"),
        ("B-a B-a L-a", "U-a B-a L-a"),
        ("B-a U-b", "U-a U-b"),
        ("B-a I-a I-a", "B-a I-a L-a"),
        ("B-a L-a L-a", "B-a L-a L-a"),
        ("O I-a L-a O", "O I-a L-a O"),
        ("U-a I-b O", "U-a I-b O"),
    ],
)
def test_repair(predicted, expected):
    tags = ids(predicted)
    assert names(repair(tags, np.array([len(tags)]))) == expected
    assert names(tags) == predicted


def test_repair_does_not_cross_messages():
    tags = ids("O B-a I-a L-a")
    assert names(repair(tags, np.array([2, 2]))) == "O U-a I-a L-a"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-a I-a L-a", {(0, 3, 0)}),
        ("U-a U-a", {(0, 1, 0), (1, 2, 0)}),
        ("O U-b O B-a L-a", {(1, 2, 1), (3, 5, 0)}),
        ("B-a L-a B-a L-a", {(0, 2, 0), (2, 4, 0)}),
        ("O I-a L-a O", {(1, 3, 0)}),
        ("I-a I-b", {(0, 1, 0), (1, 2, 1)}),
        ("O O", set()),
    ],
)
def test_spans(tags, expected):
    tags = ids(tags)
    assert spans(tags, np.array([len(tags)])) == expected


def test_spans_do_not_cross_messages():
    assert spans(ids("B-a L-a I-a"), np.array([2, 1])) == {(0, 2, 0), (2, 3, 0)}


@given(st.lists(st.lists(st.integers(0, len(TAGS) - 1), min_size=1, max_size=6), min_size=1, max_size=4))
def test_repaired_tags_are_consistent(messages):
    lengths = np.array([len(message) for message in messages])
    tags = np.concatenate([np.array(message) for message in messages])
    repaired = repair(tags, lengths)
    assert (repair(repaired, lengths) == repaired).all()
    assert ((repaired == 0) == (tags == 0)).all()
    # Every tagged token is in exactly one span, and every span is in one message and has one type.
    message_of = np.repeat(np.arange(len(messages)), lengths)
    seen = np.zeros(len(tags), dtype=int)
    for start, end, kind in spans(repaired, lengths):
        seen[start:end] += 1
        assert set(types_of(repaired[start:end])) == {kind + 1}
        assert len(set(message_of[start:end])) == 1
    assert (seen == (repaired > 0)).all()


@given(st.data())
def test_encoded_entities_are_found_again(data):
    lengths = np.array(data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=3)))
    tags, expected = [], set()
    for length in lengths:
        text = " ".join("w" * length)
        at = 0
        entities = []
        while at < length:
            width = data.draw(st.integers(1, 3))
            kind = data.draw(st.sampled_from([None, "a", "b"]))
            if kind and at + width <= length:
                entities.append(Entity(2 * at, 2 * (at + width) - 1, kind, ""))
                expected.add((sum(map(len, tags)) + at, sum(map(len, tags)) + at + width, TYPES[kind]))
            at += width
        found, left_out = encode(tokenize(text).tokens, entities, TYPES)
        assert not left_out
        tags.append(found)
    tags = np.concatenate(tags)
    assert spans(tags, lengths) == expected
    assert (repair(tags, lengths) == tags).all()
