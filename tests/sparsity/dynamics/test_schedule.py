"""When and how much: values computed by hand, and what every schedule must reach in the end."""

import math
import re
from collections.abc import Callable

import pytest

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.dynamics.schedule import (
    CosineSteps,
    CubicDensity,
    EveryEpoch,
    Schedule,
    SigmoidDensity,
)
from sparse_bench.sparsity.scheme import Length


def lasting(steps: int = 1000, epochs: int = 10) -> Callable[[], Length]:
    return lambda: Length(epochs, steps)


def changes(schedule: Schedule, steps: int) -> dict[int, float]:
    found = {step: schedule.after_step(step, lasting(steps)) for step in range(1, steps + 1)}
    return {step: amount for step, amount in found.items() if amount is not None}


def test_every_epoch_the_same() -> None:
    def unknown() -> Length:
        raise AssertionError("a constant fraction needs no length")

    schedule = EveryEpoch(0.3)
    assert [schedule.after_epoch(epoch, unknown) for epoch in range(3)] == [0.3] * 3
    assert schedule.after_step(1, unknown) is None


def test_every_epoch_less() -> None:
    """Selfish-RNN's: from 0.8 after the first epoch to 0.005 after the last, half of the way in the middle."""
    schedule = EveryEpoch(0.8, 0.005)
    amounts = [schedule.after_epoch(epoch, lasting(epochs=11)) for epoch in range(11)]
    assert amounts[0] == pytest.approx(0.8)
    assert amounts[5] == pytest.approx(0.4025)
    assert amounts[10] == pytest.approx(0.005)
    assert amounts == sorted(amounts, reverse=True)
    # What goes after the last epoch does not come back, so a single one is the last.
    assert schedule.after_epoch(0, lasting(epochs=1)) == pytest.approx(0.005)


def test_rigl_stops_at_three_quarters() -> None:
    found = changes(CosineSteps(interval=100, fraction=0.3, stop=0.75), 1000)
    assert list(found) == [100, 200, 300, 400, 500, 600, 700]  # 750 is the end
    # 0.15 · (1 + cos(π · 300 / 750)) = 0.15 · (1 + cos 72°)
    assert found[300] == pytest.approx(0.15 * (1 + 0.30901699), rel=1e-6)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert max(found.values()) < 0.3
    assert list(changes(CosineSteps(interval=250, stop=0.75), 1000)) == [250, 500]  # the end itself changes nothing


@pytest.mark.parametrize(("steps", "interval"), [(1000, 100), (1003, 100), (997, 64), (37, 100), (2, 100), (1, 1)])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.5])
def test_gradual_pruning_reaches_its_density_whatever_the_interval(steps: int, interval: int, density: float) -> None:
    found = changes(CubicDensity(density, interval), steps)
    amounts = list(found.values())
    assert amounts[-1] == density
    assert amounts == sorted(amounts, reverse=True)
    assert all(density <= amount <= 1.0 for amount in amounts)
    assert max(found) <= max(1, 0.8 * steps)


def test_gradual_pruning_is_cubic() -> None:
    found = changes(CubicDensity(0.2, interval=100, begin=0.1, end=0.8), 1000)
    assert list(found) == [200, 300, 400, 500, 600, 700, 800]  # at 100 nothing is to be removed yet
    # s = 0.8 · (1 − (1 − (t − 100) / 700)³): half way, at 450, would be 0.7; at 400 it is 0.8 · (1 − (4/7)³)
    assert found[400] == pytest.approx(1 - 0.8 * (1 - (4 / 7) ** 3))


def test_gradual_pruning_counts_its_interval_from_where_it_begins() -> None:
    found = changes(CubicDensity(0.2, interval=100, begin=0.15, end=0.8), 1000)
    assert list(found) == [250, 350, 450, 550, 650, 750, 800]
    assert found[250] == pytest.approx(1 - 0.8 * (1 - (550 / 650) ** 3))
    between = changes(CubicDensity(0.2, interval=100, begin=0.1, end=0.8), 1005)  # from 100.5 to 804
    assert list(between) == [201, 301, 401, 501, 601, 701, 801, 804]


