"""Signals that ask a process to stop. A run that trains saves a checkpoint first, at its next optimizer step."""

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

#: Ctrl-C; the end of a job or of a preempted one; Slurm's warning that a job's time is nearly over.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

logger = logging.getLogger("sparse_bench")


class _State:
    """What this process has been asked.

    Attributes:
        asked: the signal that asked it to stop; None if none did.
        saves: whether a run trains, and will stop at a moment that it chooses.
        quiet: whether nothing is logged, because the parent process reports it.
        before: the handlers that these signals had before.
    """

    asked: int | None = None
    saves: bool = False
    quiet: bool = False
    before: dict[int, Any]


_state = _State()
_state.before = {}


def catch(*numbers: int, quiet: bool = False) -> None:
    """Let these signals stop the process; to be called in the main thread. With ``quiet`` nothing is logged."""
    _state.quiet = quiet
    for number in numbers:
        before = signal.signal(number, _handle)
        if before is not _handle:
            _state.before[number] = before


@contextmanager
def saving() -> Iterator[Callable[[], bool]]:
    """A context in which a signal does not end the process.

    It yields a function that returns whether a signal has come. Then the run saves, and calls :func:`stop`. A second
    Ctrl-C ends the process at once.
    """
    _state.saves = True
    try:
        yield lambda: _state.asked is not None
    finally:
        _state.saves = False


def stop() -> NoReturn:
    """End the process with 128 plus the number of the signal.

    Where an engine had its own handler for the signal, as submitit to start the job again, that handler is called.
    """
    number = _state.asked
    assert number is not None
    _state.asked, _state.saves = None, False
    before = _state.before.get(number)
    if not _state.quiet:
        logger.error("%s: stopped. The same command resumes from here.", signal.Signals(number).name)
    if callable(before) and before is not signal.default_int_handler:
        before(number, None)
    sys.exit(128 + number)


def _handle(number: int, frame: object) -> None:
    again = _state.asked is not None
    if again and number != signal.SIGINT:
        return  # an engine and the parent process may both tell it
    _state.asked = number
    if again or not _state.saves:
        stop()
    if not _state.quiet:
        logger.warning("%s: stops after a checkpoint", signal.Signals(number).name)
