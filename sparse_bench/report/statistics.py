"""Means and intervals over seeds, and the few quantities that claims are read from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sparse_bench.errors import SparseBenchError

CONFIDENCE = 0.95


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
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    quantile = float(stats.t.ppf(0.5 + confidence / 2, n - 1))
    return Interval(mean, quantile * deviation / math.sqrt(n), n)


#: So many equal values are no coincidence.
_TELLING = 3


def p_above(values: Sequence[float], bound: float) -> float | None:
    """One-sided p-value of the t-test that the mean lies above ``bound`` (hypothesis: it does not).

    It is at most 0.025 exactly where the 95 % interval of :func:`mean_interval` lies above the bound.

    Args:
        values: independent values (or paired differences), one a seed.
        bound: where the mean is compared with.

    Returns:
        None for a single value, or two equal ones, which say nothing of their spread.

    Raises:
        StatisticsError: there are no values.
    """
    interval = mean_interval(values)
    if interval.half_width is None:
        return None
    distance = interval.mean - bound
    if interval.half_width == 0.0:  # equal values: no spread to compare the distance with
        if interval.n < _TELLING:
            return None
        return 0.0 if distance > 0 else 1.0
    freedom = interval.n - 1
    error = interval.half_width / float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom))
    return float(stats.t.sf(distance / error, freedom))


def p_below(values: Sequence[float], bound: float) -> float | None:
    """One-sided p-value that the mean lies below ``bound``; see :func:`p_above`."""
    return p_above([-value for value in values], -bound)


def p_different(values: Sequence[float], bound: float = 0.0) -> float | None:
    """Two-sided p-value of the t-test that the mean differs from ``bound``; see :func:`p_above`."""
    above, below = p_above(values, bound), p_below(values, bound)
    if above is None or below is None:
        return None
    return min(1.0, 2.0 * min(above, below))


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
        StatisticsError: the dense arm has fewer than two seeds, so it has no interval.
    """
    reference = mean_interval(dense)
    if reference.half_width is None:
        raise StatisticsError("The dense arm has a single seed and therefore no interval; run at least two seeds.")
    sign = -1.0 if lower_is_better else 1.0
    worst = sign * reference.mean - reference.half_width
    within = [density for density, values in arms.items() if sign * mean_interval(values).mean >= worst]
    return min(within, default=None)


def log_average(weights: Sequence[float], values: Sequence[float], bounds: tuple[float, float] | None = None) -> float:
    """Average of a metric along a logarithmic axis of weights: the area under its curve over the width of the range.

    The curve is linear between its points in (log weights, value); the area is exact (trapezoids).

    Args:
        weights: positive, distinct, in any order.
        values: the metric at these weights.
        bounds: the range to average over, inside the range of ``weights`` (their whole range by default). Curves are
            compared over a common range.

    Raises:
        StatisticsError: fewer than two points, weights not positive or not distinct, or bounds outside the curve.
    """
    if len(weights) < 2 or len(weights) != len(values):
        raise StatisticsError(f"A curve needs two points or more: {len(weights)} weights, {len(values)} values.")
    if min(weights) <= 0 or len(set(weights)) < len(weights):
        raise StatisticsError("The weights of a curve must be positive and distinct.")
    order = np.argsort(weights)
    x = np.log(np.asarray(weights, dtype=np.float64)[order])
    y = np.asarray(values, dtype=np.float64)[order]
    low, high = (float(x[0]), float(x[-1])) if bounds is None else (math.log(bounds[0]), math.log(bounds[1]))
    tolerance = 1e-9
    if not (x[0] - tolerance <= low < high <= x[-1] + tolerance):
        raise StatisticsError(
            f"The range {math.exp(low):.6g} to {math.exp(high):.6g} is empty or not inside the curve's, "
            f"{min(weights):.6g} to {max(weights):.6g}."
        )
    grid = np.concatenate(([low], x[(x > low) & (x < high)], [high]))
    return float(np.trapezoid(np.interp(grid, x, y), grid) / (high - low))
