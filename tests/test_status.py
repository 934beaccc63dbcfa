"""What is told of the runs of a sweep while it goes on, and its journal."""

import os
import re
from pathlib import Path

import pytest

from sparse_bench.journal import LEFT, REFUSED, Ended, Journal, read_jobs
from sparse_bench.record import Result, RunFolder
from sparse_bench.status import main, states_of
from sparse_bench.sweeps import jobs


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Five runs: finished, failed, refused, running, not begun."""
    journal = Journal(tmp_path / "runs/.sweeps/2026_sweep")
    journal.announce([[f"seed={seed}", "model=diet"] for seed in range(5)], 0)
    folders = [RunFolder(tmp_path / f"runs/toy/{number}") for number in range(4)]
    for number, status in ((0, "finished"), (1, "failed")):
        folder = folders[number]
        folder.path.mkdir(parents=True)
        error = {"type": "ValueError", "message": "broken\nlong story", "traceback": ""} if status == "failed" else None
        folder.write_result(Result(str(number), status, "toy", number, {}, {}, error=error))
        journal.begin(number, folder.path)
    journal.end(0, Ended("finished", objective=0.5))
    journal.end(2, Ended(REFUSED, error="'seed' does not fit"))
    journal.begin(3, folders[3].path)
    return journal


def test_each_run_is_told(journal: Journal, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running = RunFolder(tmp_path / "runs/toy/3")
    with running.lock() as held:
        assert held
        running.write_config("trainer: {epochs: 40}")
        running.metrics.append({"epoch": 10})
        running.timing.append({"epoch": 10, "train_seconds": 50.0, "evaluate_seconds": 10.0})
        assert main(["--runs", str(tmp_path / "runs")]) == 1
    out = capsys.readouterr().out
    assert re.search(
        rf"running +#3 seed=3  on \S+, process {os.getpid()}, since .*, epoch 10 of 40, at most until", out
    )
    assert re.search(r"failed +#1 seed=1  ValueError: broken \(", out)
    assert re.search(r"failed +#2 seed=2  'seed' does not fit\n", out)
    assert re.search(r"left +#4 seed=4\n", out)
    assert "5 runs: 1 finished, 1 running, 2 failed, 1 left" in out
    # A run whose process was killed is not one that runs.
    assert [state.status for state in states_of(str(journal.sweep), tmp_path)][3] == LEFT


def test_watching_ends_when_no_run_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(tmp_path / ".sweeps/one")
    journal.announce([["seed=0"]], 0)
    journal.end(0, Ended(REFUSED, error="no"))
    assert main(["--runs", str(tmp_path), "--watch"]) == 1
    assert "1 runs: 0 finished, 0 running, 1 failed, 0 left" in capsys.readouterr().out


def test_a_shipped_sweep_is_told_by_its_name(tmp_path: Path) -> None:
    first, *_ = jobs("sparselang/fixed_size", tmp_path)
    folder = RunFolder(tmp_path / first.experiment / str(first.id))
    folder.path.mkdir(parents=True)
    folder.write_result(Result(str(first.id), "finished", first.experiment, 0, {}, {}))
    states = list(states_of("sparselang/fixed_size", tmp_path))
    assert [state.status for state in states].count("finished") == 1
    assert states[0].status == "finished"
    assert states[1].status == LEFT


def test_an_unknown_sweep_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rasa/diet_densty", "--runs", str(tmp_path)]) == 2
    assert "Did you mean 'rasa/diet_density'" in capsys.readouterr().err
    assert main(["--runs", str(tmp_path)]) == 2
    assert "No sweep was started in" in capsys.readouterr().err


def test_a_journal_is_read_as_it_grows_and_a_line_that_is_still_written_waits(tmp_path: Path) -> None:
    journal, reader = Journal(tmp_path), Journal(tmp_path)
    path = journal.announce([["seed=0"], ["seed=1"]], 20)
    assert read_jobs(path) == (20, [["seed=0"], ["seed=1"]])
    journal.begin(20, tmp_path / "run")
    assert reader.entries()[20].folder == tmp_path / "run"
    (file,) = tmp_path.glob("journal-*.jsonl")
    with file.open("a") as lines:
        lines.write("\0\0\0\n" + '{"job": 21, "ended": {"status": "fin')
    assert 21 not in reader.entries()
    with file.open("a") as lines:
        lines.write('ished"}}\n')
    assert reader.entries()[21].ended == Ended("finished")
    assert reader.jobs() == {20: ["seed=0"], 21: ["seed=1"]}
