"""Choose the connections to remove, given the existing weights and the fraction of them to remove.

NumPy makes the choice on the CPU, so it is the same on every device. NumPy's partition takes a fifth of torch's time.
Numbers of removed weights are exact. Among equal weights, those that come first in the matrix are removed.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

#: (weights [entries], fraction) → boolean [entries], true for the weights to remove.
Drop = Callable[[np.ndarray, float], np.ndarray]


def on_host(values: Tensor) -> np.ndarray:
    """Convert to a NumPy array of the same shape, in float64 for float64 and in float32 for all other dtypes."""
    known = values if values.dtype in (torch.float32, torch.float64) else values.float()
    return known.detach().cpu().numpy()


def whole(fraction: float, count: int) -> int:
    """``fraction`` · ``count``, rounded to the nearest whole number; a tie goes to the even one."""
    return round(fraction * count)


def lowest(scores: np.ndarray, count: int, positive: int | None = None) -> np.ndarray:
    """Choose exactly ``count`` of the lowest scores; among equal scores, the first.

    Args:
        scores: the scores [n].
        count: how many to choose.
        positive: number of scores above zero, to choose among these alone; None: choose among all.

    Returns:
        Booleans [n], true for the chosen scores.

    Raises:
        ValueError: there are fewer than ``count`` scores, or some are NaN.
    """
    number = scores.size if positive is None else positive
    if not 0 <= count <= number:
        raise ValueError(f"cannot take {count} of {number} scores")
    if count == 0:
        return np.zeros(scores.shape, dtype=bool)
    rank = scores.size - number + count - 1
    if np.isnan(scores).any():
        raise ValueError(f"cannot rank {scores.size} scores, of which {int(np.isnan(scores).sum())} are NaN")
    highest = np.partition(scores, rank)[rank]
    chosen: np.ndarray = scores <= highest
    if number < scores.size:
        chosen &= scores > 0
    surplus = int(np.count_nonzero(chosen)) - count
    if surplus:
        chosen[np.flatnonzero(scores == highest)[-surplus:]] = False
    return chosen


def magnitude(weights: np.ndarray, fraction: float) -> np.ndarray:
    """Remove the fraction of smallest magnitude."""
    return lowest(np.abs(weights), whole(fraction, weights.size))


def of_scores(scores: np.ndarray, fraction: float) -> np.ndarray:
    """Remove the fraction of lowest score, where the scheme ranks connections by scores of its own."""
    return lowest(scores, whole(fraction, scores.size))


def signed_magnitude(weights: np.ndarray, fraction: float) -> np.ndarray:
    """SET: remove the fraction of the positive weights nearest zero, and the same fraction of the negative ones.

    Weights of exactly zero are removed too, as in the original code. The original code removes one positive weight
    more than the fraction, and rounds up among the negative ones. Here both numbers are rounded to the nearest.

    Source: Mocanu et al. 2018, "Scalable training of artificial neural networks with adaptive sparse connectivity
    inspired by network science", algorithm 1.
    """
    removed: np.ndarray = weights == 0
    for side in (weights, -weights):
        number = int(np.count_nonzero(side > 0))
        removed |= lowest(side, whole(fraction, number), positive=number)
    return removed


DROPS: dict[str, Drop] = {"signed_magnitude": signed_magnitude, "magnitude": magnitude}
