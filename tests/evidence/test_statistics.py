"""Hand-computed means, intervals and areas."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_bench.report.statistics import (
    Interval,
    StatisticsError,
    log_average,
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
    with pytest.raises(StatisticsError, match="at least two seeds"):
        smallest_density_within({0.5: [0.8]}, [0.8])


def test_log_average_by_hand() -> None:
    # One decade from 0 to 1 (area ½), two decades at 1 (area 2): 2.5 over three decades.
    assert log_average([1e1, 1e2, 1e4], [0.0, 1.0, 1.0]) == pytest.approx(2.5 / 3)
    # In any order of points; over the middle: half a decade from ½ to 1 (⅜) and half a decade at 1 (½).
    bounds = (10**1.5, 10**2.5)
    assert log_average([1e4, 1e1, 1e2], [1.0, 0.0, 1.0], bounds) == pytest.approx(0.375 + 0.5)


@given(st.floats(-5, 5), st.floats(0.1, 10))
def test_log_average_of_a_constant(value: float, scale: float) -> None:
    weights = [scale * weight for weight in (3.0, 40.0, 900.0)]
    assert log_average(weights, [value] * 3) == pytest.approx(value)


@pytest.mark.parametrize(
    ("weights", "bounds", "message"),
    [
        ([1.0], None, "two points"),
        ([1.0, 1.0], None, "distinct"),
        ([0.0, 1.0], None, "positive"),
        ([1.0, 10.0], (0.5, 5.0), "not inside"),
        ([1.0, 10.0], (5.0, 5.0), "empty"),
    ],
)
def test_log_average_refuses(weights: list[float], bounds: tuple[float, float] | None, message: str) -> None:
    with pytest.raises(StatisticsError, match=message):
        log_average(weights, [1.0] * len(weights), bounds)
