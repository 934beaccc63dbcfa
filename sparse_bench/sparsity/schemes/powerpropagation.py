"""Powerpropagation: weights are powers of what is trained, so that small ones stay small; then they are pruned."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn

from sparse_bench.sparsity.held import check_masked, hold
from sparse_bench.sparsity.schemes.gmp import GMP
from sparse_bench.sparsity.weights import SparseWeight
from sparse_bench.streams import Streams


@dataclass
class Powerpropagation(GMP):
    """Trains v in the weight w = v |v|^(α−1), and prunes the smallest |w| as GMP does.

    A step changes w in proportion to its own size, so large weights grow and small ones stay near zero. Training starts
    from the model's own first weights u, with v = sign(u) |u|^(1/α). The optimizer, and its weight decay, see v;
    clipping sees the gradient of w.

    Source: Schwarz et al. 2021, "Powerpropagation: a sparsity inducing weight reparameterisation" (arXiv 2110.00296),
    equation 1, with gradual pruning.

    Attributes:
        alpha: α; 1 is GMP, the paper uses 2 to 5.
    """

    holds_hidden: ClassVar[bool] = True

    alpha: Annotated[float, Field(ge=1, le=16)] = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_masked(self)

    def install(self, model: nn.Module, streams: Streams) -> dict[str, SparseWeight]:
        return hold(model, self.selected, power=self.alpha, comes_back=False)
