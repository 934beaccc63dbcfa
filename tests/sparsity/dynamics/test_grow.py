"""Which places are taken: free ones, exactly as many as asked for, each once, and all alike."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_bench.sparsity.dynamics.grow import Room, highest_score, random_free, shared


def room(occupied: list[bool], score: list[float] | None = None, seed: int = 0) -> Room:
    mask = torch.tensor(occupied, dtype=torch.bool)
    scores = None if score is None else torch.tensor(score)
    return Room(mask, len(occupied) - int(mask.sum()), scores, torch.Generator().manual_seed(seed))


@given(data=st.data(), occupied=st.lists(st.booleans(), max_size=60), seed=st.integers(0, 1000))
def test_random_growth_takes_free_places_once(data: st.DataObject, occupied: list[bool], seed: int) -> None:
    count = data.draw(st.integers(0, occupied.count(False)))
    places = random_free(room(occupied, seed=seed), count)
    assert places.dtype == torch.int64
    assert len(set(places.tolist())) == len(places) == count
    assert not any(occupied[place] for place in places.tolist())


@pytest.mark.parametrize("count", [3, 9], ids=["by rejection", "by shuffling"])
def test_random_growth_prefers_no_place(count: int) -> None:
    occupied = [place % 4 == 0 for place in range(20)]
    hits = torch.zeros(20)
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor(occupied)
    for _ in range(3000):
        hits[random_free(Room(mask, 15, None, generator), count)] += 1
    expected = 3000 * count / 15
    free = hits[~mask]
    # 14 degrees of freedom: above 36.1 once in a thousand times
    assert float(((free - expected) ** 2).sum() / (expected * (1 - count / 15))) * 14 / 15 < 36.1
    assert hits[mask].eq(0).all()


def test_the_same_generator_gives_the_same_places() -> None:
    occupied = [False] * 100
    first, again, other = (random_free(room(occupied, seed=seed), 20) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("score", "count", "expected"),
    [
        ([9.0, 1.0, 3.0, 2.0, 0.5], 2, [2, 3]),  # place 0 is occupied
        ([9.0, 1.0, 1.0, 1.0, 0.5], 2, [1, 2]),  # equal scores: the first
        ([9.0, 0.0, 0.0, 0.0, 0.0], 3, [1, 2, 3]),
        ([9.0, 1.0, 3.0, 2.0, 0.5], 4, [1, 2, 3, 4]),
        ([9.0, 1.0, 3.0, 2.0, 0.5], 0, []),
    ],
)
def test_highest_score(score: list[float], count: int, expected: list[int]) -> None:
    occupied = [True, False, False, False, False]
    assert sorted(highest_score(room(occupied, score), count).tolist()) == expected


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot place 2 connections at 1 free places"):
        random_free(room([True, False]), 2)
    with pytest.raises(ValueError, match="cannot take 2 of 1 scores"):
        highest_score(room([True, False], [0.0, 1.0]), 2)
    with pytest.raises(ValueError, match="a score for each place, and none was given"):
        highest_score(room([False]), 1)


@pytest.mark.parametrize(
    ("importance", "total", "rooms", "expected"),
    [
        ([1.0, 3.0], 8, [100, 100], [2, 6]),
        ([1.0, 1.0, 2.0], 9, [100, 100, 100], [2, 2, 5]),  # of 2.25, 2.25 and 4.5
        ([1.0, 3.0, 0.0], 80, [100, 20, 5], [61, 19, 0]),  # 99 % of 20; the first takes what is left
        ([1.0, 9.0], 30, [10, 21], [9, 21]),  # 29 within 99 %, so layers may be full
        ([0.0, 0.0], 6, [100, 200], [2, 4]),
        ([5.0, 0.0], 120, [100, 200], [99, 21]),
        ([1.0], 0, [7], [0]),
        ([], 0, [], []),
    ],
)
def test_layers_share_the_growth(importance: list[float], total: int, rooms: list[int], expected: list[int]) -> None:
    assert shared(importance, total, rooms) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e3), st.integers(0, 60)), max_size=6), st.floats(0, 1))
def test_the_shares_sum_to_the_total_and_find_room(layers: list[tuple[float, int]], share: float) -> None:
    importance, rooms = [one for one, _ in layers], [room for _, room in layers]
    total = round(share * sum(rooms))
    counts = shared(importance, total, rooms)
    assert sum(counts) == total
    assert all(0 <= count <= room for count, room in zip(counts, rooms, strict=True))
    if total <= sum(int(0.99 * room) for room in rooms):
        assert all(count <= int(0.99 * room) for count, room in zip(counts, rooms, strict=True))
