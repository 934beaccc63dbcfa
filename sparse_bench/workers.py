"""Worker processes that run the jobs of a sweep, one job after another. A process that dies loses only its own job.

Joblib's pool, in contrast, ends all its processes when one of them dies, and drops the waiting jobs.
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

from sparse_bench import interruption

#: How often a job is tried before a replacement takes its place.
_ATTEMPTS = 2
#: Option of Linux's prctl (sys/prctl.h) that sets the signal a process gets when its parent ends.
_PR_SET_PDEATHSIG = 1
#: Seconds that a process gets to save a checkpoint and end before it is killed; Slurm gives a job 30.
_PATIENCE = 25.0

logger = logging.getLogger(__name__)

Job = Callable[[], Any]


def carry_out(jobs: Sequence[Job], processes: int, instead: Callable[[int, str], Job]) -> list[Any]:
    """Run ``jobs`` in worker processes.

    A process may die, for example because the system killed it when memory ran out. Its job is then tried again, after
    all others have started. If the second process dies too, a replacement job is run and gives the result.

    Args:
        jobs: callables without arguments; cloudpickle must be able to pickle them.
        processes: the largest number of processes at once.
        instead: makes the replacement of a job. It gets the job's number and the reason of the failure.

    Returns:
        The results, in the order of ``jobs``.

    Raises:
        RuntimeError: the process of a replacement died as well.
    """
    todo = dict(enumerate(jobs))
    waiting = deque(todo)
    results: dict[int, Any] = {}
    deaths: Counter[int] = Counter()
    workers: list[_Worker] = []
    try:
        while len(results) < len(jobs):
            # Give each free process a job; one that died while it was idle is removed.
            while waiting and (worker := _free(workers, processes)):
                if worker.begin(waiting[0], todo[waiting[0]]):
                    waiting.popleft()
                else:
                    workers.remove(worker)
            # Collect the results that are ready. A connection also becomes ready when its process dies.
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
                    logger.warning(
                        "Job %d: %s. %s", job, reason, "It is tried again after the others." if again else ""
                    )
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
    """One process, and the number of its current job; None while it is idle."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.job: int | None = None
        self.process = context.Process(target=_work, args=(theirs,))
        self.process.start()
        theirs.close()  # so that the connection ends with the process

    def begin(self, number: int, job: Job) -> bool:
        """Start a job. Returns False if the process died while it was idle."""
        try:
            self.connection.send_bytes(cloudpickle.dumps(job))
        except OSError:
            return False
        self.job = number
        return True

    def result(self) -> Any:
        """Receive the result of the job.

        Raises:
            EOFError, OSError: the process died.
        """
        self.job, result = None, self.connection.recv()
        return result

    def cause_of_death(self) -> str:
        """Wait until the process has ended, and describe why."""
        self.process.join()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"its process ended with exit status {code}"
        hint = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
        return f"its process was killed by {signal.Signals(-code).name}{hint}"

    def stop(self) -> None:
        """Make the process end, even in the middle of a job."""
        self.connection.close()  # an idle process ends when its connection closes; a busy one saves a checkpoint
        if self.job is not None:
            self.process.terminate()

    def wait(self) -> None:
        """Wait for the process to end, and kill it if that takes too long."""
        self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _free(workers: list[_Worker], most: int) -> _Worker | None:
    """An idle process, or a new one if fewer than ``most`` exist, else None."""
    for worker in workers:
        if worker.job is None:
            return worker
    if len(workers) == most:
        return None
    workers.append(_Worker())
    return workers[-1]


def _work(connection: Connection) -> None:
    """Main loop of a process: run one job after another until the other end of the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends the workers
    interruption.catch(signal.SIGTERM, signal.SIGUSR1, quiet=True)
    _end_with_parent()
    tqdm.set_lock(threading.RLock())  # tqdm's default lock is a system semaphore, which a killed process leaks
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            result = job()
        except SystemExit as end:  # a signal; the tidying of an interpreter that has torch takes seconds
            os._exit(end.code if isinstance(end.code, int) else 1)
        connection.send_bytes(cloudpickle.dumps(result))


def _end_with_parent() -> None:
    """Let the system end this process when its parent ends for any reason (Linux only)."""
    parent = multiprocessing.parent_process()
    if platform.system() != "Linux" or parent is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent.pid:  # the parent ended before prctl was called
        sys.exit(128 + signal.SIGTERM)
