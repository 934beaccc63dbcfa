"""Processes that carry out jobs, and die: joblib's pool would drop all jobs with the one."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from sparse_bench.workers import carry_out


def answer(number: int) -> tuple[int, int]:
    return number, os.getpid()


def note_and_die(notes: Path, number: int, deaths: int) -> int:
    """Dies so often, and then answers."""
    with notes.open("a") as file:
        file.write(f"{number}\n")
    if notes.read_text().split().count(str(number)) <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def never(number: int, reason: str) -> partial[int]:
    pytest.fail(f"job {number} was given up: {reason}")


def test_results_come_in_the_order_of_the_jobs_from_processes_that_are_used_again() -> None:
    results = carry_out([partial(answer, number) for number in range(6)], 2, never)
    assert [number for number, _ in results] == list(range(6))
    assert 1 <= len({process for _, process in results}) <= 2
    assert os.getpid() not in {process for _, process in results}
    assert not multiprocessing.active_children()


def test_a_job_whose_process_is_killed_is_begun_again_after_the_others(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    jobs = [partial(note_and_die, notes, number, int(number == 1)) for number in range(4)]
    assert carry_out(jobs, 1, never) == [0, 1, 2, 3]
    assert notes.read_text().split() == ["0", "1", "2", "3", "1"]


def test_a_job_that_kills_its_process_each_time_is_given_up_alone(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    jobs = [partial(note_and_die, notes, number, 9 * (number == 1)) for number in range(3)]
    given_up = []

    def instead(number: int, reason: str) -> partial[str]:
        given_up.append((number, reason))
        return partial(str.upper, "instead")

    assert carry_out(jobs, 2, instead) == [0, "INSTEAD", 2]
    reason = "its process was killed by SIGKILL, as the system does when memory runs out, 2 times"
    assert given_up == [(1, reason)]
    assert notes.read_text().split().count("1") == 2


def test_what_dies_while_that_is_noted_ends_it() -> None:
    with pytest.raises(RuntimeError, match=r"Job 0: its process ended with exit status 3, 3 times"):
        carry_out([partial(sys.exit, 3)], 1, lambda number, reason: partial(sys.exit, 3))
    assert not multiprocessing.active_children()


def test_a_process_that_dies_while_it_waits_costs_no_job(tmp_path: Path) -> None:
    """The first job's process waits, as the second job has the other process, and dies before there is more to do."""
    notes = tmp_path / "notes"

    def kill_who_waits(number: int, reason: str) -> partial[int]:
        pytest.fail("nothing died at its job")

    from sparse_bench import workers

    begin = workers._Worker.begin

    def kill_before(worker: workers._Worker, number: int, job: workers.Job) -> bool:
        if number == 1 and not notes.exists():
            notes.touch()
            worker.process.kill()
            worker.process.join()
        return begin(worker, number, job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers._Worker, "begin", kill_before)
        results = carry_out([partial(answer, number) for number in range(2)], 1, kill_who_waits)
    assert [number for number, _ in results] == [0, 1]
    assert results[0][1] != results[1][1]


def test_an_interruption_ends_all_processes() -> None:
    """As by Ctrl-C: also those in the middle of a job."""
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(2.0, signal.pthread_kill, (main, signal.SIGINT))
    # A shell has what it starts in the background ignore this signal, the tests too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer.start()
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            carry_out([partial(time.sleep, 120)] * 2, 2, never)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - started < 60
    assert not multiprocessing.active_children()
