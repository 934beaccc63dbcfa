"""Errors that a user can act on. Each message names the problem and the valid choices."""

from collections.abc import Iterable
from difflib import get_close_matches


class SparseBenchError(Exception):
    """Base of every error that the project raises on purpose."""


class ConfigError(SparseBenchError):
    """A configuration cannot be run. Raised before any work is done."""


class DataError(SparseBenchError):
    """A corpus is missing, is incomplete, or does not match its checksum."""


class CheckpointError(SparseBenchError):
    """A checkpoint or result cannot be read, or belongs to another run."""


class NonFiniteLossError(SparseBenchError):
    """Training diverged: the loss is no longer a finite number."""


class KilledError(SparseBenchError):
    """The process of a run died at every attempt."""


class LostLockError(SparseBenchError):
    """Another process has taken over the run that this one works on."""


def unknown_choice(kind: str, given: object, valid: Iterable[str]) -> str:
    """An error message that names the given value, the nearest valid choice and all valid choices."""
    choices = sorted(valid)
    near = get_close_matches(str(given), choices, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"Unknown {kind} '{given}'.{hint} Valid choices: {', '.join(choices) or '(none)'}."


def shortened(value: object) -> str:
    """The ``repr`` of a value, cut to at most 80 characters for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
