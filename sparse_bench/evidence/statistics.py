"""Means, confidence intervals and tests for few seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from sparse_bench.errors import SparseBenchError

CONFIDENCE = 0.95
#: Fewest seeds for which an interval is shown and used. The interval of two seeds is twelve times their distance wide.
ENOUGH = 3


class StatisticsError(SparseBenchError):
    """Too few values for the requested quantity."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its confidence interval.

    Attributes:
        mean: the sample mean.
        half_width: half the width of the t-interval; None for a single seed.
        n: number of seeds.
    """

    mean: float
    half_width: float | None
    n: int

    @classmethod
    def exact(cls, value: float) -> "Interval":
        """A number without error, such as a count or a timing."""
        return cls(value, 0.0, 1)

    @property
    def low(self) -> float:
        """Lower end; the mean for a single seed."""
        return self.mean - (self.half_width or 0.0)

    @property
    def high(self) -> float:
        """Upper end; the mean for a single seed."""
        return self.mean + (self.half_width or 0.0)


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Mean and two-sided t-interval (n − 1 degrees of freedom) of independent values, one a seed.

    Raises:
        StatisticsError: ``values`` is empty.
    """
    n = len(values)
    if n == 0:
        raise StatisticsError("A mean needs at least one value.")
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, None, 1)
    try:
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    except OverflowError:  # the arm diverged
        deviation = math.inf
    quantile = float(stats.t.ppf(0.5 + confidence / 2, n - 1))
    return Interval(mean, quantile * deviation / math.sqrt(n), n)


#: Fewest equal values that count as a result without spread; two could be equal by chance.
_TELLING = 3

Alternative = Literal["greater", "less", "two-sided"]


def p_value(values: Sequence[float], bound: float = 0.0, alternative: Alternative = "two-sided") -> float | None:
    """p-value of a one-sample t-test: the mean is above, below or different from ``bound``.

    A one-sided p-value is at most 0.025 exactly where the 95 % interval of :func:`mean_interval` lies beyond the bound.

    Args:
        values: independent values or paired differences, one a seed.
        bound: value that the mean is compared with.
        alternative: ``greater``, ``less`` or ``two-sided``.

    Returns:
        None for a single value or two equal ones, whose spread is unknown.

    Raises:
        StatisticsError: ``values`` is empty.
    """
    interval = mean_interval(values)
    if interval.half_width is None or (interval.half_width == 0.0 and interval.n < _TELLING):
        return None
    if interval.half_width == 0.0:  # equal values have no spread, so the t statistic is undefined
        distance = interval.mean - bound
        apart = {"greater": distance > 0, "less": distance < 0, "two-sided": distance != 0}
        return 0.0 if apart[alternative] else 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        p = float(stats.ttest_1samp(values, bound, alternative=alternative).pvalue)
    return p if math.isfinite(p) else 1.0  # values whose squares overflow decide nothing


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction for multiple comparisons (Scandinavian Journal of Statistics 6, 1979).

    It controls the family-wise error rate for any dependence between the comparisons. It rejects at least what
    Bonferroni's correction rejects.

    Args:
        p_values: one a comparison [m].

    Returns:
        Adjusted p-values [m] in the same order: the i-th smallest (i from 0) times m − i, made monotone, at most 1.
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
    """The smallest density whose mean is worse than the dense arm's by at most the dense arm's half-width.

    Higher densities may still be worse than that.

    Args:
        arms: density → values, one a seed.
        dense: the dense arm's values, one a seed.
        lower_is_better: direction of the metric.

    Returns:
        None if no density qualifies.

    Raises:
        StatisticsError: the dense arm has fewer than three seeds.
    """
    reference = mean_interval(dense)
    if reference.half_width is None or reference.n < ENOUGH:
        raise StatisticsError(f"The dense arm has {reference.n} seeds; its interval needs {ENOUGH}.")
    sign = -1.0 if lower_is_better else 1.0
    worst = sign * reference.mean - reference.half_width
    within = [density for density, values in arms.items() if sign * mean_interval(values).mean >= worst]
    return min(within, default=None)
