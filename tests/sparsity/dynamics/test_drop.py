"""Which weights go: tables computed by hand, and exact counts whatever the weights."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparse_bench.sparsity.dynamics.drop import DROPS, Drop, lowest, magnitude, on_host, signed_magnitude, whole

WEIGHTS = st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0]), max_size=30)
FRACTIONS = st.floats(0.0, 1.0)


def gone(weights: list[float], removed: np.ndarray) -> list[int]:
    assert removed.dtype == np.bool_
    assert removed.shape == (len(weights),)
    return np.flatnonzero(removed).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_every_type_of_number_comes_to_the_host(dtype: torch.dtype) -> None:
    values = torch.tensor([3.0, 1.0, 1.0 + 2**-40], dtype=dtype, requires_grad=True)
    found = on_host(values)
    assert found.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    assert found.tolist() == values.tolist()


@pytest.mark.parametrize(
    ("fraction", "count", "expected"),
    [(0.3, 10, 3), (0.3, 5, 2), (0.3, 1, 0), (0.5, 5, 2), (0.5, 7, 4), (0.29, 100, 29), (0.0, 9, 0), (1.0, 9, 9)],
)
def test_fractions_are_rounded_to_the_nearest_number(fraction: float, count: int, expected: int) -> None:
    assert whole(fraction, count) == expected


@pytest.mark.parametrize(
    ("weights", "fraction", "expected"),
    [
        # 0.5 of four positive ones: 0.1, 0.2; 0.5 of two negative ones: -0.3
        ([0.4, -0.3, 0.1, 0.2, -5.0, 0.3], 0.5, [1, 2, 3]),
        # magnitudes would take 0.1, 0.2, 0.3; signs take the nearest of each side
        ([0.1, 0.2, 0.3, -7.0, -8.0, -9.0], 0.34, [0, 3]),
        # all positive: nothing negative to take
        ([1.0, 2.0, 3.0, 4.0], 0.5, [0, 1]),
        ([-1.0, -2.0, -3.0, -4.0], 0.25, [0]),
        # three equal ones, two go: the first two
        ([5.0, 1.0, 1.0, 1.0], 0.5, [1, 2]),
        # zeros go, on top of the fractions of the others
        ([0.0, 2.0, 1.0, 0.0, -1.0, -2.0], 0.5, [0, 2, 3, 4]),
        ([0.0, 0.0], 0.0, [0, 1]),
        # 0.3 of three is 0.9, so one; of one 0.3, so none
        ([3.0, 2.0, 1.0, -1.0], 0.3, [2]),
        ([1.0, -1.0], 1.0, [0, 1]),
        ([], 0.3, []),
    ],
)
def test_signed_magnitude(weights: list[float], fraction: float, expected: list[int]) -> None:
    assert gone(weights, signed_magnitude(np.array(weights), fraction)) == expected


@pytest.mark.parametrize(
    ("weights", "fraction", "expected"),
    [
        ([0.4, -0.3, 0.1, 0.2, -5.0, 0.3], 0.5, [1, 2, 3]),
        ([0.1, 0.2, 0.3, -7.0, -8.0, -9.0], 0.34, [0, 1]),
        ([1.0, -1.0, 1.0, -1.0], 0.5, [0, 1]),
        ([0.0, 2.0, 1.0, 0.0], 0.25, [0]),
        ([], 1.0, []),
    ],
)
def test_magnitude(weights: list[float], fraction: float, expected: list[int]) -> None:
    assert gone(weights, magnitude(np.array(weights), fraction)) == expected


@given(weights=WEIGHTS, fraction=FRACTIONS)
def test_signed_magnitude_takes_exact_numbers_of_each_sign(weights: list[float], fraction: float) -> None:
    values = np.array(weights)
    removed = signed_magnitude(values, fraction)
    for side in (values > 0, values < 0):
        assert int(removed[side].sum()) == round(fraction * int(side.sum()))
        kept, taken = np.abs(values[side & ~removed]), np.abs(values[side & removed])
        assert not kept.size or not taken.size or taken.max() <= kept.min()
    assert removed[values == 0].all()


@given(weights=WEIGHTS, fraction=FRACTIONS)
def test_magnitude_takes_an_exact_number(weights: list[float], fraction: float) -> None:
    values = np.array(weights)
    removed = magnitude(values, fraction)
    assert int(removed.sum()) == round(fraction * len(weights))
    kept, taken = np.abs(values[~removed]), np.abs(values[removed])
    assert not kept.size or not taken.size or taken.max() <= kept.min()


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, [3]), (2, [1, 3]), (3, [1, 3, 4]), (4, [0, 1, 3, 4])])
def test_lowest_of_the_positive_ones(count: int, expected: list[int]) -> None:
    scores = np.array([4.0, 2.0, -1.0, 1.0, 2.0, 0.0])
    assert np.flatnonzero(lowest(scores, count, positive=4)).tolist() == expected


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot take 3 of 2 scores"):
        lowest(np.zeros(2), 3)
    with pytest.raises(ValueError, match="cannot take 2 of 1 scores"):
        lowest(np.array([-1.0, 0.0, 1.0]), 2, positive=1)
    assert set(DROPS) == {"signed_magnitude", "magnitude"}


@pytest.mark.parametrize("drop", DROPS.values())
def test_what_is_no_number_is_not_ranked(drop: Drop) -> None:
    with pytest.raises(ValueError, match="cannot rank 5 scores, of which 2 are NaN"):
        drop(np.array([np.nan, 3.0, 1.0, np.nan, -2.0]), 0.5)
