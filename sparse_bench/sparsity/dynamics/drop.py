"""Which connections go. A function of a layer's existing weights and of the fraction of them to remove.

It is decided in NumPy, whose partition takes a fifth of the time of torch's, so on every device alike. Numbers of
weights are exact, also where weights are equal: among equals, those that come first in the matrix go.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

#: (weights [entries], fraction) → boolean [entries], true for those to remove.
Drop = Callable[[np.ndarray, float], np.ndarray]


def on_host(values: Tensor) -> np.ndarray:
    """Real numbers of any shape for NumPy, which knows float32 and float64 alone."""
    known = values if values.dtype in (torch.float32, torch.float64) else values.float()
    return known.detach().cpu().numpy()


def whole(fraction: float, count: int) -> int:
    """``fraction`` of ``count`` things, to the nearest whole number; of two equally near, the even one."""
    return round(fraction * count)


def lowest(scores: np.ndarray, count: int, positive: int | None = None) -> np.ndarray:
    """Exactly ``count`` of the lowest ``scores`` [n], as booleans [n]; of equal ones, the first.

    Args:
        scores: in any order.
        count: how many are chosen.
        positive: choose among the scores above zero alone, of which there are so many; None: among all.

    Raises:
        ValueError: There are fewer than ``count``, or some are no numbers.
    """
    number = scores.size if positive is None else positive
    if not 0 <= count <= number:
        raise ValueError(f"cannot take {count} of {number} scores")
    if count == 0:
        return np.zeros(scores.shape, dtype=bool)
    rank = scores.size - number + count - 1
    if np.isnan(scores).any():
        raise ValueError(f"cannot rank {scores.size} scores, of which {int(np.isnan(scores).sum())} are no numbers")
    highest = np.partition(scores, rank)[rank]
    chosen: np.ndarray = scores <= highest
    if number < scores.size:
        chosen &= scores > 0
    surplus = int(np.count_nonzero(chosen)) - count
    if surplus:
        chosen[np.flatnonzero(scores == highest)[-surplus:]] = False
    return chosen


def magnitude(weights: np.ndarray, fraction: float) -> np.ndarray:
    """The fraction of smallest magnitude."""
    return lowest(np.abs(weights), whole(fraction, weights.size))


def signed_magnitude(weights: np.ndarray, fraction: float) -> np.ndarray:
    """SET: the fraction of the positive weights nearest zero, and the fraction of the negative ones nearest zero.

    A weight of exactly zero has no sign; it goes, as in the original code. (That code takes one positive weight more
    than the fraction, and rounds up among the negative ones; here both are rounded to the nearest number.)

    Source: Mocanu et al. 2018, "Scalable training of artificial neural networks with adaptive sparse connectivity
    inspired by network science", algorithm 1.
    """
    removed: np.ndarray = weights == 0
    for side in (weights, -weights):
        number = int(np.count_nonzero(side > 0))
        removed |= lowest(side, whole(fraction, number), positive=number)
    return removed


DROPS: dict[str, Drop] = {"signed_magnitude": signed_magnitude, "magnitude": magnitude}
