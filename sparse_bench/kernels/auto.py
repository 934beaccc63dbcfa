"""Choose the fastest way to compute a sparse product on this machine: measured once, remembered on disk.

A choice holds for a shape, a density, a number of tokens, a dtype, a device and a number of threads. Density and tokens
are rounded. On a GPU a choice also depends on torch's settings for TF32 and for deterministic algorithms.
Choices are kept in the user's cache directory, so that all runs on one machine compute in the same way.
"""

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock
from torch import Tensor

from sparse_bench.kernels.build import BuildError, cache_directory, processor, source_hash
from sparse_bench.kernels.structure import SparseStructure

_REPETITIONS = 3
#: A candidate that takes longer than so many seconds is not timed again.
_LONG_ENOUGH = 0.5

_log = logging.getLogger(__name__)
_remembered: dict[str, str] = {}
#: The choices of the current run, by subject.
_used: dict[str, str] = {}
_paused: ContextVar[bool] = ContextVar("paused", default=False)


class Setting(NamedTuple):
    """What a choice depends on, apart from the structure."""

    power: int  # exponent: the number of tokens is rounded up to 2^power
    dtype: torch.dtype
    device: torch.device
    threads: int
    modes: str  # on a GPU: torch's settings that decide which products it uses; else empty

    @classmethod
    def of(cls, x: Tensor) -> "Setting":
        """The setting of an input [..., features], under the current autocast state."""
        autocast = torch.is_autocast_enabled(x.device.type)
        dtype = torch.get_autocast_dtype(x.device.type) if autocast else x.dtype
        power = max(0, x.shape[:-1].numel() - 1).bit_length()
        return cls(power, dtype, x.device, torch.get_num_threads(), _modes() if x.is_cuda else "")

    def __str__(self) -> str:
        place = f"cpu {self.threads} threads" if self.device.type == "cpu" else _device_name(self.device)
        return f"tokens 2^{self.power} {str(self.dtype).removeprefix('torch.')} {place}{self.modes} {machine()}"


def choose(
    structure: SparseStructure,
    setting: Hashable,
    subject: Callable[[], str],
    candidates: Callable[[], Sequence[str]],
    prepare: Callable[[], Callable[[str], object]],
) -> str:
    """Return the candidate that takes the least time.

    The answer is the same with and without gradients, so that evaluation computes in the same way as training. The
    measurement leaves no gradients behind.

    Args:
        structure: keeps the answer until it is rewired.
        setting: everything else that the answer depends on, in a form that is quick to compare.
        subject: returns the key on disk: a rounded description of the structure and the setting.
        candidates: returns the ways to compute; the first is used while measurements are :func:`paused`.
        prepare: returns the function to time. ``trial(candidate)`` does one forward and one backward pass and draws no
            random numbers. It raises RuntimeError where a candidate does not work here.

    Raises:
        RuntimeError: no candidate works on this device.
    """
    if _paused.get():
        return candidates()[0]
    chosen: dict[Hashable, str] = structure.derived("auto", dict)
    if setting not in chosen:
        key, ways = subject(), candidates()
        if _remembered.get(key) not in ways:
            _remembered[key] = _recall(key, ways) or _measure(key, ways, prepare, structure.column.device)
        chosen[setting] = _used[key] = _remembered[key]
    return chosen[setting]


def begin(choices: Mapping[str, str]) -> None:
    """Start a run with its earlier ``choices``, which another machine may have made; empty for a new run."""
    _used.clear()
    _used.update(choices)
    _remembered.update(choices)


def used() -> dict[str, str]:
    """The choices of the current run: subject → way of computing."""
    return dict(_used)


@contextmanager
def paused() -> Iterator[None]:
    """Time and remember nothing within this context; :func:`choose` returns the first candidate.

    For counting operations, and for products on a few examples.
    """
    token = _paused.set(True)
    try:
        yield
    finally:
        _paused.reset(token)


def rounded_density(structure: SparseStructure) -> str:
    """The density as a power of two, with the exponent rounded to a multiple of 0.5."""
    return f"2^{round(2 * math.log2(structure.density)) / 2}" if structure.entries else "0"


