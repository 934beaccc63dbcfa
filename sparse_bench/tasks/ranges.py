"""Numbers of the tokens, or other parts, of chosen texts in an array that holds those of all."""

import numpy as np


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """start, start + 1, …, start + count - 1 for each pair in turn [sum of counts], int64."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())
