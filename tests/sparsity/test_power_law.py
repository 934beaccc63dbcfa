"""The fit of a power-law tail, on distributions that are known."""

import numpy as np
import pytest
from scipy import special, stats

from sparse_bench.sparsity.diagnostics import favours_power_law
from sparse_bench.sparsity.power_law import LEAST_TAIL, PowerLaw, _log_at_least, fit


def fitted(sample: np.ndarray) -> PowerLaw:
    found = fit(*np.unique(sample[sample > 0], return_counts=True))
    assert found is not None
    return found


def power_law_sample(alpha: float, xmin: int, size: int, seed: int = 0) -> np.ndarray:
    """By inversion of P(X ≥ x) = ζ(α, x) / ζ(α, x_min)."""
    x = np.arange(xmin, 200_000)
    at_least = special.zeta(alpha, x.astype(float)) / special.zeta(alpha, float(xmin))
    draws = np.random.default_rng(seed).random(size)
    return x[np.searchsorted(-at_least, -draws, side="right") - 1]


@pytest.mark.parametrize(("alpha", "xmin"), [(2.5, 1), (2.5, 5), (3.5, 10), (2.0, 1)])
def test_exponent_and_start_of_a_power_law_are_found(alpha: float, xmin: int) -> None:
    found = fitted(power_law_sample(alpha, xmin, 20_000))
    # The estimate's standard error is about (α − 1) / √n: four of them.
    assert found.alpha == pytest.approx(alpha, abs=4 * (alpha - 1) / np.sqrt(found.tail))
    assert xmin <= found.xmin <= xmin + 3
    assert found.ks < 0.02
    for comparison in (found.exponential, found.poisson):
        assert comparison.ratio > 0
        assert comparison.p < 1e-3


def test_a_start_below_the_tail_is_left_out() -> None:
    """A power law from 8 on, with a different distribution below."""
    draw = np.random.default_rng(0)
    sample = np.concatenate([draw.integers(1, 8, 5_000), power_law_sample(2.5, 8, 5_000)])
    found = fitted(sample)
    assert 7 <= found.xmin <= 11
    assert found.alpha == pytest.approx(2.5, abs=0.15)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["poisson 5", "poisson 40", "geometric", "binomial"])
def test_degrees_that_are_no_power_law_are_not_taken_for_one(name: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    sample = {
        "poisson 5": draw.poisson(5, 2_000),
        "poisson 40": draw.poisson(40, 512),
        "geometric": draw.geometric(0.05, 2_000),
        "binomial": draw.binomial(512, 0.078, 512),  # an Erdős–Rényi layer's
    }[name]
    found = fitted(sample)
    assert found.alpha > 4
    assert found.tail < len(sample) / 2
    assert not favours_power_law(found)


def test_likelihood_ratios_against_hand_computed_ones() -> None:
    """Two values, 1 and 2, six and four times: the exponential distribution is p(1) = 1 − q, p(2) = (1 − q) q, …"""
    found = fit(np.array([1, 2]), np.array([6, 4]))
    assert found is not None
    q = 0.4 / 1.4  # mean excess 0.4 = q / (1 − q)
    ours = -found.alpha * np.log([1, 2]) - np.log(special.zeta(found.alpha, 1))
    other = np.log([1 - q, (1 - q) * q])
    difference = np.repeat(ours - other, [6, 4])
    assert found.exponential.ratio == pytest.approx(difference.sum() / (difference.std() * np.sqrt(10)))
    assert found.exponential.p == pytest.approx(2 * stats.norm.sf(abs(found.exponential.ratio)))
    # the cut Poisson distribution's best mean, by a fine grid
    means = np.linspace(0.05, 4, 100_000)
    likelihoods = 6 * np.log(means) + 4 * np.log(means**2 / 2) - 10 * np.log(np.expm1(means))
    mean = means[likelihoods.argmax()]
    poisson = stats.poisson.logpmf([1, 2], mean) - np.log(-np.expm1(-mean))
    difference = np.repeat(ours - poisson, [6, 4])
    assert found.poisson.ratio == pytest.approx(difference.sum() / (difference.std() * np.sqrt(10)), rel=1e-3)


def test_the_cut_probability_is_exact_where_it_underflows() -> None:
    assert _log_at_least(300.0, 30.0) == pytest.approx(stats.poisson.logsf(299, 30.0))
    assert _log_at_least(5.0, 3.0) == pytest.approx(stats.poisson.logsf(4, 3.0))
    # ln P(X ≥ 2000) ≈ ln p(2000) + ln(1 / (1 − 200 / 2001)), a geometric series
    assert _log_at_least(2000.0, 200.0) == pytest.approx(stats.poisson.logpmf(2000, 200.0) + 0.1053, abs=1e-3)


def test_the_likelihood_is_the_highest_there_is() -> None:
    """At the fitted tail no other exponent does better: a grid around the fit."""
    sample = power_law_sample(2.3, 1, 500, seed=3)
    found = fitted(sample)
    tail = sample[sample >= found.xmin]
    assert len(tail) == found.tail

    def likelihood(alpha: float) -> float:
        return float(-alpha * np.log(tail).sum() - len(tail) * np.log(special.zeta(alpha, found.xmin)))

    best = likelihood(found.alpha)
    assert all(likelihood(found.alpha + d) < best for d in (-0.1, -0.01, -0.001, 0.001, 0.01, 0.1))


def test_the_distance_is_that_of_kolmogorov_and_smirnov() -> None:
    """Against every whole number up to the largest, whether it occurs or not."""
    sample = np.array([1] * 12 + [2] * 5 + [5] * 2 + [40])
    found = fitted(sample)
    tail = sample[sample >= found.xmin]
    x = np.arange(found.xmin, 41)
    model = 1 - special.zeta(found.alpha, x + 1.0) / special.zeta(found.alpha, float(found.xmin))
    observed = np.array([(tail <= value).mean() for value in x])
    assert found.ks == pytest.approx(np.abs(model - observed).max())


def test_too_few_units_or_values_give_no_fit() -> None:
    assert fit(np.array([7]), np.array([100])) is None
    assert fit(np.array([1, 2]), np.array([4, 5])) is None
    assert fit(np.array([], dtype=int), np.array([], dtype=int)) is None
    found = fit(np.array([1, 2]), np.array([6, 4]))
    assert found is not None
    assert found.tail == LEAST_TAIL


def test_many_different_degrees_take_no_long_time() -> None:
    values = np.arange(1, 3_001)
    found = fit(values, np.ones_like(values))
    assert found is not None
    assert np.isfinite([found.alpha, found.ks, found.exponential.ratio, found.poisson.ratio]).all()
