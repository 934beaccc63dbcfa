"""Random graphs: boolean masks of weight matrices [out, in], and the number of weights of each layer.

Masks are drawn on the CPU from a given generator, so they are the same for every device.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.selection import units
from sparse_bench.streams import Streams

Shape = tuple[int, ...]

#: Number of units for which random numbers are drawn together. For all units at once, they would need too much memory.
_ROWS_AT_ONCE = 1024


def bernoulli(shape: Shape, density: float, generator: Generator) -> Tensor:
    """A boolean mask in which each entry is present with probability ``density``, independently."""
    return torch.rand(shape, generator=generator) < density


def exact(shape: Shape, count: int, generator: Generator) -> Tensor:
    """A boolean mask with exactly ``count`` entries, uniformly at random.

    Raises:
        ValueError: ``count`` is negative or larger than the matrix.
    """
    size = math.prod(shape)
    if not 0 <= count <= size:
        raise ValueError(f"cannot place {count} weights in a matrix of {size} entries")
    mask = torch.zeros(size, dtype=torch.bool)
    mask[torch.randperm(size, generator=generator)[:count]] = True
    return mask.view(shape)


def tiled_identity(shape: Shape) -> Tensor:
    """The identity of size min(n_out, n_in), tiled along the longer side and cropped.

    Entry (i, j) is present if and only if i ≡ j modulo the shorter side. So every row and every column has at least one
    entry, and there are max(n_out, n_in) entries in total.
    """
    rows, columns = shape
    shorter = min(rows, columns)
    return torch.arange(rows)[:, None] % shorter == torch.arange(columns)[None, :] % shorter


def random_connected(shape: Shape, density: float, generator: Generator) -> Tensor:
    """Rasa's RandomlyConnectedDense: the union of a Bernoulli(density) mask and the tiled identity.

    The number of entries is random, with expectation d·n·m + (1 − d)·max(n, m). Even at density 0, every input and
    every output has a connection.
    """
    return bernoulli(shape, density, generator) | tiled_identity(shape)


def constant_fan_in(shape: Shape, count: int, generator: Generator) -> Tensor:
    """A boolean mask [out, in] with ``count`` entries at random in each row."""
    # The places of the ``count`` largest of as many random numbers as inputs are a draw without replacement.
    chosen = torch.rand(shape, generator=generator).topk(count, dim=1).indices
    return torch.zeros(shape, dtype=torch.bool).scatter_(1, chosen, True)


def fan_in(
    shapes: Mapping[str, Shape], density: float, streams: Streams, with_replacement: bool = False
) -> dict[str, Tensor]:
    """Draw ⌊density · inputs⌋ inputs for each unit, from the inputs of all matrices that feed it together.

    Args:
        shapes: name of each weight matrix → its shape [out, in].
        density: share of the inputs.
        streams: source of random numbers; each group of units has its own generator.
        with_replacement: whether an input may be drawn twice; the unit then has fewer inputs.

    Returns:
        Name of each weight matrix → boolean mask [out, in].

    Raises:
        ConfigError: the density is so low that units would have no input.
    """
    masks: dict[str, Tensor] = {}
    for together, names in units(list(shapes)).items():
        widths = [shapes[name][1] for name in names]
        inputs = sum(widths)
        count = int(density * inputs + 1e-9)  # the margin makes 0.1 · 10 one in spite of binary rounding
        if count < 1:
            raise ConfigError(
                f"sparsity.density = {density} leaves the {inputs} inputs of '{together}' without a weight; "
                f"it has to be at least {1 / inputs:.3g}."
            )
        generator = streams.torch("topology", together)
        mask = torch.zeros(shapes[names[0]][0], inputs, dtype=torch.bool)
        for part in mask.split(_ROWS_AT_ONCE):
            if with_replacement:
                chosen = torch.randint(inputs, (len(part), count), generator=generator)
                part.scatter_(1, chosen, True)
            else:
                part.copy_(constant_fan_in(tuple(part.shape), count, generator))
        masks |= dict(zip(names, mask.split(widths, dim=1), strict=True))
    return masks


def apportion(shares: Sequence[float], total: int, sizes: Sequence[int]) -> list[int]:
    """Round ``shares`` to whole numbers that sum to ``total`` and do not exceed ``sizes``.

    The largest remainders are rounded up. Among equal remainders the earlier layer comes first, so that counts do not
    depend on the platform.

    Raises:
        ValueError: ``total`` is larger than the sum of ``sizes``.
    """
    if total > sum(sizes):
        raise ValueError(f"cannot place {total} weights in layers of {sum(sizes)} entries")
    counts = [min(int(share), size) for share, size in zip(shares, sizes, strict=True)]
    by_remainder = sorted(range(len(shares)), key=lambda i: (counts[i] - shares[i], i))
    missing = total - sum(counts)
    while missing > 0:
        for i in by_remainder:
            if missing > 0 and counts[i] < sizes[i]:
                counts[i] += 1
                missing -= 1
    return counts


def uniform_counts(shapes: Mapping[str, Shape], density: float) -> dict[str, int]:
    """Number of weights of each layer, with the same density in every layer; in total round(density · all entries)."""
    sizes = [math.prod(shape) for shape in shapes.values()]
    counts = apportion([density * size for size in sizes], round(density * sum(sizes)), sizes)
    return dict(zip(shapes, counts, strict=True))


def erdos_renyi_counts(shapes: Mapping[str, Shape], density: float) -> dict[str, int]:
    """Number of weights of each layer, with densities proportional to (n_in + n_out) / (n_in · n_out).

    As in SET and RigL. The factor ε is chosen so that the total is round(density · all entries). A layer whose density
    would exceed 1 becomes dense, and ε is chosen again for the others.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = round(density * sum(sizes.values()))
    dense: set[str] = set()
    while True:
        free = [name for name in shapes if name not in dense]
        budget = total - sum(sizes[name] for name in dense)
        degree = sum(sum(shapes[name]) for name in free)
        epsilon = budget / degree if degree else 0.0
        full = {name for name in free if epsilon * sum(shapes[name]) > sizes[name]}
        if not full:
            break
        dense |= full
    shares = [float(sizes[name]) if name in dense else epsilon * sum(shape) for name, shape in shapes.items()]
    counts = apportion(shares, total, list(sizes.values()))
    return dict(zip(shapes, counts, strict=True))


#: Ways to distribute a density over layers: (shapes, density) → number of weights of each layer.
DISTRIBUTIONS = {"uniform": uniform_counts, "erdos_renyi": erdos_renyi_counts}
