"""Summarise the weights of the selected layers: a histogram, and a coarse map of each matrix."""

import math
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from torch import Tensor, nn

from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.sparsity.weights import SparseWeight

#: A weight of smaller magnitude is small, as in SparseLang's Figure 3; about 75 % of its dense baseline's weights are.
SMALL = 0.07
#: Number of bins of a histogram, and of cells along a side of a map.
_BINS, _CELLS = 81, 48


def share_below(weights: dict[str, Tensor], magnitude: float = SMALL) -> float:
    """Share of the existing weights whose magnitude is below ``magnitude``; 0 if there are none."""
    total = sum(values.numel() for values in weights.values())
    small = sum(int((values.abs() < magnitude).sum()) for values in weights.values())
    return small / total if total else 0.0


def existing_weights(model: nn.Module, scheme: Scheme) -> dict[str, Tensor]:
    """Selected layer → its existing weights [entries], float32, on the CPU."""
    found = {}
    for name in scheme.selected:
        weight = scheme.weights.get(name)
        values = weight.entries()[1] if weight is not None else model.get_parameter(name).detach().flatten()
        found[name] = values.float().cpu()
    return found


def summarise(model: nn.Module, scheme: Scheme) -> dict[str, Any]:
    """Summarise the weights in plain values, for a file in the run's folder.

    Returns:
        ``edges``: edges of the histograms' bins, up to the largest magnitude of all layers. ``small``: the limit of
        ``share_small``. ``layers``: name → ``counts`` per bin, ``share_small`` (share of the existing weights that are
        small), and ``map``, see :func:`coarse_map`.
    """
    weights = existing_weights(model, scheme)
    largest = max((float(values.abs().max()) for values in weights.values() if values.numel()), default=0.0)
    largest = largest if math.isfinite(largest) and largest > 0 else 1.0
    edges = np.linspace(-largest, largest, _BINS + 1)
    layers = {}
    for name, values in weights.items():
        weight = scheme.weights.get(name)
        coarse = coarse_map(model.get_parameter(name).detach() if weight is None else weight)
        layers[name] = {
            "counts": np.histogram(values.numpy(), edges)[0].tolist(),
            "share_small": share_below({name: values}),
            "map": [[round(value, 6) for value in row] for row in coarse.tolist()],
        }
    return {"edges": [round(float(edge), 6) for edge in edges], "small": SMALL, "layers": layers}


def coarse_map(matrix: Tensor | SparseWeight) -> np.ndarray:
    """Mean magnitude of the entries in each cell of a matrix [out, in]; entries that do not exist count as zero."""
    rows, columns = matrix.shape
    # As in adaptive pooling, cells cover the whole matrix, and neighbours may share a row or column.
    down, across = (_averages(size, min(_CELLS, size)) for size in (rows, columns))
    if isinstance(matrix, Tensor):
        full = matrix.float().abs().cpu().numpy()
        return np.asarray(down @ (full @ across.T))
    places, values = matrix.entries()
    magnitudes = values.float().abs().cpu().numpy()
    sparse = csr_array((magnitudes, np.divmod(places.cpu().numpy(), columns)), shape=(rows, columns))
    return np.asarray(down @ (sparse @ across.T))


def _averages(size: int, cells: int) -> np.ndarray:
    """The weight of each entry in the mean of each cell [cells, size]."""
    entry, cell = np.arange(size), np.arange(cells)[:, None]
    inside = (entry >= cell * size // cells) & (entry < -(-(cell + 1) * size // cells))
    shares: np.ndarray = (inside / np.maximum(inside.sum(1, keepdims=True), 1)).astype(np.float32)
    return shares
