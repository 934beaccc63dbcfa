"""SRigL's rule on a layer of four units with six inputs, by hand, and what holds for every layer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_bench.sparsity.dynamics.fan_in import salient_fan_in

SIZE = np.array(
    [
        [0.9, 0.8, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.7, 0.1, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.6, 0.5, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.2, 0.4],
    ]
)
#: The two largest outside of the weights that stay are 0.95 and 0.85, of the units 1 and 0.
GRADIENT = np.array(
    [
        [0.99, 0.01, 0.02, 0.03, 0.04, 0.85],
        [0.05, 0.01, 0.30, 0.95, 0.06, 0.07],
        [0.08, 0.09, 0.10, 0.99, 0.01, 0.11],
        [0.12, 0.13, 0.14, 0.15, 0.45, 0.16],
    ]
)


def rewired(drop: int, gamma: float, ablates: bool, total: int = 8) -> tuple[list[list[int]], list[list[int]]]:
    kept, new = salient_fan_in(SIZE, SIZE > 0, GRADIENT, drop, total, gamma, ablates)
    return [np.flatnonzero(row).tolist() for row in kept], [np.flatnonzero(row).tolist() for row in new]


def test_a_unit_with_one_salient_weight_of_two_is_ablated() -> None:
    """Dropped are 0.1 and 0.2. Unit 1 has 0.7 and the gradient 0.95; unit 3 has 0.4 alone, below 0.6 · 2."""
    kept, new = rewired(drop=2, gamma=0.6, ablates=True)
    assert kept == [[0, 1], [1], [3, 4], []]
    assert new == [[0, 1], [1, 3], [3, 4], []]  # fan-in ⌊8 / 3⌋


def test_with_a_lower_gamma_and_in_the_last_layer_all_units_live() -> None:
    """Unit 3 then grows at its largest gradient, which is the place that it has just lost."""
    for found in (rewired(2, 0.5, ablates=True), rewired(2, 0.6, ablates=False)):
        assert found == ([[0, 1], [1], [3, 4], [5]], [[0, 1], [1, 3], [3, 4], [4, 5]])


def test_units_have_at_least_one_salient_weight() -> None:
    kept, new = rewired(drop=6, gamma=0.0, ablates=True)
    assert kept == [[0, 1], [], [], []]
    # The six largest gradients elsewhere, from 0.99 to 0.16, are in units 2, 1, 0, 3, 1 and 3, so that all live.
    assert [len(row) for row in new] == [2, 2, 2, 2]
    assert new == [[0, 1], [2, 3], [3, 5], [4, 5]]


def test_so_many_units_live_that_the_weights_find_room() -> None:
    """γ = 1 leaves units 0 and 1, with six places for eight weights: unit 2, the next in salience, lives on."""
    size = np.array([[0.9, 0.8, 0.0], [0.7, 0.6, 0.0], [0.1, 0.0, 0.2], [0.0, 0.1, 0.2]])
    gradient = np.array([[0.0, 0.0, 0.9], [0.0, 0.0, 0.8], [0.7, 0.2, 0.1], [0.6, 0.1, 0.1]])
    kept, new = salient_fan_in(size, size > 0, gradient, drop=4, total=8, gamma=1.0, ablates=True)
    assert kept.tolist() == [[True, True, False], [True, True, False], [False] * 3, [False] * 3]
    assert new.tolist() == [[True, True, False], [True, True, False], [True, True, False], [False] * 3]


@settings(max_examples=60, deadline=None)
@given(
    units=st.integers(1, 8),
    inputs=st.integers(1, 9),
    share=st.floats(0.05, 1),
    fraction=st.floats(0, 1),
    gamma=st.floats(0, 1),
    ablates=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_all_live_units_have_the_same_fan_in(
    units: int, inputs: int, share: float, fraction: float, gamma: float, ablates: bool, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    fan_in = max(1, round(share * inputs))
    mask = np.zeros((units, inputs), dtype=bool)
    for row in mask:
        row[draw.permutation(inputs)[:fan_in]] = True
    size, gradient = np.abs(draw.normal(size=(2, units, inputs)))
    total = int(mask.sum())
    kept, new = salient_fan_in(size * mask, mask, gradient, round(fraction * total), total, gamma, ablates)
    live = new.any(1)
    assert set(new.sum(1)[live].tolist()) == {total // int(live.sum())}
    assert total - int(live.sum()) < int(new.sum()) <= total
    assert ablates or live.all()
    assert not (kept & ~mask).any()
    assert not (kept & ~new).any()
    # A kept weight is larger than every weight that its unit had to lose to the fan-in or to the drop.
    lost = np.where(mask & ~kept, size, 0).max(1)
    assert all(size[row][kept[row]].min() >= lost[row] for row in np.flatnonzero(kept.any(1)))


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        salient_fan_in(SIZE, SIZE > 0, np.full((4, 6), np.nan), 2, 8, 0.3, True)
