"""Checkpoints: everything that an interrupted run needs to end with the same numbers as an uninterrupted one.

A file is written by ``torch.save``. A comment at its end holds the format's version and the SHA-256 of everything
before it, which is verified on reading. A file holds only tensors and plain values, so reading it runs no code.
"""

import hashlib
import io
import logging
import random
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from sparse_bench.errors import CheckpointError
from sparse_bench.record import Origin, differences, write_atomically

logger = logging.getLogger(__name__)

VERSION = 4
#: The first version with a checksum.
_CHECKED = 3

_MARK = b"sparse_bench checkpoint "
#: Length of the comment: the mark, three digits of the version, a space, and the checksum.
_COMMENT = len(_MARK) + 4 + 64
#: Values that are read without running code.
_PLAIN = (type(None), bool, int, float, str, bytes, Tensor, torch.nn.Parameter, torch.dtype, torch.device, torch.Size)


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of every global random generator that a run on ``device`` draws from: torch, CUDA, NumPy, Python."""
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002 - libraries draw from it, so it is part of the state
    assert isinstance(numpy, dict)
    key = torch.from_numpy(numpy["state"]["key"].astype(np.int64))
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": {**numpy, "state": {**numpy["state"], "key": key}},
        "python": random.getstate(),
    }


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Inverse of :func:`random_state`."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    numpy = state["numpy"]
    key = numpy["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": key}})  # noqa: NPY002
    random.setstate(state["python"])


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` atomically.

    Raises:
        CheckpointError: a value is neither a tensor nor plain; the message names it and its place.
    """
    buffer = io.BytesIO()
    torch.save(_plain(state, path.name), buffer)
    # torch writes a zip archive. Its last two bytes are the length of its comment.
    buffer.seek(-2, io.SEEK_END)
    buffer.write(_COMMENT.to_bytes(2, "little"))
    buffer.write(_MARK + b"%03d " % VERSION)
    buffer.write(hashlib.sha256(buffer.getbuffer()).hexdigest().encode())
    write_atomically(path, buffer.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        CheckpointError: the file is damaged, or was written by another version.
    """
    try:
        with path.open("rb") as file:
            _verify(path, file)
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:
        raise _unreadable(path, str(error).partition("\n")[0]) from error
    return state


def fingerprint(tensors: Mapping[str, Any]) -> str:
    """SHA-256 of a model's ``state_dict``, in hexadecimal: the same for equal weights in any file."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        if not isinstance(value, Tensor):
            digest.update(f"{name}\0{value!r}\0".encode())
            continue
        digest.update(f"{name}\0{value.dtype}\0{list(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """A context for loading states from ``path``; turns errors about names and sizes into a CheckpointError.

    Raises:
        CheckpointError: a state does not match the object that loads it.
    """
    try:
        yield
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"{path} does not fit this run, because it was written with other code or data ({reason}). "
            "Train its run from the start, with force=true."
        ) from error


def check_origin(path: Path, then: Origin, now: Origin) -> None:
    """Refuse to continue from ``path`` with other data, other code, or another first training stage.

    Args:
        path: the checkpoint or the weights.
        then: the origin with which ``path`` was written.
        now: the current origin.

    Raises:
        CheckpointError: the origins differ; the message lists the changes and the choices.
    """
    if changed := differences(then, now):
        raise CheckpointError(
            f"{path} was written with other data or code: {changed}. Restore them to continue, or choose another "
            "output, or train its run from the start with force=true. The earlier files are then kept in the folder's "
            ".earlier."
        )


def circumstances(device: torch.device, computed: Mapping[str, str]) -> dict[str, Any]:
    """Everything that changes only the last digits of a run: device, threads, instruction set, torch and kernels."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "torch": str(torch.__version__),
        "computed": dict(computed),
    }


def differ(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether the run in ``folder`` resumes under other :func:`circumstances`; logs a warning if it does."""
    changed = [name for name in then if then[name] != now.get(name)]
    if changed:
        logger.warning(
            "%s began with %s and resumes with %s: its last digits will differ from those of an uninterrupted run",
            folder,
            {name: then[name] for name in changed},
            {name: now.get(name) for name in changed},
        )
    return bool(changed)


def _verify(path: Path, file: BinaryIO) -> None:
    """Check the file's version and checksum, and leave the file at its beginning."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _COMMENT))
    comment = file.read()
    if not comment.startswith(_MARK):
        raise _unreadable(path, f"it has no checksum: it is damaged, or older than version {_CHECKED}")
    version, checksum = comment[len(_MARK) : -64], comment[-64:]
    if version != b"%03d " % VERSION:
        raise CheckpointError(
            f"The checkpoint {path} has version {version.decode(errors='replace').strip(' 0')}, this program writes "
            f"{VERSION}. Train its run from the start, with force=true."
        )
    file.seek(0)
    digest, left = hashlib.sha256(), size - 64
    while left and (piece := file.read(min(left, 1 << 20))):
        digest.update(piece)
        left -= len(piece)
    if digest.hexdigest().encode() != checksum:
        raise _unreadable(path, "it is damaged: its checksum is wrong")
    file.seek(0)


def _unreadable(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"The checkpoint {path} cannot be read ({reason}). Train its run from the start, with force=true."
    )


def _plain(value: Any, place: str) -> Any:
    """The same value with NumPy's numbers converted to Python's.

    Raises:
        CheckpointError: something is neither a tensor nor a plain value.
    """
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in _PLAIN:
        return value
    if type(value) in (list, tuple):
        return type(value)(_plain(part, f"{place}[{number}]") for number, part in enumerate(value))
    if isinstance(value, dict):
        plain = {_plain(key, place): _plain(part, f"{place}[{key!r}]") for key, part in value.items()}
        pairs = zip(plain.items(), value.items(), strict=True)
        kept = type(value) in (dict, OrderedDict) and all(a is c and b is d for (a, b), (c, d) in pairs)
        return value if kept else plain  # keep a model's own dict, which also holds the versions of its layers
    raise CheckpointError(
        f"{place} cannot be saved: it is a {type(value).__module__}.{type(value).__name__}. A state_dict may hold "
        "tensors, numbers, text, None, and lists, tuples and dicts of these."
    )
