"""Timing in turn: who runs how often, and what is reported."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import interleaved
from sparse_bench.evidence.csv_tables import read_rows


def test_arms_take_turns() -> None:
    ran: list[str] = []
    arms = {name: (lambda name=name: ran.append(name)) for name in "abc"}
    times = interleaved.interleave(arms, seconds=0.4)
    assert ran[:3] == ["a", "b", "c"]  # unmeasured
    assert all(sorted(ran[begin : begin + 3]) == ["a", "b", "c"] for begin in range(3, 15, 3))
    assert all(len(arm.clock) == len(arm.processor) == Counter(ran)[name] - 1 for name, arm in times.items())
    assert all(len(arm.clock) >= interleaved.LEAST_ROUNDS for arm in times.values())


def test_a_slow_arm_is_measured_once_and_its_unmeasured_run_does_not_count() -> None:
    naps = iter([0.05] + [0.02] * 9)
    times = interleaved.interleave({"slow": lambda: time.sleep(next(naps)), "fast": lambda: None}, seconds=0.01)
    assert len(times["slow"].clock) == 1
    assert times["slow"].ms("processor") < times["slow"].ms() == pytest.approx(1e3 * times["slow"].clock[0])
    assert times["slow"].over(times["fast"]) > 1
    assert times["slow"].quartiles(times["fast"]) == ""
    assert len(times["fast"].clock) >= interleaved.LEAST_ROUNDS


def test_options_rows_and_notes_become_a_table_and_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def speed(*, sizes: tuple[int, ...] = (12345,), seconds: float = 1.0) -> Iterator[interleaved.Row | str]:
        """Speed.

        Two
        lines.
        """
        for size in sizes:
            yield {"weights": size, "arm": "dense, wide", "ms": 1.504 * seconds, "least": None}
            yield {"weights": size, "arm": "sparse", "ms": 1.0, "least": 0.5}
        yield "Left out: nothing."

    output = tmp_path / "speed.csv"
    monkeypatch.setattr(sys, "argv", ["bench.py", "--sizes", "12345", "99", "--seconds", "2", "--output", str(output)])
    interleaved.measure(speed, wide={"speed": ("arm", "ms")})
    assert read_rows(output)["ms"].tolist() == [3.008, 1.0, 3.008, 1.0]
    assert read_rows(output)["weights"].tolist() == [12345, 12345, 99, 99]
    title, made, *rest = output.with_suffix(".md").read_text().split("\n\n")
    assert (title, made.startswith("Made by `python bench.py --sizes 12345 99")) == ("# Speed, by sizes", True)
    assert rest[0] == "Two lines."
    assert rest[1].splitlines()[2:] == ["| 12,345 | 3.01 | 1.0 |", "| 99 | 3.01 | 1.0 |"]
    assert rest[2] == "- Left out: nothing.\n"
    comments = [line for line in output.read_text().splitlines() if line.startswith("#")]
    assert [comments[0], comments[-1]] == ["# Speed, by sizes", "# Left out: nothing."]


def test_several_functions_are_named_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(*, quick: bool = False, output: Path | None = None) -> tuple[bool, Path | None]:
        return quick, output

    def two(*, seed: int = 3) -> int:
        return seed

    for line, expected in (("one --quick --output x.md", (True, Path("x.md"))), ("one", (False, None)), ("two", 3)):
        monkeypatch.setattr(sys, "argv", ["script.py", *line.split()])
        assert interleaved.run(one, two) == expected
