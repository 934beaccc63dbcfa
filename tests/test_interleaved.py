"""Timing in turn: who runs how often, and what is reported."""

import time
from collections import Counter

import pytest

from scripts import interleaved


def test_arms_take_turns() -> None:
    ran: list[str] = []
    arms = {name: (lambda name=name: ran.append(name)) for name in "abc"}
    times = interleaved.interleave(arms, seconds=0.05)
    assert ran[:3] == ["a", "b", "c"]  # unmeasured
    assert all(sorted(ran[begin : begin + 3]) == ["a", "b", "c"] for begin in range(3, 15, 3))
    assert all(len(arm.clock) == len(arm.processor) == Counter(ran)[name] - 1 for name, arm in times.items())
    assert all(len(arm.clock) >= interleaved.LEAST_ROUNDS for arm in times.values())


def test_a_slow_arm_is_measured_once_and_its_unmeasured_run_does_not_count() -> None:
    naps = iter([0.05] + [0.02] * 9)
    times = interleaved.interleave({"slow": lambda: time.sleep(next(naps)), "fast": lambda: None}, seconds=0.01)
    assert len(times["slow"].clock) == 1
    assert times["slow"].median == pytest.approx(times["slow"].milliseconds / 1e3)
    assert times["slow"].median_processor < times["slow"].median
    assert len(times["fast"].clock) >= interleaved.LEAST_ROUNDS