def cache_file() -> Path:
    """The file that holds the choices."""
    return cache_directory() / "auto.json"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _modes() -> str:
    rounded = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    repeatable = torch.are_deterministic_algorithms_enabled()
    return (" tf32" if rounded else "") + (" deterministic" if repeatable else "")


@cache
def machine() -> str:
    """Hash of the processor, torch's version and the kernel's sources, which measurements depend on too."""
    return hashlib.sha256("\0".join([processor(), torch.__version__, source_hash()]).encode()).hexdigest()[:12]


def _recall(key: str, candidates: Sequence[str]) -> str | None:
    execution = _chosen(_read(), key)
    if execution is None or execution not in candidates:
        return None
    _log.info("sparse product %s: %s (measured before)", key, execution)
    return execution


def _chosen(content: dict[str, Any], key: str) -> str | None:
    """The choice for ``key`` in the file's content; None if there is none, with a warning if it is malformed."""
    entry = content.get(key)
    execution = entry.get("execution") if isinstance(entry, dict) else None
    if entry is not None and not isinstance(execution, str):
        _log.warning("the entry %s in %s is malformed and is measured again", key, cache_file())
        return None
    return execution


# A backward pass is timed also when the caller is in inference mode; it needs tensors made outside that mode.
@torch.inference_mode(False)
def _measure(
    key: str, candidates: Sequence[str], prepare: Callable[[], Callable[[str], object]], device: torch.device
) -> str:
    trial = prepare()
    seconds: dict[str, float] = {}
    failures: dict[str, str] = {}
    for execution in candidates:
        try:
            seconds[execution] = _time(trial, execution, device)
        except (RuntimeError, MemoryError) as error:  # an unsupported device or dtype, or too little memory
            failures[execution] = str(error).splitlines()[0]
    if not seconds:
        raise RuntimeError(f"no way to compute the sparse product works on {device}: {failures}")
    fastest = min(seconds, key=lambda execution: seconds[execution])
    figures = ", ".join(f"{execution} {1e3 * second:.3g} ms" for execution, second in seconds.items())
    failed = "".join(f", {execution} failed ({why})" for execution, why in failures.items())
    _log.info("sparse product %s: %s (%s%s)", key, fastest, figures, failed)
    return _remember(key, {"execution": fastest, "seconds": seconds}, candidates)


def _time(trial: Callable[[str], object], execution: str, device: torch.device) -> float:
    """Seconds of one forward and backward pass: the minimum of a few, after one warm-up that does not count."""
    best = math.inf
    for repetition in range(_REPETITIONS + 1):
        _synchronize(device)
        start = time.perf_counter()
        with torch.enable_grad():
            trial(execution)
        _synchronize(device)
        elapsed = time.perf_counter() - start
        if not repetition:
            continue  # the warm-up may have compiled a kernel
        best = min(best, elapsed)
        if elapsed > _LONG_ENOUGH:
            break
    return best


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _read() -> dict[str, Any]:
    try:
        content = json.loads(cache_file().read_text())
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, found {type(content).__name__}")
        return content
    except (FileNotFoundError, BuildError):
        return {}
    except (OSError, ValueError) as error:
        _log.warning("the choices in %s cannot be read and are measured again: %s", cache_file(), error)
        return {}


def _remember(key: str, entry: dict[str, Any], candidates: Sequence[str]) -> str:
    """Add one choice to the file, and return the choice that holds.

    If another process has stored one in the meantime, that one holds, so that a run can continue in any process.
    """
    try:
        path = cache_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            content = _read()
            earlier = _chosen(content, key)
            if earlier in candidates:
                return str(earlier)
            temporary = path.with_suffix(".tmp")  # the lock keeps other processes from writing it
            with temporary.open("w") as file:
                json.dump({**content, key: entry}, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    except (OSError, BuildError) as error:
        _log.warning("the choice for %s cannot be stored: %s", key, error)
    return str(entry["execution"])