@pytest.mark.parametrize(
    ("schedule", "length", "reason"),
    [
        (EveryEpoch(0.3), Length(2, 10), None),
        (EveryEpoch(0.3), Length(1, 10), "between epochs, and there is only one"),
        (EveryEpoch(0.0), Length(5, 10), "sparsity.zeta is 0"),
        (EveryEpoch(0.0, 0.3), Length(5, 10), None),
        (CosineSteps(interval=7, stop=0.75), Length(1, 10), None),  # at step 7, before 7.5
        (CosineSteps(interval=8, stop=0.75), Length(1, 10), r"every sparsity.interval = 8 steps before step 7.5 \("),
        (CosineSteps(interval=1, stop=0.0), Length(9, 99), r"before step 0 \(sparsity.stop = 0 of 99"),
        (CosineSteps(fraction=0.0), Length(9, 999), "sparsity.fraction is 0"),
        (CubicDensity(0.5, interval=69), Length(1, 100), None),  # from step 10 to 80
        (
            CubicDensity(0.5, interval=70),
            Length(1, 100),
            "all at once: the curve goes from step 10 to step 80, and sparsity.",
        ),
    ],
)
def test_what_keeps_a_schedule_from_doing_what_it_is_for(
    schedule: Schedule, length: Length, reason: str | None
) -> None:
    warning = schedule.warning(length)
    in_steps = [schedule.after_step(step, lambda: length) for step in range(1, length.steps + 1)]
    in_epochs = [schedule.after_epoch(epoch, lambda: length) for epoch in range(length.epochs - 1)]
    changed = sum(bool(amount) for amount in in_steps + in_epochs)
    least = 2 if isinstance(schedule, CubicDensity) else 1
    if reason is None:
        assert warning is None
        assert changed >= least
    else:
        assert warning is not None
        assert re.search(reason, warning)
        assert changed < least


def test_bad_settings_are_named() -> None:
    for make, message in [
        (lambda: EveryEpoch(1.5), r"'zeta' = 1\.5 does not fit: it has to be at most 1"),
        (lambda: EveryEpoch(0.3, -0.1), "'final_zeta' = -0.1"),
        (lambda: CosineSteps(interval=0), r"'interval' = 0 does not fit: it has to be at least 1"),
        (lambda: CosineSteps(stop=2.0), "'stop' = 2.0"),
        (lambda: CubicDensity(0.1, begin=0.8, end=0.8), r"sparsity\.begin \(0\.8\) must be below sparsity\.end"),
    ]:
        with pytest.raises(ConfigError, match=message):
            make()


def test_a_cosine_may_end_above_zero() -> None:
    schedule = CosineSteps(interval=100, fraction=0.5, stop=0.8, final=0.1)
    found = changes(schedule, 1000)
    assert list(found) == list(range(100, 800, 100))
    assert found[400] == pytest.approx(0.3)
    assert found[700] == pytest.approx(0.1 + 0.2 * (1 + math.cos(math.pi * 7 / 8)))


def test_a_cubic_curve_from_a_first_density() -> None:
    """GraNet: 0.5 − 0.4 · (1 − (1 − p)³)."""
    found = changes(CubicDensity(0.1, interval=300, begin=0.0, end=0.8, initial=0.5), 1000)
    assert list(found) == [300, 600, 800]
    assert found[300] == pytest.approx(0.5 - 0.4 * (1 - 0.625**3))
    assert found[800] == 0.1


def test_a_sigmoid_reaches_both_densities() -> None:
    """At p = 1/2 it is halfway; at 1/4, (σ(−1.5) − σ(−3)) / (σ(3) − σ(−3)) = 0.13505 / 0.90515 of the way."""
    schedule = SigmoidDensity(0.1, interval=200, begin=0.0, end=0.8, initial=0.5)
    found = changes(schedule, 1000)
    assert list(found) == [200, 400, 600, 800]
    assert found[200] == pytest.approx(0.5 - 0.4 * 0.1492, abs=1e-4)
    assert found[400] == pytest.approx(0.3)
    assert found[600] == pytest.approx(0.1 + 0.4 * 0.1492, abs=1e-4)
    assert found[800] == 0.1
    assert schedule.curve(0.0) == 0.0
    assert schedule.curve(1.0) == 1.0
    with pytest.raises(ConfigError, match=r"initial_density \(0\.1\) must be at least sparsity\.density \(0\.2\)"):
        SigmoidDensity(0.2, initial=0.1)
