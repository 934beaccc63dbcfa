"""Random graphs: boolean masks over weight matrices of shape [out, in], and how many weights each layer gets.

Masks are drawn on the CPU from a given generator, so that they are the same on every device.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.selection import units
from sparse_bench.streams import Streams

Shape = tuple[int, ...]

#: Units for which random numbers are drawn together: a full-size matrix of them would be the largest tensor of a run.
_ROWS_AT_ONCE = 1024


def bernoulli(shape: Shape, density: float, generator: Generator) -> Tensor:
    """Each entry is present with probability ``density``, independently."""
    return torch.rand(shape, generator=generator) < density


def exact(shape: Shape, count: int, generator: Generator) -> Tensor:
    """Exactly ``count`` entries, uniformly at random.

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

    Entry (i, j) is present iff i ≡ j modulo the shorter side, so every row and every column holds at least one entry
    and there are max(n_out, n_in) in all.
    """
    rows, columns = shape
    shorter = min(rows, columns)
    return torch.arange(rows)[:, None] % shorter == torch.arange(columns)[None, :] % shorter


def random_connected(shape: Shape, density: float, generator: Generator) -> Tensor:
    """Rasa's RandomlyConnectedDense: Bernoulli(density) united with the tiled identity.

    Expected number of entries: d·n·m + (1 − d)·max(n, m). The count is random, and even at density 0 every input
    reaches an output and every output has an input.
    """
    return bernoulli(shape, density, generator) | tiled_identity(shape)


def fan_in(
    shapes: Mapping[str, Shape], density: float, streams: Streams, with_replacement: bool = False
) -> dict[str, Tensor]:
    """Each unit hears ⌊density · inputs⌋ of its inputs, those of all matrices that feed it together.

    Args:
        shapes: of the weight matrices [out, in].
        density: share of the inputs.
        streams: each group of units has a generator of its own.
        with_replacement: an input may be drawn twice; the unit then hears fewer.

    Raises:
        ConfigError: units are left without an input.
    """
    masks: dict[str, Tensor] = {}
    for together, names in units(list(shapes)).items():
        widths = [shapes[name][1] for name in names]
        inputs = sum(widths)
        count = int(density * inputs + 1e-9)  # a tenth of ten is one, whatever 0.1 is in binary
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
            else:
                # The places of the largest of so many random numbers are a uniform draw without replacement.
                chosen = torch.rand(part.shape, generator=generator).topk(count, dim=1).indices
            part.scatter_(1, chosen, True)
        masks |= dict(zip(names, mask.split(widths, dim=1), strict=True))
    return masks


def apportion(shares: Sequence[float], total: int, sizes: Sequence[int]) -> list[int]:
    """Whole numbers that follow ``shares``, sum to ``total`` and exceed none of ``sizes``.

    Largest remainders are rounded up; among equal remainders the earlier layer comes first, so that counts do not
    depend on the platform.
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
    """The same density in every layer; the total is round(density · all entries) to the unit."""
    sizes = [math.prod(shape) for shape in shapes.values()]
    counts = apportion([density * size for size in sizes], round(density * sum(sizes)), sizes)
    return dict(zip(shapes, counts, strict=True))


def erdos_renyi_counts(shapes: Mapping[str, Shape], density: float) -> dict[str, int]:
    """Densities proportional to (n_in + n_out) / (n_in · n_out), as in SET and RigL.

    The factor ε is solved so that the total is round(density · all entries); a layer whose density would exceed 1
    becomes dense, and ε is solved again for the others.
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


#: How a density is shared among layers: (shapes, density) → weights of each.
DISTRIBUTIONS = {"uniform": uniform_counts, "erdos_renyi": erdos_renyi_counts}
