"""Geometry of tiered embeddings: which words have which columns.

Source: Demeester et al. 2018, "Predefined Sparseness in Recurrent Sequence Models", and the authors' code. The
vocabulary is put in an order, and the columns are cut into blocks. Each block exists for fewer words than the block
before it: only for the last words in the order. So the first words have short vectors, the last ones full vectors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import bisect
from torch import Tensor

from sparse_bench.errors import ConfigError

#: Whose vectors are short: those of rare words, of frequent words, or of random words.
ORDERS = ("up", "down", "rand")
#: The authors' tolerance for α; the blocks' numbers of words depend on it.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Tiers:
    """Blocks of columns of an embedding [vocabulary, dim].

    Attributes:
        vocabulary: V, number of words.
        starts: for each block, the first place in the order whose word has the block; V if no word has it.
        widths: number of columns of each block.
    """

    vocabulary: int
    starts: tuple[int, ...]
    widths: tuple[int, ...]

    @property
    def rows(self) -> tuple[int, ...]:
        """Number of words that have each block."""
        return tuple(self.vocabulary - start for start in self.starts)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of weights of each block."""
        return tuple(rows * width for rows, width in zip(self.rows, self.widths, strict=True))

    @property
    def dim(self) -> int:
        """Number of columns of all blocks together."""
        return sum(self.widths)

    def first_places(self) -> Tensor:
        """For each column, the first place in the order whose word has it [D], int64."""
        return torch.tensor(self.starts).repeat_interleave(torch.tensor(self.widths))

    def topology(self, place: Tensor) -> Tensor:
        """Which words have which columns, boolean [V, D], from the ``place`` of every word in the order [V]."""
        return place[:, None] >= self.first_places().to(place.device)


def decay(density: float, blocks: int) -> float:
    """Solve (1 + α + … + α^(blocks−1)) / blocks = density for α in [0, 1]; 0 if ``density`` is at most 1/blocks."""

    def excess(alpha: float) -> float:
        return sum(alpha**j for j in range(blocks)) / blocks - density

    if excess(0.0) >= 0:
        return 0.0
    return float(bisect(excess, 0.0, 1.0, xtol=_TOLERANCE))


def tiers(vocabulary: int, dim: int, density: float, blocks: int) -> Tiers:
    """The authors' geometry: about ``density`` · V · D weights, in blocks whose numbers of words fall geometrically.

    The last block also takes the remaining columns if B does not divide D. Its number of words brings the number of
    weights nearest to ⌊V · D · density⌋. It compensates for all earlier rounding, so it may have more words than the
    block before it. With few words, rounding may leave it more than it can hold, which the authors' code refuses. Here
    the first blocks without enough words get the rest.

    Args:
        vocabulary: V, number of words.
        dim: D, number of columns.
        density: between 1/B and 1; with one block, 1.
        blocks: B, number of blocks; at most D are used.

    Raises:
        ConfigError: ``density`` is out of range.
    """
    blocks = min(blocks, dim)
    if blocks < 1 or not 1 / blocks <= density <= 1:
        raise ConfigError(
            f"An embedding of {dim} columns in {blocks} blocks cannot have density {density:g}. "
            f"Valid choices: from {1 / max(blocks, 1):g} to 1."
        )
    width = dim // blocks
    widths = [width] * (blocks - 1) + [dim - width * (blocks - 1)]
    target = vocabulary * dim * density
    starts, used = [0], width * vocabulary
    remaining, columns, share = vocabulary, dim, density
    # Place the inner blocks one after the other; ``share`` is the density that the rest still needs.
    for block in range(1, blocks - 1):
        if share <= 0:
            starts.append(vocabulary)
            continue
        cut = math.ceil(remaining * (1 - decay(share, blocks - block + 1)))
        remaining -= cut
        starts.append(starts[-1] + cut)
        columns -= width
        left = target - used
        if left > 0 and remaining * columns > 0:
            share = min(1.0, left / (remaining * columns))
            used += width * remaining
        else:
            share = 0.0
    if blocks > 1:
        starts.append(vocabulary - round(max(0, math.floor(target) - used) / widths[-1]))
    if starts[-1] < 0:
        starts[-1] = 0
        rest = math.floor(target) - sum((vocabulary - start) * own for start, own in zip(starts, widths, strict=True))
        for block in range(1, blocks - 1):
            more = min(starts[block], round(rest / width))
            starts[block] -= more
            rest -= more * width
    return Tiers(vocabulary, tuple(starts), tuple(widths))


def places(vocabulary: int, order: str, counts: Sequence[int] | None, generator: torch.Generator) -> Tensor:
    """Place of every word in the order [V], int64, on the CPU.

    Args:
        vocabulary: V, number of words.
        order: one of :data:`ORDERS`. Equally frequent words are in the order of their indices.
        counts: how often each word occurs [V]. None: indices run from the most frequent word to the rarest.
        generator: of a random order.

    Raises:
        ConfigError: there are counts of another number of words.
    """
    if order == "rand":
        return torch.randperm(vocabulary, generator=generator)
    found = torch.arange(vocabulary, 0, -1) if counts is None else torch.as_tensor(counts, device="cpu")
    if found.shape != (vocabulary,):
        raise ConfigError(
            f"The model has frequencies of {found.numel()} words and an embedding of {vocabulary} words; "
            "use sparsity.order=rand, or select another layer."
        )
    in_order = found.argsort(descending=order == "down", stable=True)
    return torch.empty_like(in_order).index_copy_(0, in_order, torch.arange(vocabulary))
