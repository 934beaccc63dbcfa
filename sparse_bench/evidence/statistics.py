"""Means, intervals and tests over few seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from sparse_bench.errors import SparseBenchError

CONFIDENCE = 0.95
#: From so many seeds on an interval is shown and used: that of two is twelve times their distance wide.
ENOUGH = 3


class StatisticsError(SparseBenchError):
    """The runs at hand do not allow the quantity that was asked for."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its confidence interval.

    Attributes:
        mean: the sample mean.
        half_width: half the width of the t-interval; None where a single seed allows none.
        n: number of seeds.
    """

    mean: float
    half_width: float | None
    n: int

    @property
    def low(self) -> float:
        """Lower end; the mean itself without an interval."""
        return self.mean - (self.half_width or 0.0)

    @property
    def high(self) -> float:
        """Upper end; the mean itself without an interval."""
        return self.mean + (self.half_width or 0.0)


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Mean and two-sided t-interval (n − 1 degrees of freedom) of independent values, one a seed.

    Raises:
        StatisticsError: there are no values.
    """
    n = len(values)
    if n == 0:
        raise StatisticsError("A mean needs at least one value.")
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, None, 1)
    try:
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    except OverflowError:  # of an arm that diverged
        deviation = math.inf
    quantile = float(stats.t.ppf(0.5 + confidence / 2, n - 1))
    return Interval(mean, quantile * deviation / math.sqrt(n), n)


#: So many equal values are no coincidence.
_TELLING = 3

Alternative = Literal["greater", "less", "two-sided"]


def p_value(values: Sequence[float], bound: float = 0.0, alternative: Alternative = "two-sided") -> float | None:
    """p-value of the one-sample t-test that the mean lies above (``greater``) or below (``less``) ``bound``, or apart.

    One-sided, it is at most 0.025 exactly where the 95 % interval of :func:`mean_interval` lies beyond the bound.

    Args:
        values: independent values (or paired differences), one a seed.
        bound: what the mean is compared with.
        alternative: the side.

    Returns:
        None for a single value, or two equal ones, which say nothing of their spread.

    Raises:
        StatisticsError: there are no values.
    """
    interval = mean_interval(values)
    if interval.half_width is None or (interval.half_width == 0.0 and interval.n < _TELLING):
        return None
    if interval.half_width == 0.0:  # equal values: no spread to compare the distance with
        distance = interval.mean - bound
        apart = {"greater": distance > 0, "less": distance < 0, "two-sided": distance != 0}
        return 0.0 if apart[alternative] else 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        p = float(stats.ttest_1samp(values, bound, alternative=alternative).pvalue)
    return p if math.isfinite(p) else 1.0  # values too large for their squares decide nothing


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction for many comparisons (Scandinavian Journal of Statistics 6, 1979).

    The chance that any true hypothesis is rejected stays at the level that the adjusted values are compared with,
    however the comparisons depend on each other; it rejects whatever Bonferroni's correction rejects, and more.

    Args:
        p_values: one a comparison.

    Returns:
        Adjusted values in the same order: the i-th smallest times (m − i), i from 0, never below a smaller one's and
        at most 1.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def smallest_density_within(
    arms: Mapping[float, Sequence[float]], dense: Sequence[float], *, lower_is_better: bool = False
) -> float | None:
    """The smallest density whose mean is no worse than the dense arm's by more than the dense arm's half-width.

    Densities in between may lie outside; None if no density qualifies.

    Args:
        arms: density → values, one a seed.
        dense: the dense arm's values, one a seed.
        lower_is_better: the direction of the metric.

    Raises:
        StatisticsError: the dense arm has fewer than three seeds: the interval of two is no measure.
    """
    reference = mean_interval(dense)
    if reference.half_width is None or reference.n < ENOUGH:
        raise StatisticsError(f"The dense arm has {reference.n} seeds; its interval needs {ENOUGH}.")
    sign = -1.0 if lower_is_better else 1.0
    worst = sign * reference.mean - reference.half_width
    within = [density for density, values in arms.items() if sign * mean_interval(values).mean >= worst]
    return min(within, default=None)
