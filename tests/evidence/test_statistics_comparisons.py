"""Hand-computed p-values, Holm's correction, and what they have to do with intervals."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_bench.evidence.statistics import StatisticsError, holm, mean_interval, p_value

VALUES = st.lists(st.integers(-1000, 1000).map(lambda value: value / 8), min_size=2, max_size=6)


def test_p_by_hand() -> None:
    # 1, 2, 3: mean 2, standard error 1/√3; against 0: t = 2√3 = 3.4641 on 2 degrees of freedom.
    # For 2 degrees: P(T > t) = ½ − t / (2 √(2 + t²)) = ½ − 3.4641 / (2 √14)
    assert p_value([1.0, 2.0, 3.0], 0.0, "greater") == pytest.approx(0.5 - 12**0.5 / (2 * 14**0.5))
    assert p_value([1.0, 2.0, 3.0]) == pytest.approx(1 - 12**0.5 / 14**0.5)
    assert p_value([-1.0, -2.0, -3.0]) == pytest.approx(1 - 12**0.5 / 14**0.5)
    assert p_value([1.0, 2.0, 3.0], 2.0, "greater") == pytest.approx(0.5)


def test_one_value_says_nothing_and_none_is_an_error() -> None:
    assert p_value([1.0], 0.0, "greater") is None
    assert p_value([1.0]) is None
    with pytest.raises(StatisticsError):
        p_value([], 0.0, "greater")


def test_equal_values_have_no_doubt() -> None:
    assert p_value([1.0, 1.0, 1.0], 0.5, "greater") == 0.0
    assert p_value([1.0, 1.0, 1.0], 1.0, "greater") == p_value([1.0, 1.0, 1.0], 1.5, "greater") == 1.0
    assert p_value([1.0, 1.0], 0.5, "greater") is None
    assert p_value([1.0, 1.0]) is None
    assert p_value([1.0, 1.0, 1.0]) == p_value([-1.0, -1.0, -1.0]) == 0.0
    assert p_value([0.0, 0.0, 0.0]) == p_value([1.0, 1.0, 1.0], 1.0) == 1.0


@given(VALUES, st.integers(-1000, 1000).map(lambda value: value / 8))
def test_p_is_at_most_a_fortieth_where_the_interval_lies_above(values: list[float], bound: float) -> None:
    p, low = p_value(values, bound, "greater"), mean_interval(values).low
    if p is None:
        assert values == [values[0]] * 2
    elif abs(low - bound) > 1e-6:
        assert (p <= 0.025) is (low > bound)


def test_holm_by_hand() -> None:
    # Sorted .01 .02 .03 .5 → × 4, 3, 2, 1 = .04 .06 .06 .5; the third may not fall below the second.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_raw_values_and_bonferroni_s(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(
        raw <= after <= min(1.0, raw * len(p_values)) + 1e-12 for raw, after in zip(p_values, adjusted, strict=True)
    )
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert all(adjusted[a] <= adjusted[b] for a, b in pairwise(order))


def test_values_too_large_for_their_squares_decide_nothing() -> None:
    assert (p_value([2.9e294, 1.0, 2.0], 0.0, "greater") or 0.0) >= 0.5


def test_below_is_above_of_what_is_turned_round() -> None:
    # −1, −2, −3 below 0 is 1, 2, 3 above it; and not below −3.
    assert p_value([-1.0, -2.0, -3.0], 0.0, "less") == pytest.approx(0.5 - 12**0.5 / (2 * 14**0.5))
    assert p_value([-1.0, -2.0, -3.0], -3.0, "less") == pytest.approx(0.5 + 3**0.5 / (2 * 5**0.5))
