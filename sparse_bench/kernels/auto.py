"""Which way of computing a sparse product is fastest here: measured once, remembered on disk.

A choice holds for a shape, a density and a number of tokens (both rounded), a dtype, a device and a number of threads,
on a GPU also for torch's switches of precision and determinism.
It is kept in the user's cache directory, so that every run and every resumption on one machine computes alike.
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
#: Seconds after which a candidate is not measured again.
_LONG_ENOUGH = 0.5

_log = logging.getLogger(__name__)
_remembered: dict[str, str] = {}
#: The choices that the present run has made, by subject.
_used: dict[str, str] = {}
_paused: ContextVar[bool] = ContextVar("paused", default=False)


class Setting(NamedTuple):
    """What a choice depends on besides the structure."""

    power: int  # tokens are rounded up to this power of two
    dtype: torch.dtype
    device: torch.device
    threads: int
    modes: str  # of a GPU: what of torch's switches says which products it takes

    @classmethod
    def of(cls, x: Tensor) -> "Setting":
        """The setting of an input [..., features], under the present autocast."""
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
    """The candidate that takes the least time.

    The answer is the same with and without gradients, so that evaluation computes as training did. No gradient
    outlives the measurement.

    Args:
        structure: keeps the answer until it is rewired.
        setting: what else the answer depends on, quick to compare.
        subject: the same and the structure in words, rounded: what the answer is kept under on disk.
        candidates: ways of computing.
        prepare: makes what is timed: ``trial(candidate)`` does one forward and backward pass, draws no random number,
            and raises RuntimeError where a way does not work here.
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
    """A run begins, or goes on with the ``choices`` that it has made, wherever it made them."""
    _used.clear()
    _used.update(choices)
    _remembered.update(choices)


def used() -> dict[str, str]:
    """The choices of the run that began last: subject → way of computing."""
    return dict(_used)


@contextmanager
def paused() -> Iterator[None]:
    """Nothing is timed or remembered here, and the first candidate does: for whoever looks on at single products, or
    has switched off what they are usually computed with."""
    token = _paused.set(True)
    try:
        yield
    finally:
        _paused.reset(token)


def rounded_density(structure: SparseStructure) -> str:
    """The density as a power of two in steps of a half."""
    return f"2^{round(2 * math.log2(structure.density)) / 2}" if structure.entries else "0"


def cache_file() -> Path:
    """Where choices are kept."""
    return cache_directory() / "auto.json"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _modes() -> str:
    rounded = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    repeatable = torch.are_deterministic_algorithms_enabled()
    return (" tf32" if rounded else "") + (" deterministic" if repeatable else "")


@cache
def machine() -> str:
    """Hash of everything else that a measurement depends on."""
    return hashlib.sha256("\0".join([processor(), torch.__version__, source_hash()]).encode()).hexdigest()[:12]


def _recall(key: str, candidates: Sequence[str]) -> str | None:
    execution = _chosen(_read(), key)
    if execution is None or execution not in candidates:
        return None
    _log.info("sparse product %s: %s (measured before)", key, execution)
    return execution


def _chosen(content: dict[str, Any], key: str) -> str | None:
    """The choice that the file's content has for ``key``; None, with a word, of an entry that is none."""
    entry = content.get(key)
    execution = entry.get("execution") if isinstance(entry, dict) else None
    if entry is not None and not isinstance(execution, str):
        _log.warning("%s in %s is no choice, and is measured again", key, cache_file())
        return None
    return execution


# In inference mode too a backward pass is timed, which takes tensors that were made outside of it.
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
        except (RuntimeError, MemoryError) as error:  # a device or dtype that this way does not know, or too large
            failures[execution] = str(error).splitlines()[0]
    if not seconds:
        raise RuntimeError(f"no way of computing the sparse product works on {device}: {failures}")
    fastest = min(seconds, key=lambda execution: seconds[execution])
    figures = ", ".join(f"{execution} {1e3 * second:.3g} ms" for execution, second in seconds.items())
    failed = "".join(f", {execution} failed ({why})" for execution, why in failures.items())
    _log.info("sparse product %s: %s (%s%s)", key, fastest, figures, failed)
    return _remember(key, {"execution": fastest, "seconds": seconds}, candidates)


def _time(trial: Callable[[str], object], execution: str, device: torch.device) -> float:
    """Seconds of one forward and backward pass: the least of a few, after one that does not count."""
    best = math.inf
    for repetition in range(_REPETITIONS + 1):
        _synchronize(device)
        start = time.perf_counter()
        with torch.enable_grad():
            trial(execution)
        _synchronize(device)
        elapsed = time.perf_counter() - start
        if not repetition:
            continue  # it may have compiled a kernel
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
    """Add one choice to the file, unless another process has chosen in the meantime: then that choice holds here too,
    so that a run computes alike in whichever process it goes on. Returns the choice that holds."""
    try:
        path = cache_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            content = _read()
            earlier = _chosen(content, key)
            if earlier in candidates:
                return str(earlier)
            temporary = path.with_suffix(".tmp")  # under the lock no other process writes it
            with temporary.open("w") as file:
                json.dump({**content, key: entry}, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    except (OSError, BuildError) as error:
        _log.warning("the choice for %s cannot be kept: %s", key, error)
    return str(entry["execution"])
