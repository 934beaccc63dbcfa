"""Which way of computing a sparse product is fastest here: measured once, remembered on disk.

A choice holds for a shape, a density and a number of tokens (both rounded), a dtype, a device and a number of threads.
It is kept in the user's cache directory, so that every run and every resumption on one machine computes alike.
"""

import fcntl
import hashlib
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparse_bench.sparsity.kernels.build import cache_directory, processor, source_hash
from sparse_bench.sparsity.kernels.structure import SparseStructure

_REPETITIONS = 3
#: Seconds after which a candidate is not measured again.
_LONG_ENOUGH = 0.5

_log = logging.getLogger(__name__)
_remembered: dict[str, str] = {}


def choose(
    x: Tensor,
    structure: SparseStructure,
    values: Tensor,
    bias: Tensor | None,
    candidates: Sequence[str],
    compute: Callable[..., Tensor],
) -> str:
    """The fastest of ``candidates`` for a training step: ``compute(x, structure, values, bias, candidate)`` and back.

    The answer is the same with and without gradients, so that evaluation computes as training did. No random number
    is drawn and no gradient outlives the measurement.
    """
    tokens = x.numel() // max(1, structure.in_features)
    autocast = torch.is_autocast_enabled(x.device.type)
    dtype = torch.get_autocast_dtype(x.device.type) if autocast else x.dtype
    threads = torch.get_num_threads()
    power = max(0, tokens - 1).bit_length()
    chosen: dict[Any, str] = structure.derived("auto", dict)
    short_key = (power, dtype, x.device, threads)
    if short_key not in chosen:
        key = _key(structure, power, dtype, x.device, threads)
        if key not in _remembered:
            _remembered[key] = _recall(key, candidates) or _measure(
                key, structure, values, bias, 2**power, candidates, compute
            )
        chosen[short_key] = _remembered[key]
    return chosen[short_key]


def cache_file() -> Path:
    """Where choices are kept."""
    return cache_directory() / "auto.json"


def _key(structure: SparseStructure, power: int, dtype: torch.dtype, device: torch.device, threads: int) -> str:
    density = round(2 * math.log2(structure.density)) / 2 if structure.entries else "-inf"
    place = f"cpu {threads} threads" if device.type == "cpu" else _device_name(device)
    return (
        f"{structure.out_features}x{structure.in_features} density 2^{density} tokens 2^{power} "
        f"{str(dtype).removeprefix('torch.')} {place} {_machine()}"
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@cache
def _machine() -> str:
    """Hash of everything else that a measurement depends on."""
    return hashlib.sha256("\0".join([processor(), torch.__version__, source_hash()]).encode()).hexdigest()[:12]


def _recall(key: str, candidates: Sequence[str]) -> str | None:
    execution = _read().get(key, {}).get("execution")
    if execution not in candidates:
        return None
    _log.info("sparse product %s: %s (measured before)", key, execution)
    return str(execution)


def _measure(
    key: str,
    structure: SparseStructure,
    values: Tensor,
    bias: Tensor | None,
    tokens: int,
    candidates: Sequence[str],
    compute: Callable[..., Tensor],
) -> str:
    x = torch.full((tokens, structure.in_features), 0.5, dtype=values.dtype, device=values.device, requires_grad=True)
    leaves = [x, values.detach().clone().requires_grad_()]
    if bias is not None:
        leaves.append(bias.detach().clone().requires_grad_())
    seconds: dict[str, float] = {}
    failures: dict[str, str] = {}
    for execution in candidates:
        try:
            seconds[execution] = _time(leaves, structure, execution, compute)
        except (RuntimeError, NotImplementedError) as error:  # a device or dtype that this way does not know
            failures[execution] = str(error).splitlines()[0]
    if not seconds:
        raise RuntimeError(f"no way of computing the sparse product works on {values.device}: {failures}")
    fastest = min(seconds, key=lambda execution: seconds[execution])
    figures = ", ".join(f"{execution} {1e3 * second:.3g} ms" for execution, second in seconds.items())
    failed = "".join(f", {execution} failed ({why})" for execution, why in failures.items())
    _log.info("sparse product %s: %s (%s%s)", key, fastest, figures, failed)
    return _remember(key, {"execution": fastest, "seconds": seconds}, candidates)


def _time(leaves: list[Tensor], structure: SparseStructure, execution: str, compute: Callable[..., Tensor]) -> float:
    """Seconds of one forward and backward pass: the least of a few, after one that does not count."""
    x, values, *rest = leaves
    best = math.inf
    for repetition in range(_REPETITIONS + 1):
        _synchronize(x.device)
        start = time.perf_counter()
        with torch.enable_grad():
            y = compute(x, structure, values, rest[0] if rest else None, execution)
            torch.autograd.grad(y, leaves, torch.ones_like(y))
        _synchronize(x.device)
        elapsed = time.perf_counter() - start
        if repetition or elapsed > _LONG_ENOUGH:
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
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        _log.warning("the choices in %s cannot be read and are measured again: %s", cache_file(), error)
        return {}
    return content if isinstance(content, dict) else {}


def _remember(key: str, entry: dict[str, Any], candidates: Sequence[str]) -> str:
    """Add one choice to the file, unless another process has chosen in the meantime: then that choice holds here too,
    so that a run computes alike in whichever process it goes on. Returns the choice that holds."""
    path = cache_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            content = _read()
            earlier = content.get(key, {}).get("execution")
            if earlier in candidates:
                return str(earlier)
            with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".json", delete=False) as file:
                json.dump({**content, key: entry}, file, indent=1, sort_keys=True)
            os.replace(file.name, path)  # noqa: PTH105 - a temporary file's name is a string
    except OSError as error:
        _log.warning("the choice for %s cannot be kept in %s: %s", key, path, error)
    return str(entry["execution"])
