"""Indices of the tokens of chosen texts in an array that holds the tokens of all texts."""

import numpy as np


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Concatenate start, start + 1, …, start + count - 1 for each pair [sum of counts], int64."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())
