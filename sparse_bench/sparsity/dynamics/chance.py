"""Draws without replacement, with probabilities in proportion to given scores.

The highest n of log s + g, with independent Gumbel noise g, are such a draw of n (Efraimidis & Spirakis 2006; Kool et
al. 2019, "Stochastic beams and where to find them"). So a draw is a ranking by noisy scores.
"""

import numpy as np
import torch
from torch import Generator

#: Far below the logarithm of every score. Noise of a few tens keeps eight digits when it is added.
_LAST = -1e8


def noisy(scores: np.ndarray, generator: Generator, power: float = 1.0) -> np.ndarray:
    """Keys [n], float64, whose highest ones are a draw in proportion to ``scores`` [n] to the ``power``.

    Where the score is zero, the key is below all others. Among these, the order is uniformly random.
    """
    noise = -torch.empty(scores.shape, dtype=torch.float64).exponential_(generator=generator).log().numpy()
    known = scores > 0
    logarithms = np.log(scores, out=np.zeros(scores.shape), where=known, dtype=np.float64)
    return np.where(known, power * logarithms, _LAST) + noise


def zeros_last(scores: np.ndarray, generator: Generator) -> np.ndarray:
    """Keys [n], float64, with the order of ``scores`` [n] of zero or more; those of zero are in random order."""
    noise = torch.rand(scores.shape, dtype=torch.float64, generator=generator).numpy()
    return np.where(scores > 0, scores, noise - 1.0)
