"""Geometry of block-diagonal recurrent layers: how a layer is split into independent components.

Source: Demeester et al. 2018, "Predefined Sparseness in Recurrent Sequence Models", and the authors' code. Each of k
components reads a segment of the inputs, a share δ of them. It computes its own segment of the outputs and states, a
share 1/k of them. Input segments may overlap, output segments do not.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from sparse_bench.errors import ConfigError, unknown_choice

#: (begin, end): the indices begin … end − 1 of a layer's inputs or outputs.
Segment = tuple[int, int]
#: Factors (a_i, a_o) on a layer's inputs and outputs, which give the size of a dense layer with as many parameters.
Reduction = tuple[float, float]

#: Added to the end of a segment before it is rounded down, as floats may be slightly below a whole number. This is the
#: authors' value. They round begins without it, and published numbers of parameters depend on that.
_ROUNDING = 1e-7


def segments(total: int, count: int, share: float) -> tuple[Segment, ...]:
    """Cut 0 … ``total`` − 1 into ``count`` evenly spread segments, each with the share ``share`` of the indices.

    Raises:
        ConfigError: ``share`` is not between 1/``count`` and 1, or there are more segments than indices, or rounding
            leaves an index out of all segments.
    """
    if count < 1 or not 1 / count <= share <= 1:
        raise ConfigError(
            f"{count} segments of {share:g} of the indices each do not fit. Valid choices: from 1/{max(count, 1)} to 1."
        )
    if count == 1:
        return ((0, total),)
    overlap = total * (count * share - 1) / (count - 1)
    begins = [c * (total * share - overlap) for c in range(count)]
    found = [(int(begin), int(begin + total * share + _ROUNDING)) for begin in begins]
    found[-1] = (found[-1][0], total)
    covered = all(after[0] <= before[1] for before, after in pairwise(found))
    if not covered or min(end - begin for begin, end in found) < 1:
        raise ConfigError(f"{total} indices cannot be cut into {count} segments of {share:g} of them each.")
    return tuple(found)


@dataclass(frozen=True)
class Blocks:
    """The components of one layer.

    Attributes:
        inputs: input segment of every component.
        outputs: output segment of every component; disjoint.
    """

    inputs: tuple[Segment, ...]
    outputs: tuple[Segment, ...]

    @property
    def count(self) -> int:
        """k, the number of components."""
        return len(self.outputs)

    @classmethod
    def of(cls, inputs: int, outputs: int, count: int, share: float) -> "Blocks":
        """Make ``count`` components that each read the share ``share`` (δ) of the inputs.

        Raises:
            ConfigError: see :func:`segments`.
        """
        ends = [end for _, end in segments(outputs, count, 1 / count)]
        # Use ends only: a begin slightly below a whole number would assign an output twice, as with 49 in 49.
        return cls(segments(inputs, count, share), tuple(pairwise([0, *ends])))


def count_and_share(inputs: int, outputs: int, reduction: Reduction) -> tuple[int, float]:
    """k and δ of a layer with as many parameters as a dense LSTM of ``reduction`` times its inputs and outputs.

    k is the smallest possible number of components. If k components have fewer parameters even when they read all
    inputs, δ is 1.

    Args:
        inputs: inputs of the layer.
        outputs: outputs of the layer.
        reduction: factors on the inputs and outputs of the dense LSTM.

    Raises:
        ConfigError: a factor is not in (0, 1], or the reduction would need too many components.
    """
    a_i, a_o = reduction
    if not (0 < a_i <= 1 and 0 < a_o <= 1):
        raise ConfigError(f"The reductions {a_i:g} and {a_o:g} have to be above 0 and at most 1.")
    if a_i == a_o == 1:
        return 1, 1.0
    kept = a_i * a_o * inputs + a_o**2 * outputs + 2 * a_o - 2
    least = (inputs + outputs) / kept if kept > 0 else math.inf
    if least > outputs or math.ceil(least) >= inputs:
        raise ConfigError(
            f"Reductions to {a_i:g} of the inputs and {a_o:g} of the outputs are too strong for a recurrent layer "
            f"{inputs}→{outputs}: it would need too many components. Use larger fractions, or a larger layer."
        )
    count = math.ceil(least)
    # kept ≥ (inputs + outputs) / count, so the share is at least 1 / count but for rounding.
    share = max(1 / count, min(1.0, (kept - outputs / count) / inputs))
    return count, share


def _sparse_hidden(fraction: float, layers: int) -> list[Reduction]:
    outer = [(1.0, fraction), *[(fraction, fraction)] * (layers - 2), (fraction, 1.0)]
    return outer if layers > 1 else [(1.0, 1.0)]


def _sparse_all(fraction: float, layers: int) -> list[Reduction]:
    return [(fraction, fraction)] * layers


def _sparse_emb(fraction: float, layers: int) -> list[Reduction]:
    if layers < 2:
        raise ConfigError(
            "mode=sparse_emb needs two recurrent layers: it reduces the first one's inputs and the last one's outputs."
        )
    return [(fraction, 1.0), *[(1.0, 1.0)] * (layers - 2), (1.0, fraction)]


#: Mode → reductions of a stack of layers, embedding → hidden → … → hidden → embedding.
MODES: dict[str, Callable[[float, int], list[Reduction]]] = {
    "sparse_hidden": _sparse_hidden,
    "sparse_all": _sparse_all,
    "sparse_emb": _sparse_emb,
}


def reductions(mode: str, fraction: float, layers: int) -> list[Reduction]:
    """The reduction of each layer of a stack, first to last; (1, 1) leaves a layer dense.

    ``sparse_hidden`` leaves a stack of one layer dense, as it has no hidden side.

    Raises:
        ConfigError: the mode is unknown or needs more layers.
    """
    if mode not in MODES:
        raise ConfigError(unknown_choice("mode", mode, MODES))
    return MODES[mode](fraction, layers)
