"""Hand-computed means and intervals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_bench.evidence.statistics import (
    Interval,
    StatisticsError,
    mean_interval,
    smallest_density_within,
)


@pytest.mark.parametrize(
    ("values", "mean", "half_width"),
    [
        # 2, 4, 6: deviation 2; t(0.975, 2) = 4.302653; 4.302653 · 2 / √3
        ([2.0, 4.0, 6.0], 4.0, 4.968275),
        # 1, 3: deviation √2; t(0.975, 1) = 12.706205; 12.706205 · √2 / √2
        ([1.0, 3.0], 2.0, 12.706205),
        # 1 … 5: deviation √2.5; t(0.975, 4) = 2.776445; 2.776445 · √2.5 / √5
        ([1.0, 2.0, 3.0, 4.0, 5.0], 3.0, 1.963243),
        ([0.5, 0.5, 0.5], 0.5, 0.0),
    ],
)
def test_interval_by_hand(values: list[float], mean: float, half_width: float) -> None:
    interval = mean_interval(values)
    assert interval.mean == pytest.approx(mean)
    assert interval.half_width == pytest.approx(half_width, abs=1e-6)
    assert interval.n == len(values)
    assert (interval.low, interval.high) == (pytest.approx(mean - half_width), pytest.approx(mean + half_width))


def test_one_seed_has_no_interval() -> None:
    interval = mean_interval([0.7])
    assert interval == Interval(0.7, None, 1)
    assert interval.low == interval.high == 0.7


def test_no_seed_has_no_mean() -> None:
    with pytest.raises(StatisticsError, match="at least one value"):
        mean_interval([])


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8), st.floats(-1e3, 1e3))
def test_interval_moves_with_its_values(values: list[float], shift: float) -> None:
    first, second = mean_interval(values), mean_interval([value + shift for value in values])
    assert second.mean == pytest.approx(first.mean + shift, abs=1e-6)
    assert second.half_width == pytest.approx(first.half_width, abs=1e-6)


def test_a_confidence_of_99_percent_is_wider() -> None:
    # t(0.995, 2) = 9.924843
    assert mean_interval([2.0, 4.0, 6.0], 0.99).half_width == pytest.approx(9.924843 * 2 / math.sqrt(3), abs=1e-5)


def test_smallest_density_within_the_dense_interval() -> None:
    dense = [0.80, 0.82, 0.84]  # mean 0.82, half-width 4.302653 · 0.02 / √3 = 0.0497
    arms = {0.5: [0.81], 0.2: [0.78], 0.05: [0.76], 0.1: [0.772]}
    assert smallest_density_within(arms, dense) == 0.1
    assert smallest_density_within({0.05: [0.7]}, dense) is None


def test_smallest_density_of_a_metric_that_should_be_low() -> None:
    dense = [100.0, 102.0, 104.0]  # half-width 4.968275
    assert smallest_density_within({0.5: [90.0], 0.2: [106.9], 0.1: [107.0]}, dense, lower_is_better=True) == 0.2


def test_smallest_density_needs_an_interval() -> None:
    with pytest.raises(StatisticsError, match="2 seeds; its interval needs 3"):
        smallest_density_within({0.5: [0.8]}, [0.8, 0.9])


def test_an_arm_that_diverged_has_an_interval_without_end() -> None:
    assert mean_interval([2.9e294, 1.0, 1.0]).half_width == math.inf
