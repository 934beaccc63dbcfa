"""Processes that carry out the jobs of a sweep, each one job after another. One that dies takes only its own job along.

Joblib's pool ends all its processes when one of them dies, and drops what waits.
"""

import ctypes
import logging
import multiprocessing
import os
import platform
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import cloudpickle
from tqdm import tqdm

#: So often is a job begun whose process dies.
_ATTEMPTS = 2
#: An option of Linux's prctl (sys/prctl.h): the signal that a process gets when its parent ends.
_PR_SET_PDEATHSIG = 1
#: Seconds that a process has to end when it is told to.
_PATIENCE = 10.0

logger = logging.getLogger(__name__)

Job = Callable[[], Any]


def carry_out(jobs: Sequence[Job], processes: int, instead: Callable[[int, str], Job]) -> list[Any]:
    """The results of ``jobs``, in their order.

    A job whose process dies, killed by the system for its memory say, is begun again when all others have begun. If
    it dies again, the job that takes its place gives its result.

    Args:
        jobs: what to do; anything that cloudpickle takes.
        processes: how many there are at most.
        instead: the number of a job whose process died each time, and the reason → the job in its place.

    Raises:
        RuntimeError: the process of that one died, too.
    """
    todo = dict(enumerate(jobs))
    waiting = deque(todo)
    results: dict[int, Any] = {}
    deaths: Counter[int] = Counter()
    workers: list[_Worker] = []
    try:
        while len(results) < len(jobs):
            while waiting and (worker := _free(workers, processes)):
                if worker.begin(waiting[0], todo[waiting[0]]):
                    waiting.popleft()
                else:
                    workers.remove(worker)
            busy = {worker.connection: worker for worker in workers if worker.job is not None}
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                job = worker.job
                assert job is not None
                try:
                    results[job] = worker.result()
                except (EOFError, OSError):
                    workers.remove(worker)
                    reason = worker.cause_of_death()
                    deaths[job] += 1
                    if deaths[job] > _ATTEMPTS:
                        raise RuntimeError(f"Job {job}: {reason}, {deaths[job]} times.") from None
                    again = deaths[job] < _ATTEMPTS
                    logger.warning("Job %d: %s. %s", job, reason, "It goes on after the others." if again else "")
                    if not again:
                        todo[job] = instead(job, f"{reason}, {deaths[job]} times")
                    waiting.append(job)
    finally:
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.wait()
    return [results[number] for number in range(len(jobs))]


class _Worker:
    """One process, and the number of the job that it does, None if it waits for one."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.job: int | None = None
        self.process = context.Process(target=_work, args=(theirs,))
        self.process.start()
        theirs.close()  # so that the connection ends with the process

    def begin(self, number: int, job: Job) -> bool:
        """Start a job; False if the process has died while it waited."""
        try:
            self.connection.send_bytes(cloudpickle.dumps(job))
        except OSError:
            return False
        self.job = number
        return True

    def result(self) -> Any:
        """What the job gave.

        Raises:
            EOFError, OSError: the process died.
        """
        self.job, result = None, self.connection.recv()
        return result

    def cause_of_death(self) -> str:
        """Why the process ended, once it has."""
        self.process.join()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"its process ended with exit status {code}"
        hint = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
        return f"its process was killed by {signal.Signals(-code).name}{hint}"

    def stop(self) -> None:
        """Tell the process to end, also in the middle of a job."""
        self.connection.close()  # which one that waits takes as the end
        if self.job is not None:
            self.process.terminate()

    def wait(self) -> None:
        """See to it that the process has ended."""
        self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _free(workers: list[_Worker], most: int) -> _Worker | None:
    """A process that waits, a new one if there may be more, else None."""
    for worker in workers:
        if worker.job is None:
            return worker
    if len(workers) == most:
        return None
    workers.append(_Worker())
    return workers[-1]


def _work(connection: Connection) -> None:
    """What a process does: one job after another, until the other end of the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes, and the parent then ends the others
    _end_with_parent()
    tqdm.set_lock(threading.RLock())  # its own is one of the system's, which would stay behind where this is killed
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send_bytes(cloudpickle.dumps(job()))


def _end_with_parent() -> None:
    """Have this process ended by the system when its parent ends, however that ends (Linux only)."""
    parent = multiprocessing.parent_process()
    if platform.system() != "Linux" or parent is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent.pid:  # it had ended before the system was told
        sys.exit(128 + signal.SIGTERM)
