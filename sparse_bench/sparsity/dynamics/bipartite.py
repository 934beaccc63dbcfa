"""Network science for bipartite graphs: a first topology with local receptive fields, and growth by CH2-L3n.

Source: Zhang et al. 2025, "Brain network science modelling of sparse neural networks enables Transformers and LLMs to
perform as fully connected" (arXiv 2501.19107).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Generator, Tensor

from sparse_bench.sparsity.dynamics.chance import noisy, zeros_last
from sparse_bench.sparsity.dynamics.drop import lowest, on_host
from sparse_bench.sparsity.dynamics.grow import Grow, Room


def ch2_l3n(mask: Tensor) -> Tensor:
    """Scores [out, in] of all places by the Cannistraci-Hebb rule on paths of length three, network version.

    B is the mask. C = B Bᵀ counts the common inputs of two outputs. Where C_ik > 0, E_ik = (C_ik + 1) /
    max(deg_i − C_ik, 1), else 0: the common inputs over the others of output i. E′ is the same for inputs, from Bᵀ B.
    The score is S = E B + (E′ Bᵀ)ᵀ.

    Args:
        mask: the connections, boolean [out, in].
    """
    graph = mask.float()
    return _strength(graph) @ graph + (_strength(graph.T) @ graph.T).T


def _strength(graph: Tensor) -> Tensor:
    """E [units, units] of the units in the rows of ``graph``."""
    common = graph @ graph.T
    own = graph.sum(1, keepdim=True)
    return torch.where(common > 0, (common + 1) / (own - common).clamp(min=1), 0.0)


def sampled_paths(room: Room, count: int) -> Tensor:
    """Draw ``count`` free places, int64 [count], in proportion to their scores by :func:`ch2_l3n`.

    If fewer places have a score above zero, the others are drawn from the rest uniformly.
    """
    return _grow(room, count, noisy)


def most_paths(room: Room, count: int) -> Tensor:
    """Choose the ``count`` free places of highest score by :func:`ch2_l3n`, int64 [count]; random ones of score 0."""
    return _grow(room, count, zeros_last)


def _grow(room: Room, count: int, keys: Callable[[np.ndarray, Generator], np.ndarray]) -> Tensor:
    places = np.flatnonzero(~room.occupied.cpu().numpy())
    scores = on_host(ch2_l3n(room.occupied)).ravel()[places]
    chosen = lowest(-keys(scores, room.generator), count)
    return torch.from_numpy(places[chosen]).to(room.occupied.device)


def receptive_fields(shape: tuple[int, ...], count: int, randomness: float, generator: Generator) -> Tensor:
    """A bipartite graph in which units tend to connect to near ones (BRF), a boolean mask [out, in].

    Both sides are evenly spaced on one ring. Each unit of the smaller side has one connection, and the others are dealt
    to these units at random. If there are fewer connections than such units, as many random units have one. A unit's
    partners are drawn with probabilities ∝ (1 + distance)^−((1 − r) / r). The distance counts steps along the ring of
    the larger side.

    Args:
        shape: (out, in).
        count: number of connections.
        randomness: r, above 0; with 1 every partner is equally likely.
        generator: source of random numbers, on the CPU.

    Raises:
        ValueError: ``count`` is larger than the matrix.
    """
    small, large = sorted(shape)
    if not 0 <= count <= small * large:
        raise ValueError(f"cannot place {count} connections in a matrix of {small * large} entries")
    if count < small:
        degree = np.zeros(small, dtype=np.int64)
        degree[torch.randperm(small, generator=generator)[:count].numpy()] = 1
    else:
        # Each unit has room for large − 1 further connections; places of that room are drawn without replacement.
        draw = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        degree = 1 + draw.multivariate_hypergeometric([large - 1] * small, count - small, method="marginals")
    mask = np.zeros((small, large), dtype=bool)
    partner = np.arange(large)
    for unit in range(small):
        apart = np.abs(partner - unit * large / small)
        near = 1.0 / (1.0 + np.minimum(apart, large - apart))
        keys = noisy(near, generator, (1.0 - randomness) / randomness)
        mask[unit, lowest(-keys, int(degree[unit]))] = True
    found = torch.from_numpy(mask)
    return found if shape[0] == small else found.T.contiguous()


def relative_importance(weights: Tensor) -> Tensor:
    """|w| / Σ |w| of its row + |w| / Σ |w| of its column, for ``weights`` [out, in]; 0 where w = 0."""
    size = weights.abs()
    tiny = torch.finfo(size.dtype).tiny
    return size / size.sum(1, keepdim=True).clamp(min=tiny) + size / size.sum(0, keepdim=True).clamp(min=tiny)


#: Ways to grow by scores of :func:`ch2_l3n`.
GROWTHS: dict[str, Grow] = {"sampled": sampled_paths, "top": most_paths}
