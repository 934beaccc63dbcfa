"""How much of batches is padding."""

import numpy as np


def padding_share(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    """Share of cells that hold no token when each batch is padded to its longest sentence; lengths [n]."""
    cells = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return 1 - int(sum(lengths[batch].sum() for batch in batches)) / cells
