"""Which connections come. A function of the free places of a layer and of the number of new connections.

A place whose connection has just been removed is free like any other.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from sparse_bench.sparsity.dynamics.drop import lowest, on_host


@dataclass(frozen=True)
class Room:
    """Where a layer can grow.

    Attributes:
        occupied: where a connection is, boolean [out, in]; places are those of the flattened matrix.
        free: number of the other places.
        score: how much a connection is wanted at each place [size]; None for a growth that asks for none.
        generator: for random growth, on the CPU, so that a device of any kind gets the same connections.
    """

    occupied: Tensor
    free: int
    score: Tensor | None
    generator: Generator


#: (room, count) → that many free places, int64, each once, on the device of the room.
Grow = Callable[[Room, int], Tensor]


def random_free(room: Room, count: int) -> Tensor:
    """Uniformly at random.

    Places are drawn until enough free ones have been hit; where free places are scarce, they are listed and shuffled
    instead.

    Raises:
        ValueError: there are fewer free places than ``count``.
    """
    # In NumPy, which is faster than torch at all of this.
    occupied = room.occupied.cpu().numpy().ravel()
    if count > room.free:
        raise ValueError(f"cannot place {count} connections at {room.free} free places")
    if 2 * count > room.free:
        shuffled = torch.randperm(room.free, generator=room.generator)[:count].numpy()
        places = np.flatnonzero(~occupied)[shuffled]
    else:
        places = _rejection(occupied, count, room.generator)
    return torch.from_numpy(places).to(room.occupied.device)


def _rejection(occupied: np.ndarray, count: int, generator: Generator) -> np.ndarray:
    """Draw places until ``count`` free ones have been hit; int64 [count]."""
    taken, missing = occupied.copy(), count
    found = [np.empty(0, dtype=np.int64)]
    while missing:
        # No more draws than places are missing, so that there are never too many and every draw counts alike.
        drawn = np.sort(torch.randint(occupied.size, (missing,), generator=generator).numpy())
        fresh = ~taken[drawn]
        fresh[1:] &= drawn[1:] != drawn[:-1]
        found.append(drawn[fresh])
        taken[found[-1]] = True
        missing -= found[-1].size
    return np.concatenate(found)


def highest_score(room: Room, count: int) -> Tensor:
    """Where the score is highest: the dense gradient's magnitude, in RigL.

    Raises:
        ValueError: there is no score, or there are fewer free places than ``count``.
    """
    if room.score is None:
        raise ValueError("this growth ranks free places by a score, and none was given")
    places = np.flatnonzero(~room.occupied.cpu().numpy())
    chosen = lowest(-on_host(room.score)[places], count)
    return torch.from_numpy(places[chosen]).to(room.occupied.device)
