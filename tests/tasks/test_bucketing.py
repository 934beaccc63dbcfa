"""Which sentence pairs share a batch."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sparse_bench.tasks.bucketing import bucketed_batches, random_batches
from tests.tasks.padding import padding_share


def lengths(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated lengths of both sides."""
    draw = np.random.default_rng(seed)
    source = draw.integers(3, 40, count)
    return source, np.maximum(2, source + draw.integers(-4, 5, count))


@given(st.integers(1, 300), st.integers(1, 40), st.none() | st.integers(1, 5), st.integers(0, 9))
def test_every_pair_is_in_one_batch(count, batch_size, pool, seed):
    source, target = lengths(count)
    for batches in (
        bucketed_batches(source, target, batch_size, np.random.default_rng(seed), pool),
        random_batches(count, batch_size, np.random.default_rng(seed)),
    ):
        assert np.sort(np.concatenate(batches)).tolist() == list(range(count))
        sizes = [len(batch) for batch in batches]
        assert len(sizes) == -(-count // batch_size)
        assert sum(size != batch_size for size in sizes) == (count % batch_size > 0)


def test_lengths_change_by_one_side_at_a_time():
    source, target = np.array([5, 5, 6, 6, 7, 7, 4, 4]), np.array([4, 5, 4, 5, 4, 5, 5, 4])
    batches = bucketed_batches(source, target, 2, np.random.default_rng(0))
    # target 4 upwards in source, then target 5 downwards
    pairs = {tuple(sorted((int(source[i]), int(target[i])) for i in batch)) for batch in batches}
    assert pairs == {((4, 4), (5, 4)), ((6, 4), (7, 4)), ((6, 5), (7, 5)), ((4, 5), (5, 5))}


def test_batches_are_random_and_a_function_of_the_generator():
    source, target = lengths(500)

    def order(seed: int, pool: int | None = None) -> list[list[int]]:
        return [b.tolist() for b in bucketed_batches(source, target, 16, np.random.default_rng(seed), pool)]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert {frozenset(b) for b in order(1)} != {frozenset(b) for b in order(2)}
    means = [source[batch].mean() for batch in order(1)]
    assert means != sorted(means)


def test_a_smaller_pool_means_more_padding_and_no_bucketing_most():
    source, target = lengths(6400)
    shares = []
    for batches in (
        bucketed_batches(source, target, 64, np.random.default_rng(0)),
        bucketed_batches(source, target, 64, np.random.default_rng(0), pool=20),
        bucketed_batches(source, target, 64, np.random.default_rng(0), pool=2),
        random_batches(6400, 64, np.random.default_rng(0)),
    ):
        both = [np.concatenate([batch, batch + 6400]) for batch in batches]
        assert len(both) == 100
        shares.append(padding_share(source, batches) + padding_share(target, batches))
    assert shares == sorted(shares)
    assert shares[0] < 0.1 < 0.7 < shares[-1]


def test_the_small_batch_is_not_always_the_longest():
    source, target = lengths(130)
    small = [
        source[min(bucketed_batches(source, target, 64, np.random.default_rng(seed)), key=len)].mean()
        for seed in range(20)
    ]
    assert min(small) < 10
    assert max(small) > 30
