import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_bench.tasks.balancing import balanced_order, growing_batch_size


def test_by_hand():
    # Label 0: examples 0, 2, 3, 4, 6, 7 (share 0.6); label 1: 1, 8, 9 (0.3); label 2: 5 (0.1). Batches of 4 take
    # int(2.4) + 1 = 3, int(1.2) + 1 = 2 and int(0.4) + 1 = 1 of them. Nothing is shuffled.
    labels = np.array([0, 1, 0, 0, 0, 2, 0, 0, 1, 1])
    assert balanced_order(labels, 4, np.arange).tolist() == [
        *(0, 2, 3),  # round 1, label 0
        *(1, 8),  # label 1
        *(5,),  # label 2 finishes its cycle
        *(4, 6, 7),  # round 2, label 0 finishes its cycle
        *(9,),  # label 1 takes the one example left, and all labels have finished
    ]


def test_a_finished_label_is_skipped_every_other_visit():
    # Label 0 has 9 examples of 10 and takes int(0.9 · 2) + 1 = 2; label 1 has one and takes int(0.1 · 2) + 1 = 1.
    labels = np.array([0] * 9 + [1])
    order = balanced_order(labels, 2, np.arange).tolist()
    # Label 1 is visited in rounds 1 to 4 (round 5 ends with label 0): taken, skipped, taken, skipped.
    assert order == [0, 1, 9, 2, 3, 4, 5, 9, 6, 7, 8]


def test_labels_are_visited_in_a_new_order_each_round():
    permutations = iter([[2, 1, 0, 3], [1, 0], [0, 1], [1, 0]])
    order = balanced_order(np.array([0, 0, 0, 1]), 1, lambda n: np.array(next(permutations)))
    # Both labels take one, label 0 in the order 2, 1, 0. Label 1 is skipped in round 2.
    assert order.tolist() == [3, 2, 1, 3, 0]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 40), st.integers(0, 3))
def test_every_example_occurs_and_the_last_cycle_has_just_ended(labels, batch_size, seed):
    labels = np.array(labels)
    order = balanced_order(labels, batch_size, np.random.default_rng(seed).permutation)
    times = np.bincount(order, minlength=len(labels))
    assert times.min() >= 1
    # Within a label, no example is two cycles ahead of another.
    for label in np.unique(labels):
        assert np.ptp(times[labels == label]) <= 1
    # The label that ended the epoch has made exactly one cycle.
    assert (times[labels == labels[order[-1]]] == 1).all()


def test_rare_labels_are_repeated():
    labels = np.array([0] * 1000 + [1] * 10)
    order = balanced_order(labels, 64, np.random.default_rng(0).permutation)
    assert (labels[order] == 0).sum() == 1000
    # 16 rounds of 64, of which the rare label misses every second visit after its first cycle of 10.
    assert 10 < (labels[order] == 1).sum() < 16


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, 64), (1, 64), (2, 65), (100, 160), (198, 255), (199, 256), (200, 256), (999, 256)]
)
def test_batch_size_grows_linearly(epoch, expected):
    # 64 + 192 · epoch / 199, cut down to a whole number.
    assert growing_batch_size(epoch, 64, 256, 200) == expected


def test_batch_size_of_a_single_epoch_is_the_first():
    assert growing_batch_size(0, 64, 256, 1) == 64


def test_batch_size_may_shrink():
    assert [growing_batch_size(epoch, 8, 4, 3) for epoch in range(4)] == [8, 6, 4, 4]
