"""Fit a power law to the tail of a degree distribution (Clauset, Shalizi & Newman 2009, for whole numbers).

P(x) = x^-α / ζ(α, x_min) for x ≥ x_min. α is the maximum-likelihood estimate (their equation B.8). x_min minimises the
Kolmogorov–Smirnov distance between the fitted and the observed tail (section 3.3). Likelihood ratios compare the fit
with two other distributions (section 5): the exponential, and the Poisson distribution, which the degrees of a large
and sparse Erdős–Rényi graph follow. The method's bootstrapped goodness of fit is left out, because it takes thousands
of fits; here it is enough to know which distribution describes the degrees better.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

#: Fewest units in a tail; with fewer, every distribution fits.
LEAST_TAIL = 10
#: Most values of x_min that are tried; more candidates are thinned out evenly.
_MOST_CANDIDATES = 100
_ALPHA = (1.0001, 50.0)
_GOLDEN = (math.sqrt(5) - 1) / 2
#: Steps of the golden-section search, which narrow the range of α to 1e-8.
_STEPS = 46


@dataclass(frozen=True)
class Comparison:
    """Likelihood ratio of the power law to another distribution on the same tail.

    Attributes:
        ratio: normalised log-likelihood ratio; positive if the power law is likelier.
        p: two-sided p-value: probability of a ratio at least so far from zero if neither is better (Vuong 1989).
    """

    ratio: float
    p: float


@dataclass(frozen=True)
class PowerLaw:
    """A fitted tail.

    Attributes:
        alpha: the exponent.
        xmin: the smallest degree in the tail.
        ks: largest distance between the fitted and the observed cumulative distributions of the tail.
        tail: number of units in the tail.
        exponential: comparison with p(x) ∝ e^(-λx).
        poisson: comparison with a Poisson distribution truncated at x_min.
    """

    alpha: float
    xmin: int
    ks: float
    tail: int
    exponential: Comparison
    poisson: Comparison


def fit(degrees: np.ndarray, counts: np.ndarray) -> PowerLaw | None:
    """Fit the tail of a distribution over positive whole numbers.

    Args:
        degrees: distinct degrees, ascending, at least 1 [values].
        counts: how many units have each degree [values].

    Returns:
        The fit; None if no tail of at least :data:`LEAST_TAIL` units has two different values.
    """
    x, n = np.asarray(degrees, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    tails = n[::-1].cumsum()[::-1]
    # Candidates for x_min leave enough units and two different values in the tail.
    candidates = np.flatnonzero((tails >= LEAST_TAIL) & (np.arange(len(x)) < len(x) - 1))
    if not len(candidates):
        return None
    if len(candidates) > _MOST_CANDIDATES:
        candidates = candidates[np.linspace(0, len(candidates) - 1, _MOST_CANDIDATES).round().astype(int)]
    log_means = (n * np.log(x))[::-1].cumsum()[::-1] / tails
    alphas = _exponents(x[candidates], log_means[candidates])
    distances = [_distance(x[i:], n[i:], alpha) for i, alpha in zip(candidates, alphas, strict=True)]
    best = int(np.argmin(distances))
    start, alpha = int(candidates[best]), float(alphas[best])
    x, n = x[start:], n[start:]
    likelihood = -alpha * np.log(x) - np.log(special.zeta(alpha, x[0]))
    return PowerLaw(
        alpha=alpha,
        xmin=int(x[0]),
        ks=float(distances[best]),
        tail=int(n.sum()),
        exponential=_compare(likelihood, _exponential(x, n), n),
        poisson=_compare(likelihood, _poisson(x, n), n),
    )


def _exponents(xmins: np.ndarray, log_means: np.ndarray) -> np.ndarray:
    """For each x_min, the α that maximises the concave function -ln ζ(α, x_min) - α · (mean of ln x)."""

    def negative(alphas: np.ndarray) -> np.ndarray:
        return np.log(special.zeta(alphas, xmins)) + alphas * log_means

    low, high = np.full_like(xmins, _ALPHA[0]), np.full_like(xmins, _ALPHA[1])
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = negative(left), negative(right)
    for _ in range(_STEPS):
        below = at_left < at_right
        high, low = np.where(below, right, high), np.where(below, low, left)
        probe = np.where(below, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
        at_probe = negative(probe)
        left, right = np.where(below, probe, right), np.where(below, left, probe)
        at_left, at_right = np.where(below, at_probe, at_right), np.where(below, at_left, at_probe)
    return (low + high) / 2


def _distance(x: np.ndarray, n: np.ndarray, alpha: float) -> float:
    """Kolmogorov–Smirnov distance on the tail: the largest, at each observed value and just before it."""
    at_least = special.zeta(alpha, np.append(x, x + 1)) / special.zeta(alpha, x[0])  # P(X ≥ ·)
    observed = n.cumsum() / n.sum()
    before, after = 1 - at_least[: len(x)], 1 - at_least[len(x) :]
    return float(max(np.abs(after - observed).max(), np.abs(before[1:] - observed[:-1]).max()))


def _exponential(x: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Log-likelihood of each value under the discrete exponential distribution with the best-fitting rate."""
    excess = float((n * x).sum() / n.sum() - x[0])
    rate = math.log1p(1 / excess)
    return math.log(-math.expm1(-rate)) - rate * (x - x[0])


def _poisson(x: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Log-likelihood of each value under the truncated Poisson distribution with the best-fitting mean."""

    def likelihoods(log_mean: float) -> np.ndarray:
        mean = math.exp(log_mean)
        return x * log_mean - mean - special.gammaln(x + 1) - _log_at_least(x[0], mean)

    def negative(log_mean: float) -> float:
        return -float((n * likelihoods(log_mean)).sum())

    # For means far below x_min, the truncated distribution hardly depends on the mean.
    bounds = (math.log(x[0] / 10), math.log(2 * x[-1]))
    return likelihoods(_minimum(negative, bounds))


def _log_at_least(least: float, mean: float) -> float:
    """ln P(X ≥ least) for a Poisson distribution, also if the probability underflows."""
    probability = float(special.gammainc(least, mean))
    if probability > 1e-250:
        return math.log(probability)
    # Use the series of the tail, divided by its first term: Kummer's function, near 1 for means far below ``least``.
    first = least * math.log(mean) - mean - special.gammaln(least + 1)
    return float(first + math.log(special.hyp1f1(1.0, least + 1.0, mean)))


def _minimum(function: Callable[[float], float], bounds: tuple[float, float]) -> float:
    return float(optimize.minimize_scalar(function, bounds=bounds, method="bounded").x)


def _compare(first: np.ndarray, second: np.ndarray, n: np.ndarray) -> Comparison:
    """Vuong's test, given two log-likelihoods of each value and the number ``n`` of units with it."""
    total = n.sum()
    difference = first - second
    mean = (n * difference).sum() / total
    deviation = math.sqrt((n * (difference - mean) ** 2).sum() / total)
    if deviation < 1e-12:
        return Comparison(0.0, 1.0)
    ratio = float(mean * math.sqrt(total) / deviation)
    return Comparison(ratio, math.erfc(abs(ratio) / math.sqrt(2)))
