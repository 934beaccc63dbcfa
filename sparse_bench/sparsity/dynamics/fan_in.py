"""SRigL's rule: every unit has the same number of inputs, and units with too few salient weights lose all of theirs.

Source: Lasby et al. 2024, "Dynamic sparse training with structured sparsity" (ICLR), section 3.
"""

import numpy as np

from sparse_bench.sparsity.dynamics.drop import lowest


def salient_fan_in(
    magnitude: np.ndarray, mask: np.ndarray, gradient: np.ndarray, drop: int, total: int, gamma: float, ablates: bool
) -> tuple[np.ndarray, np.ndarray]:
    """One update of a layer, whose rows are units.

    The salient places are those of all weights but the ``drop`` smallest, and the ``drop`` other places of largest
    gradient. A unit with fewer than max(1, γ · fan-in) salient places is ablated. So many units live on that ``total``
    weights fit into their rows. The new fan-in is ``total`` over the live units, rounded down. A live unit keeps its
    largest weights that were not dropped, up to the fan-in, and the rest grows where the gradient is largest.

    Args:
        magnitude: |w|, [out, in].
        mask: where weights exist, boolean [out, in].
        gradient: magnitudes of the dense gradient [out, in].
        drop: number of weights to drop.
        total: number of weights that the layer may have.
        gamma: γ.
        ablates: whether units are ablated; never in a model's last layer.

    Returns:
        The old weights that stay and the places of the new topology, both boolean [out, in].

    Raises:
        ValueError: a value to rank is NaN.
    """
    units, inputs = mask.shape
    places = np.flatnonzero(mask)
    kept = mask.copy()
    kept.flat[places[lowest(magnitude.flat[places], drop)]] = False
    others = np.flatnonzero(~kept)
    salient = kept.copy()
    salient.flat[others[lowest(-gradient.flat[others], min(drop, others.size))]] = True

    number = salient.sum(1)
    live = np.ones(units, dtype=bool)
    if ablates:
        live = number >= max(1.0, gamma * mask.sum(1).max())
        fewest = max(1, -(-total // inputs))
        if live.sum() < fewest:  # the most salient ones live on
            live = np.zeros(units, dtype=bool)
            live[np.argsort(-number, kind="stable")[:fewest]] = True
    fan_in = total // int(live.sum())

    # In each row the kept weights come first, by magnitude, then all other places by gradient.
    value = np.where(kept, magnitude, gradient)
    order = np.lexsort((-value, ~kept), axis=1)[:, :fan_in]
    new = np.zeros_like(mask)
    np.put_along_axis(new, order, True, axis=1)
    new &= live[:, None]
    return kept & new, new
