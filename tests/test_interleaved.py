"""Timing in turn: who runs how often, and what is reported."""

import time
from collections import Counter
from pathlib import Path

import pytest

from scripts import interleaved
from sparse_bench.evidence.csv_tables import read_rows


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


def test_a_page_is_made_from_its_rows_and_the_rows_are_those_of_other_readers(tmp_path: Path) -> None:
    rows = [{"arm": "dense, wide", "weights": 12345, "ms": "1.50"}, {"arm": "sparse", "weights": 99, "ms": None}]
    interleaved.report(tmp_path / "speed.md", "Speed", "Two\nlines.\n\nMore.", rows, notes=["Left out: nothing."])
    measured, page = ((tmp_path / f"speed.{kind}").read_text() for kind in ("csv", "md"))
    assert page == interleaved.page_of(measured)
    title, made, *rest = page.split("\n\n")
    assert (title, made.startswith("Made by `python ")) == ("# Speed", True)
    assert rest[:2] == ["Two lines.", "More."]
    assert rest[2].splitlines()[2:] == ["| dense, wide | 12,345 | 1.50 |", "| sparse | 99 | – |"]
    assert rest[3] == "- Left out: nothing.\n"
    assert read_rows(tmp_path / "speed.csv")["weights"].tolist() == [12345, 99]
    columns = interleaved.page_of(measured, lambda frame: [{"sum": frame["weights"].sum()}])
    assert "| sum |" in columns
    assert "| 12,444 |" in columns
