"""An Erdős–Rényi topology, drawn once and fixed: SET's first topology, and the baseline for its rewiring."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from torch import Generator, Tensor

from sparse_bench.errors import ConfigError
from sparse_bench.limits import Positive, Share, Width, one_of
from sparse_bench.sparsity.dynamics.tiles import as_mask, grids
from sparse_bench.sparsity.scheme import MaskScheme
from sparse_bench.sparsity.scores import DISTRIBUTIONS_BY_SCORE
from sparse_bench.sparsity.topology import DISTRIBUTIONS, Shape, bernoulli, exact
from sparse_bench.streams import Streams

SAMPLINGS = ("bernoulli", "exact")


def density_of(epsilon: float, shape: Shape) -> float:
    """SET's p = ε (n + m) / (n m) for a matrix of n × m entries, at most 1 (Mocanu et al. 2018, equation 1)."""
    return min(1.0, epsilon * sum(shape) / math.prod(shape))


@dataclass
class StaticER(MaskScheme):
    """Random connections; ``epsilon`` or ``density`` sets how many. Exactly one of the two must be given.

    Attributes:
        density: share of the selected layers' weights that exist; None if ``epsilon`` is given.
        epsilon: each layer has the density ε (n + m) / (n m); SET uses 20. None if ``density`` is given.
        distribution: how ``density`` is distributed over layers. ``erdos_renyi``: proportional to (n + m) / (n m), as
            with ``epsilon``. ``uniform``: the same in every layer. ``snip`` and ``lamp``: by the share of the highest
            scores of the dense model's weights that each layer has.
        sampling: ``bernoulli``: each connection exists independently, with its layer's density as probability, as in
            SET. ``exact``: each layer has exactly its density times its size, rounded.
        block: connections exist in square tiles of this side, as ``execution=block`` multiplies them; 1: single ones.
    """

    density: Share | None = None  # type: ignore[assignment]  # other schemes always have a density
    epsilon: Positive | None = None
    distribution: Annotated[str, one_of(*DISTRIBUTIONS, *DISTRIBUTIONS_BY_SCORE)] = "erdos_renyi"
    sampling: Annotated[str, one_of(*SAMPLINGS)] = "bernoulli"
    block: Width = 1

    def __post_init__(self) -> None:
        if (self.density is None) == (self.epsilon is None):
            raise ConfigError(
                f"Give one of sparsity.density (now {self.density}) and sparsity.epsilon (now {self.epsilon}), and set "
                "the other to null."
            )
        if self.epsilon is not None and self.distribution != "erdos_renyi":
            raise ConfigError("epsilon implies distribution=erdos_renyi; with distribution=uniform use density.")
        super().__post_init__()

    def asked(self) -> str | None:
        return super().asked() if self.epsilon is None else f"epsilon {self.epsilon:g}"

    def densities(self, shapes: Mapping[str, Shape]) -> dict[str, float]:
        """Layer → its nominal density."""
        if self.epsilon is not None:
            return {name: density_of(self.epsilon, shape) for name, shape in shapes.items()}
        counts = self.counts(shapes, self.distribution)
        return {name: counts[name] / math.prod(shape) for name, shape in shapes.items()}

    def first_topology(self, shapes: Mapping[str, Shape], streams: Streams) -> dict[str, Tensor]:
        tiles = grids(shapes, self.block)
        densities = self.densities(shapes if self.density is None else tiles)  # exact numbers are those of tiles

        def draw(shape: Shape, density: float, generator: Generator) -> Tensor:
            if self.sampling == "bernoulli":
                return bernoulli(shape, density, generator)
            return exact(shape, round(density * math.prod(shape)), generator)

        return {
            name: as_mask(draw(grid, densities[name], streams.torch("topology", name)), self.block)
            for name, grid in tiles.items()
        }
