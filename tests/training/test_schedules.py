"""Schedules against hand-computed factors."""

import pytest

from sparse_bench.errors import ConfigError
from sparse_bench.training.schedules import Constant, Cosine, ExponentialPerEpoch, InverseSquareRoot, LinearWarmup


def test_tables() -> None:
    assert Constant().factor(7, 3) == 1.0
    assert [LinearWarmup(steps=4).factor(step, 0) for step in (1, 2, 4, 5)] == [0.25, 0.5, 1.0, 1.0]
    assert [ExponentialPerEpoch(gamma=0.5, constant_epochs=4).factor(1, epoch) for epoch in (0, 3, 4, 6)] == [
        1.0,
        1.0,
        0.5,
        0.125,
    ]
    assert [Cosine(steps=4, floor=0.0).factor(step, 0) for step in (1, 3, 5, 9)] == pytest.approx([1.0, 0.5, 0.0, 0.0])
    assert [Cosine(steps=4, floor=0.2).factor(step, 0) for step in (1, 3, 5, 9)] == pytest.approx([1.0, 0.6, 0.2, 0.2])


def test_settings_that_make_no_sense_are_refused() -> None:
    for make in (lambda: LinearWarmup(steps=0), lambda: InverseSquareRoot(warmup=0), lambda: Cosine(steps=0)):
        with pytest.raises(ConfigError, match="at least 1"):
            make()


def test_inverse_square_root_peaks_at_the_end_of_its_warmup() -> None:
    """Vaswani et al. 2017: d^-0.5 · min(step^-0.5, step · warmup^-1.5)."""
    schedule = InverseSquareRoot(warmup=4000, dimension=512)
    assert schedule.factor(1, 0) == pytest.approx(512**-0.5 * 4000**-1.5)
    assert schedule.factor(4000, 0) == pytest.approx(512**-0.5 * 4000**-0.5)
    assert schedule.factor(16000, 0) == pytest.approx(512**-0.5 / 126.49110640673517)
    assert max(range(1, 9000), key=lambda step: schedule.factor(step, 0)) == 4000


def test_inverse_square_root_held_for_an_epoch() -> None:
    schedule = InverseSquareRoot(warmup=4000, dimension=512, epoch_steps=453.125)
    assert schedule.factor(1, 0) == schedule.factor(453, 0) == pytest.approx(512**-0.5 * 454.125 * 4000**-1.5)
    assert schedule.factor(1, 29) == pytest.approx(512**-0.5 * (1 + 30 * 453.125) ** -0.5)
    with pytest.raises(ConfigError, match="epoch_steps"):
        InverseSquareRoot(epoch_steps=0)
