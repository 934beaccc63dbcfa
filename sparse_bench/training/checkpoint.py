"""Checkpoints: everything that an interrupted run needs to end with the numbers it would have had."""

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparse_bench.errors import CheckpointError
from sparse_bench.record import write_atomically

VERSION = 2


def random_state(device: torch.device) -> dict[str, Any]:
    """State of every global random generator (the noise stream) that a run on ``device`` draws from."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": np.random.get_state(),  # noqa: NPY002 - libraries draw from it, so it is part of the state
        "python": random.getstate(),
    }


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Inverse of :func:`random_state`."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    np.random.set_state(state["numpy"])  # noqa: NPY002
    random.setstate(state["python"])


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` atomically."""
    buffer = io.BytesIO()
    torch.save({"version": VERSION, **state}, buffer)
    write_atomically(path, buffer.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        CheckpointError: the file is damaged or was written by another version.
    """
    try:
        # Our own file: it holds optimizer and generator states, which are more than plain tensors.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise CheckpointError(
            f"The checkpoint {path} cannot be read ({error}). Delete it to train this run from the start."
        ) from error
    version = state.get("version") if isinstance(state, dict) else None
    if version != VERSION:
        raise CheckpointError(
            f"The checkpoint {path} has version {version}, this program writes {VERSION}. "
            "Delete it to train this run from the start."
        )
    return state
