"""Locks of run folders: of both kinds, by processes that compete for them and are killed."""

import errno
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest

from sparse_bench import agreement, locks
from sparse_bench.agreement import agree
from sparse_bench.errors import ConfigError, LostLockError
from sparse_bench.locks import Flock, LockFile, Owner, lock_of
from sparse_bench.record import Result, RunFolder

KINDS = ["flock", "files"]


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    agreement._agree.cache_clear()
    agreement.flock_fault.cache_clear()


def work(root: Path, runs: int, machine: str | None) -> None:
    """Do the runs that nobody has done, in an order of this process's own. Each notes its process when it begins."""
    if machine is not None:  # another one: only heartbeats tell whether its processes live
        locks._machine = lambda: machine
    order = list(range(runs))
    random.Random(os.getpid()).shuffle(order)
    while order:
        for number in list(order):
            folder = RunFolder(root / str(number))
            with folder.lock() as held:
                if not held:
                    continue
                if folder.result() is None:
                    with (folder.path / "begun").open("a") as file:
                        file.write(f"{os.getpid()}\n")
                    time.sleep(0.004)
                    if folder.result_path.exists():
                        (folder.path / "two at once").touch()
                    folder.write_result(Result(str(number), "finished", "storm", os.getpid(), {}, {}))
                order.remove(number)
        time.sleep(0.01)


