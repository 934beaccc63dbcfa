import math
from typing import Any

import pytest

from sparse_bench.errors import ConfigError
from sparse_bench.training.stopping import ConsecutiveRises, NonMonotone, Reached, no_longer_falling

NAN = math.nan


@pytest.mark.parametrize(
    ("history", "fires"),
    [
        ([5.0], False),
        ([1, 2, 3, 4, 5, 6], False),  # five earlier values are not more than five
        ([1, 2, 3, 4, 5, 6, 7], True),  # 7 > min([1])
        ([7, 6, 5, 4, 3, 2, 7], False),  # 7 is not above min([7])
        ([7, 6, 5, 4, 3, 2, 7.1], True),
        ([9, 4, 1, 1, 1, 1, 1, 4], False),  # the last five earlier ones are left out: 4 is not above min([9, 4])
        ([9, 4, 1, 1, 1, 1, 1, 4.5], True),
        # What is not finite is above everything that is, and hides nothing that stands behind it.
        ([NAN, 2, 3, 4, 5, 6, 7, 8], True),
        ([2, NAN, 3, 4, 5, 6, 7, 8], True),
        ([9, 8, 7, 6, 5, 4, NAN], True),
        ([9, 8, 7, 6, 5, 4, -math.inf], True),
        ([NAN, NAN, NAN, NAN, NAN, NAN, NAN], False),
        ([NAN, 8, 7, 6, 5, 4, 3], False),
    ],
)
def test_no_longer_falling_by_hand(history: list[float], fires: bool) -> None:
    assert no_longer_falling(history, 5) is fires


def test_no_longer_falling_is_the_authors_rule() -> None:
    """As their loop has it: compare with the values before, then append."""
    values = [9.0, 8.5, 8.7, 8.2, 8.6, 8.4, 8.3, 8.55, 8.9, 8.1, 8.65, 8.2, 8.3]
    earlier: list[float] = []
    for value in values:
        expected = len(earlier) > 5 and value > min(earlier[:-5])
        earlier.append(value)
        assert no_longer_falling(earlier, 5) == expected


def test_consecutive_rises() -> None:
    rule = ConsecutiveRises(window=3)
    assert not rule.stops([1, 2, 3])
    assert rule.stops([1, 2, 3, 4])
    assert rule.stops([9, 1, 2, 3, 4])
    assert not rule.stops([1, 2, 3, 3])
    assert not rule.stops([5, 1, 2, 1.5, 2])
    assert rule.stops([1, 2, 3, NAN])
    assert not rule.stops([1, 2, NAN, 3])
    assert not rule.stops([1, 2, NAN, NAN])
    assert ConsecutiveRises(window=1, metric="valid/accuracy", mode="max").stops([0.5, NAN])
    assert not ConsecutiveRises().stops(list(range(20)))
    assert ConsecutiveRises().stops(list(range(21)))


def test_non_monotone_with_more_history() -> None:
    rising = [float(n) for n in range(12)]
    assert NonMonotone().stops(rising[:7])
    assert not NonMonotone().stops(rising[:6])
    assert not NonMonotone(least=10).stops(rising[:11])
    assert NonMonotone(least=10).stops(rising[:12])
    assert not NonMonotone(least=1).stops(rising[:5])  # nothing is left beside the window


@pytest.mark.parametrize("rule", [ConsecutiveRises, NonMonotone])
def test_of_a_named_metric_it_is_said_which_values_are_better(rule: Any) -> None:
    rising = [float(n) for n in range(30)]
    falling = rising[::-1]
    assert rule(metric="valid/accuracy", mode="max").stops(falling)
    assert not rule(metric="valid/accuracy", mode="max").stops(rising)
    assert rule(metric="valid/loss", mode="min").stops(rising)
    assert not rule(metric="valid/loss", mode="min").stops(falling)
    for settings in ({"metric": "valid/accuracy"}, {"mode": "max"}):
        with pytest.raises(ConfigError, match="go together"):
            rule(**settings)
    with pytest.raises(ConfigError, match=r"Unknown choice 'most'\. Valid choices: max, min"):
        rule(metric="valid/accuracy", mode="most")


def test_reached() -> None:
    rule = Reached(metric="train/accuracy", target=1.0, within=1e-4)
    assert not rule.stops([0.5, 0.9998])
    assert rule.stops([0.99991])
    assert rule.stops([1.0])
    assert not Reached(metric="train/accuracy", target=1.0, within=0.25).stops([0.75])
    assert not rule.stops([NAN])
    assert not rule.stops([math.inf])


def test_settings_are_checked() -> None:
    for make in (
        lambda: ConsecutiveRises(window=0),
        lambda: NonMonotone(window=0),
        lambda: Reached(),
        lambda: Reached(metric="train/accuracy", within=0.0),
    ):
        with pytest.raises(ConfigError, match=r"'w\w+' = .* does not fit: it has to be|trainer\.stop waits"):
            make()
