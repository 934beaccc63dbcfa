"""What the weights of the selected layers look like: a histogram, and a coarse map of each matrix."""

import math
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from torch import Tensor, nn

from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.sparsity.weights import SparseWeight

#: Magnitude below which SparseLang's Figure 3 calls a weight small (about 75 % of its dense baseline's).
SMALL = 0.07
#: Bins of a histogram, and cells along a side of a map.
_BINS, _CELLS = 81, 48


def share_below(weights: dict[str, Tensor], magnitude: float = SMALL) -> float:
    """Share of the existing weights whose magnitude is below ``magnitude``; 0 if there are none."""
    total = sum(values.numel() for values in weights.values())
    small = sum(int((values.abs() < magnitude).sum()) for values in weights.values())
    return small / total if total else 0.0


def existing_weights(model: nn.Module, scheme: Scheme) -> dict[str, Tensor]:
    """The weights that exist in every selected layer, flat, on the CPU, float32."""
    found = {}
    for name in scheme.selected:
        weight = scheme.weights.get(name)
        values = weight.entries()[1] if weight is not None else model.get_parameter(name).detach().flatten()
        found[name] = values.float().cpu()
    return found


def summarise(model: nn.Module, scheme: Scheme) -> dict[str, Any]:
    """Plain values for a file beside a run's result.

    Keys: ``edges`` of the histograms' bins, which reach to the largest magnitude of all layers; ``small``, the
    magnitude that :func:`share_below` is about; ``layers``: name → ``counts`` per bin, ``share_small`` of the existing
    weights, and ``map``, the mean magnitude of all entries (missing ones are 0) in cells of the matrix [out, in].
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
    """Mean magnitude of the entries of a matrix [out, in] in cells of it; entries that do not exist are zero.

    Of a sparse matrix only the existing entries are looked at.
    """
    rows, columns = matrix.shape
    # As adaptive pooling cuts: cells cover everything, and share a row or column where they do not fit evenly.
    down, across = (_averages(size, min(_CELLS, size)) for size in (rows, columns))
    if isinstance(matrix, Tensor):
        full = matrix.float().abs().cpu().numpy()
        return np.asarray(down @ (full @ across.T))
    places, values = matrix.entries()
    magnitudes = values.float().abs().cpu().numpy()
    sparse = csr_array((magnitudes, np.divmod(places.cpu().numpy(), columns)), shape=(rows, columns))
    return np.asarray(down @ (sparse @ across.T))


def _averages(size: int, cells: int) -> np.ndarray:
    """[cells, size]: what each entry counts in the mean of each cell."""
    entry, cell = np.arange(size), np.arange(cells)[:, None]
    inside = (entry >= cell * size // cells) & (entry < -(-(cell + 1) * size // cells))
    shares: np.ndarray = (inside / np.maximum(inside.sum(1, keepdims=True), 1)).astype(np.float32)
    return shares
