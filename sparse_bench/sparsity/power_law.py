"""Does a degree distribution have a power-law tail? Clauset, Shalizi & Newman 2009, for whole numbers.

P(x) = x^-α / ζ(α, x_min) for x ≥ x_min: α by maximum likelihood (their equation B.8), x_min where the fitted and the
observed tail are nearest in the sense of Kolmogorov and Smirnov (section 3.3), and likelihood ratios against two
distributions that are no power laws (section 5): the exponential, and the Poisson distribution, which the degrees of
a large and sparse Erdős–Rényi graph have. The method's bootstrapped goodness of fit is left out: it takes thousands
of fits, and what is asked here is which of the distributions describes the degrees better.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

#: A tail holds at least so many units; with fewer, every distribution fits.
LEAST_TAIL = 10
#: Larger sets of possible x_min are thinned out to so many.
_MOST_CANDIDATES = 100
_ALPHA = (1.0001, 50.0)
_GOLDEN = (math.sqrt(5) - 1) / 2
#: Steps of the golden section: narrows the range of α to 1e-8.
_STEPS = 46


@dataclass(frozen=True)
class Comparison:
    """The power law against another distribution on the same tail.

    Attributes:
        ratio: normalised logarithm of the likelihoods' ratio; positive if the power law is the likelier.
        p: probability of a ratio so far from zero if neither were better (Vuong 1989); two-sided.
    """

    ratio: float
    p: float


@dataclass(frozen=True)
class PowerLaw:
    """A fitted tail.

    Attributes:
        alpha: the exponent.
        xmin: where the tail begins.
        ks: largest distance between the fitted and the observed cumulative distributions of the tail.
        tail: units in the tail.
        exponential: against p(x) ∝ e^(-λx).
        poisson: against a Poisson distribution cut at x_min.
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
        degrees: different values, ascending, at least 1.
        counts: how many units have each.

    Returns:
        None if no tail of :data:`LEAST_TAIL` units has two different values.
    """
    x, n = np.asarray(degrees, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    tails = n[::-1].cumsum()[::-1]
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
    """For each x_min the α that maximises -ln ζ(α, x_min) - α · (mean of ln x); a concave function of α."""

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
    """Kolmogorov-Smirnov distance on the tail, at every step of the observed distribution and just before it."""
    at_least = special.zeta(alpha, np.append(x, x + 1)) / special.zeta(alpha, x[0])  # P(X ≥ ·)
    observed = n.cumsum() / n.sum()
    before, after = 1 - at_least[: len(x)], 1 - at_least[len(x) :]
    return float(max(np.abs(after - observed).max(), np.abs(before[1:] - observed[:-1]).max()))


def _exponential(x: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Log-likelihoods under the discrete exponential distribution of highest likelihood."""
    excess = float((n * x).sum() / n.sum() - x[0])
    rate = math.log1p(1 / excess)
    return math.log(-math.expm1(-rate)) - rate * (x - x[0])


def _poisson(x: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Log-likelihoods under the cut Poisson distribution of highest likelihood."""

    def likelihoods(log_mean: float) -> np.ndarray:
        mean = math.exp(log_mean)
        return x * log_mean - mean - special.gammaln(x + 1) - _log_at_least(x[0], mean)

    def negative(log_mean: float) -> float:
        return -float((n * likelihoods(log_mean)).sum())

    # Far below x_min the cut distribution hardly changes with its mean.
    bounds = (math.log(x[0] / 10), math.log(2 * x[-1]))
    return likelihoods(_minimum(negative, bounds))


def _log_at_least(least: float, mean: float) -> float:
    """ln P(X ≥ least) of a Poisson distribution, also where the probability underflows."""
    probability = float(special.gammainc(least, mean))
    if probability > 1e-250:
        return math.log(probability)
    # Its series, with the first term taken out: Kummer's function is near 1 where the mean is far below.
    first = least * math.log(mean) - mean - special.gammaln(least + 1)
    return float(first + math.log(special.hyp1f1(1.0, least + 1.0, mean)))


def _minimum(function: Callable[[float], float], bounds: tuple[float, float]) -> float:
    return float(optimize.minimize_scalar(function, bounds=bounds, method="bounded").x)


def _compare(first: np.ndarray, second: np.ndarray, n: np.ndarray) -> Comparison:
    """Vuong's test on log-likelihoods of each value, with ``n`` units each."""
    total = n.sum()
    difference = first - second
    mean = (n * difference).sum() / total
    deviation = math.sqrt((n * (difference - mean) ** 2).sum() / total)
    if deviation < 1e-12:
        return Comparison(0.0, 1.0)
    ratio = float(mean * math.sqrt(total) / deviation)
    return Comparison(ratio, math.erfc(abs(ratio) / math.sqrt(2)))
