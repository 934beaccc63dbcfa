"""Choose the places of new connections, given the free places of a layer and the number of new connections.

A place whose connection has just been removed counts as free.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from sparse_bench.sparsity.dynamics.drop import lowest, on_host
from sparse_bench.sparsity.topology import apportion

#: Share of its free places that a layer may grow while other layers have room.
_MOST = 0.99


@dataclass(frozen=True)
class Room:
    """The places of a layer, where connections can grow; a place is an index into the flattened matrix.

    Attributes:
        occupied: where connections are, boolean [out, in].
        free: number of places without a connection.
        score: score of each place [size], higher ones grow first; None if the growth uses no scores.
        generator: for random growth, on the CPU, so that every device gets the same connections.
    """

    occupied: Tensor
    free: int
    score: Tensor | None
    generator: Generator


#: (room, count) → ``count`` different free places, int64 [count], on the device of the room.
Grow = Callable[[Room, int], Tensor]


def random_free(room: Room, count: int) -> Tensor:
    """Choose ``count`` free places uniformly at random, int64 [count].

    Places are drawn until enough free ones have been hit. If more than half of the free places are needed, they are
    listed and shuffled instead.

    Raises:
        ValueError: there are fewer free places than ``count``.
    """
    # NumPy is faster than torch in all of these operations.
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
        # Draw only as many places as are missing, so that no surplus has to be dropped, which would bias the choice.
        drawn = np.sort(torch.randint(occupied.size, (missing,), generator=generator).numpy())
        fresh = ~taken[drawn]
        fresh[1:] &= drawn[1:] != drawn[:-1]
        found.append(drawn[fresh])
        taken[found[-1]] = True
        missing -= found[-1].size
    return np.concatenate(found)


def shared(importance: Sequence[float], total: int, rooms: Sequence[int]) -> list[int]:
    """Share ``total`` new connections among layers in proportion to their importance.

    A layer grows at most 99 % of its free places; what it cannot take is shared among the others in the
    same way. If all layers together cannot take it so, they may be filled entirely. Where no layer has any importance,
    the free places count.

    Args:
        importance: of each layer, at least 0.
        total: number of new connections, at most the sum of ``rooms``.
        rooms: number of free places of each layer.

    Returns:
        The number of new connections of each layer; they sum to ``total``.
    """
    limits = [int(_MOST * room) for room in rooms]
    if sum(limits) < total:
        limits = list(rooms)
    full = set[int]()
    while True:
        free = [layer for layer in range(len(rooms)) if layer not in full]
        rest = total - sum(limits[layer] for layer in full)
        known = importance if sum(importance[layer] for layer in free) > 0 else limits
        whole = sum(known[layer] for layer in free)
        shares = [float(limit) for limit in limits]
        for layer in free:
            shares[layer] = rest * known[layer] / whole if whole else 0.0
        over = {layer for layer in free if shares[layer] > limits[layer]}
        if not over:
            return apportion(shares, total, limits)
        full |= over


def highest_score(room: Room, count: int) -> Tensor:
    """Choose the ``count`` free places of highest score, int64 [count]; RigL's score is the gradient's magnitude.

    Raises:
        ValueError: there is no score, or there are fewer free places than ``count``.
    """
    if room.score is None:
        raise ValueError("this growth needs a score for each place, and none was given")
    places = np.flatnonzero(~room.occupied.cpu().numpy())
    chosen = lowest(-on_host(room.score)[places], count)
    return torch.from_numpy(places[chosen]).to(room.occupied.device)
