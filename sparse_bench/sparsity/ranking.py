"""Choose the weights of highest score, on the device and with exact counts."""

import numpy as np
import torch
from torch import Tensor

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.dynamics.drop import on_host


def highest(scores: Tensor, count: int) -> Tensor:
    """Where the ``count`` highest scores are, boolean, of the shape of ``scores``; among equal scores, the first.

    The number is exact, and nothing waits for the device.

    Raises:
        ValueError: there are fewer scores.
    """
    flat = scores.flatten()
    if not 0 <= count <= flat.numel():
        raise ValueError(f"cannot take {count} of {flat.numel()} scores")
    if count in (0, flat.numel()):
        return torch.full_like(scores, count > 0, dtype=torch.bool)
    if flat.device.type == "cpu":  # where NumPy takes a seventh of torch's time
        values = on_host(flat)
        lowest = _lowest_of_highest(values, count)
        chosen: np.ndarray = values > lowest
        chosen[np.flatnonzero(values == lowest)[: count - int(np.count_nonzero(chosen))]] = True
        return torch.from_numpy(chosen).view(scores.shape)
    bound = flat.topk(count, sorted=False).values.amin()
    above, tied = flat > bound, flat == bound
    return (above | tied & (tied.cumsum(0) <= count - above.sum())).view_as(scores)


#: Number of scores from which a bound for all others is guessed, where there are many more.
_SAMPLE = 4096


def _lowest_of_highest(values: np.ndarray, count: int) -> np.floating:
    """The lowest of the ``count`` highest values [n].

    A sample gives a bound that a few more than ``count`` values reach. Only these are ranked, as comparing is faster.
    """
    if values.size >= 4 * _SAMPLE:
        sample = values[:: values.size // _SAMPLE]
        wanted = int(1.2 * count / values.size * sample.size) + 16
        if wanted < sample.size / 2:
            few = values[values >= np.partition(sample, sample.size - wanted)[sample.size - wanted]]
            values = few if few.size >= count else values
    lowest: np.floating = np.partition(values, values.size - count)[values.size - count]
    return lowest


def highest_in_groups(scores: Tensor, count: int, size: int) -> Tensor:
    """The ``count`` highest of every ``size`` consecutive scores in a row [out, in], boolean; among equal, the first.

    Raises:
        ConfigError: a row is no whole number of groups.
    """
    if scores.shape[1] % size:
        raise ConfigError(f"{scores.shape[1]} inputs are no whole number of groups of {size} inputs.")
    groups = scores.reshape(-1, size).t().contiguous()
    rank = torch.zeros(groups.shape, dtype=torch.int8 if size < 128 else torch.int16, device=scores.device)
    for later in range(size):
        for earlier in range(later):
            larger = (groups[later] > groups[earlier]).view(torch.int8)
            rank[earlier] += larger
            rank[later] += 1 - larger
    return (rank < count).t().reshape(scores.shape)


def lamp(weights: Tensor) -> Tensor:
    """LAMP's score of each weight of a layer [entries]: w² over the sum of the squares of all that are not smaller.

    Ranked together, the scores share a density among layers. Among weights of equal magnitude the later is the larger.

    Source: Lee et al. 2021, "Layer-adaptive sparsity for the magnitude-based pruning", equation 5.
    """
    squares, order = weights.detach().double().square().flatten().sort(stable=True)
    not_smaller = squares.flip(0).cumsum(0).flip(0)
    return torch.empty_like(squares).index_copy_(0, order, squares / not_smaller.clamp_min(1e-300)).view_as(weights)
