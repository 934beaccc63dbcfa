"""Geometry of block-diagonal layers: how a layer is split into independent components.

Source for recurrent layers: Demeester et al. 2018, "Predefined Sparseness in Recurrent Sequence Models", and the
authors' code. Each of k components reads a segment of the inputs, a share δ of them. It computes its own segment of the
outputs and states, a share 1/k of them. Input segments may overlap, output segments do not. In a linear layer input
segments do not overlap either.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch
from torch import Tensor

from sparse_bench.errors import ConfigError, unknown_choice

#: Mode in which the number of components is given, the same for every layer.
EXPLICIT = "blocks"
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


def channel_shuffle(total: int, count: int) -> Tensor:
    """0 … ``total`` − 1 as they are dealt in turn to ``count`` blocks, block after block [total], int64.

    Every block gets a share of each block of the layer before. This is the channel shuffle of Zhang et al. 2018,
    "ShuffleNet", section 3.1.
    """
    return torch.cat([torch.arange(first, total, count) for first in range(count)])


@dataclass(frozen=True)
class EqualBlocks:
    """Successive blocks of one size: ``count`` blocks, each with so many ``inputs`` and ``outputs``."""

    count: int
    inputs: int
    outputs: int


def equal_blocks(inputs: int, outputs: int, count: int) -> tuple[EqualBlocks, ...]:
    """The ``count`` blocks of a linear layer, in groups of equal size; one group if ``count`` divides both sizes.

    Both sizes are shared as evenly as possible, and the first blocks are the larger ones, as in
    :func:`torch.tensor_split`.

    Raises:
        ConfigError: there are more blocks than inputs or outputs.
    """
    if not 1 <= count <= min(inputs, outputs):
        raise ConfigError(
            f"A linear layer {inputs}→{outputs} cannot be cut into {count} blocks. Valid choices: sparsity.blocks from "
            f"1 to {min(inputs, outputs)}, or other layers (sparsity.layers)."
        )
    sizes = [tuple(total // count + (block < total % count) for total in (inputs, outputs)) for block in range(count)]
    return tuple(EqualBlocks(len(list(same)), *size) for size, same in groupby(sizes))


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


def components(
    sizes: Sequence[tuple[int, int]], mode: str, fraction: float | None, blocks: int | None, share: float | None
) -> list[Blocks]:
    """The components of each layer of a recurrent stack, first layer to last.

    Args:
        sizes: inputs and outputs of each layer.
        mode: one of :data:`MODES`, or :data:`EXPLICIT`.
        fraction: of :func:`reductions`; not in mode :data:`EXPLICIT`.
        blocks: k, number of components of every layer; in mode :data:`EXPLICIT` only.
        share: δ, share of the inputs that a component reads, None for 1/k; in mode :data:`EXPLICIT` only.

    Raises:
        ConfigError: see :func:`count_and_share`, :func:`reductions` and :func:`segments`.
    """
    if fraction is None:
        count = blocks or 1
        cuts = [(count, share or 1 / count)] * len(sizes)
    else:
        reduced = reductions(mode, fraction, len(sizes))
        cuts = [count_and_share(*size, reduction) for size, reduction in zip(sizes, reduced, strict=True)]
    return [Blocks.of(*size, *cut) for size, cut in zip(sizes, cuts, strict=True)]