@pytest.mark.parametrize(
    "kind", ["files", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("flock", "files elsewhere"))]
)
def test_eight_processes_do_each_of_200_runs_once_though_some_are_killed(kind: str, tmp_path: Path) -> None:
    runs, draw, context = 200, random.Random(0), multiprocessing.get_context("fork")
    (tmp_path / ".locks").write_text("flock" if kind == "flock" else "files 1.5")

    def start(number: int) -> "ForkProcess":
        machine = f"machine {number}" if "elsewhere" in kind else None
        process = context.Process(target=work, args=(tmp_path, runs, machine))
        process.start()
        return process

    workers, killed = [start(number) for number in range(8)], set[int]()
    deadline = time.monotonic() + 120
    while any(worker.is_alive() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.01)
        done = sum((tmp_path / str(number) / "result.json").exists() for number in range(runs))
        victim = draw.randrange(len(workers))
        if len(killed) < 12 and runs * len(killed) / 14 < done < runs - 8 and workers[victim].is_alive():
            workers[victim].kill()
            workers[victim].join()
            killed.add(workers[victim].pid or 0)
            workers[victim] = start(8 + len(killed))
    codes = [worker.exitcode for worker in workers]
    for worker in workers:
        worker.kill()
        worker.join()
    assert codes == [0] * 8
    assert killed, "otherwise nothing has been tested"
    for number in range(runs):
        folder = tmp_path / str(number)
        assert not (folder / "two at once").exists()
        # Whoever began it before the one that ended it was killed, and nobody began it afterwards.
        *before, last = map(int, (folder / "begun").read_text().split())
        result = RunFolder(folder).result()
        assert result is not None
        assert result.seed == last
        assert set(before) <= killed


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_names_its_owner_until_it_is_let_go(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    agree(tmp_path, kind)
    lock, other = lock_of(tmp_path), lock_of(tmp_path)
    assert lock.owner() is None
    assert lock.acquire()
    assert not other.acquire()
    owner = other.owner()
    assert owner is not None
    assert (owner.pid, owner.job) == (os.getpid(), "7_3")
    assert abs(owner.since - time.time()) < 60
    lock.verify()
    lock.release()
    assert other.owner() is None
    assert other.acquire()
    other.release()


def test_a_silent_lock_of_another_machine_is_taken_over_after_the_stated_time_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = LockFile(tmp_path, silence=0.9), LockFile(tmp_path, silence=0.9)
    monkeypatch.setattr(LockFile, "_beat", lambda self, ended: None)  # as if its machine had stopped
    assert first.acquire()
    monkeypatch.setattr(locks, "_machine", lambda: "another")
    assert not second.acquire()
    time.sleep(1.0)
    assert second.acquire()
    # The first one wakes up: it must neither go on nor let go of what is the second one's.
    with pytest.raises(LostLockError, match="taken its run over"):
        first.verify()
    first.release()
    second.verify()
    assert not LockFile(tmp_path, silence=60).acquire()
    second.release()
    # Also when the second one has let go and a third one has come.
    third = LockFile(tmp_path, silence=60)
    assert third.acquire()
    first._own, first._lost = tmp_path / ".lock.0", False
    with pytest.raises(LostLockError):
        first.verify()
    third.release()


def test_a_lock_with_a_heartbeat_is_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = LockFile(tmp_path, silence=0.6)
    assert first.acquire()
    monkeypatch.setattr(locks, "_machine", lambda: "another")
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        assert not LockFile(tmp_path, silence=0.6).acquire()
        time.sleep(0.1)
    first.release()
    assert [path.name for path in tmp_path.iterdir()] == []


def test_one_that_was_let_go_and_taken_again_meanwhile_is_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between judging a lock as abandoned and taking it, its owner lets go, and another process takes it."""
    slow, owner, quick = (LockFile(tmp_path, silence=60) for _ in range(3))
    assert owner.acquire()
    judge = LockFile._is_free

    def meanwhile(self: LockFile, number: int, found: tuple[Owner | None, bytes]) -> bool:
        if self is not slow:
            return judge(self, number, found)
        owner.release()
        assert quick.acquire()
        return True

    monkeypatch.setattr(LockFile, "_is_free", meanwhile)
    assert not slow.acquire()
    quick.verify()
    assert quick.owner() == quick._mine
    quick.release()


def test_the_first_process_chooses_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agree(tmp_path)
    assert (tmp_path / ".locks").read_text() == "flock"
    agree(tmp_path, "flock")
    with pytest.raises(ConfigError, match=r"locks=files, but .* use locks=flock.*delete .*\.locks"):
        agree(tmp_path, "files")
    agreement._agree.cache_clear()
    monkeypatch.setattr(agreement, "flock_fault", lambda folder: "it is broken")
    with pytest.raises(ConfigError, match="does not work here: it is broken"):
        agree(tmp_path)
    agree(tmp_path / "other")
    assert (tmp_path / "other/.locks").read_text() == "files 180"
    assert isinstance(lock_of(tmp_path / "other/experiment/run"), LockFile)
    assert isinstance(lock_of(tmp_path / "experiment/run"), Flock)
    (tmp_path / ".locks").write_text("perhaps")
    with pytest.raises(ConfigError, match="must hold 'flock' or 'files SECONDS', not 'perhaps'"):
        lock_of(tmp_path / "experiment/run")


def test_processes_that_agree_at_once_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = iter([None, "broken"] * 8)
    monkeypatch.setattr(agreement, "flock_fault", lambda folder: next(faults))
    problems = []

    def one() -> None:
        try:
            agreement._agree.__wrapped__(tmp_path, "auto")
        except ConfigError as error:
            problems.append(str(error))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / ".locks").read_text() in ("flock", "files 180")
    assert all("does not work here" in problem for problem in problems)


def test_flock_is_tested_by_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert agreement.flock_fault(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    for answers, fault in (([0], "a second process got the lock"), ([4], "could not use flock"), ([3, 3], "could not")):
        agreement.flock_fault.cache_clear()
        given = iter(answers)
        monkeypatch.setattr(agreement, "_try_elsewhere", lambda path, given=given: next(given))
        assert fault in str(agreement.flock_fault(tmp_path))


@pytest.mark.parametrize(
    ("options", "local"),
    [
        ("rw,relatime,vers=4.2,local_lock=none", False),
        ("rw,vers=3,nolock,proto=tcp", True),
        ("rw,vers=3,local_lock=flock,addr=1.2.3.4", True),
        ("rw,vers=3,local_lock=posix", False),
        ("rw,localflock,lazystatfs", True),
    ],
)
def test_mounts_whose_flock_other_machines_do_not_see(
    options: str, local: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "_mount_options", lambda folder: options)
    assert (agreement.flock_fault(tmp_path) is not None) == local


def test_the_options_are_those_of_the_mount_below_which_the_folder_lies() -> None:
    assert "rw" in agreement._mount_options(Path("/proc/self")).split(",")


def test_an_owner_on_this_machine_is_known_to_be_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert Owner(pid=process.pid).is_gone()
    assert not Owner().is_gone()
    assert not Owner(pid=process.pid, machine="another").is_gone()


def test_a_heartbeat_notices_that_the_lock_was_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a process that was never late, for instance after its clock jumped."""
    monkeypatch.setattr(locks, "_now", lambda: 0.0)
    lock = LockFile(tmp_path, silence=0.5)
    assert lock.acquire()
    lock.verify()
    (tmp_path / ".lock.1").write_text("another's")
    deadline = time.monotonic() + 60
    while not lock._lost and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(LostLockError):
        lock.verify()
    lock.release()
    assert (tmp_path / ".lock.0").exists()  # what was taken over is no longer its own


def test_a_lock_of_the_kernel_that_another_has_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(number: int) -> None:
        def flock(file: int, how: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(locks.fcntl, "flock", flock)

    for number in (errno.EWOULDBLOCK, errno.EACCES):  # as one file system or another says it
        answer(number)
        assert not locks.try_flock(0, 0)
    answer(errno.ENOLCK)
    with pytest.raises(OSError, match="No locks"):
        locks.try_flock(0, 0)
