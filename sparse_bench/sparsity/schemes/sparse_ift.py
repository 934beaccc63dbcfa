"""Sparse-IFT: a wider model whose sparse layers cost as much as those of the dense one."""

import math
from dataclasses import dataclass
from typing import Any

from sparse_bench.errors import ConfigError
from sparse_bench.limits import Fraction
from sparse_bench.sparsity.scheme import ModelFactory
from sparse_bench.sparsity.schemes.random import Random
from sparse_bench.sparsity.schemes.small_dense import FAR, selected_size, widening


@dataclass
class SparseIFT(Random):
    """All widths are 1 / √d times the configured ones, at a fixed random topology of density d.

    A square matrix then has as many weights, and a product as many multiply-accumulates, as in the dense model. It is
    the counterpart of ``small_dense``, which makes the model narrower instead. The width that the model offers nearest
    to this factor is taken. Layers that are not selected become wider and stay dense.

    Source: Thangarasa et al. 2023, "Sparse-IFT: sparse iso-FLOP transformations for maximizing training efficiency",
    section 2.3, Sparse Wide.

    Attributes:
        density: d.
    """

    density: Fraction = 1.0

    def build(self, factory: ModelFactory) -> Any:
        own, factor = factory.widths()[-1], 1 / math.sqrt(self.density)
        name, width = next(iter(own.items()))
        # Ask for twice as wide variants, as the nearest one may be wider than wanted.
        offered = factory.widths(**{key: math.ceil(2 * factor * value) for key, value in own.items()})
        nearest = min(offered, key=lambda variant: (abs(variant[name] - factor * width), variant[name]))
        if nearest[name] > 65536:
            raise ConfigError(f"sparsity.density = {self.density} takes {nearest[name]:,} units, which are too many.")
        self.widened = widening(own, nearest)
        self._dense, self._wide = (selected_size(self, factory, variant) for variant in (own, nearest))
        return factory(**nearest)

    def warnings(self) -> list[str]:
        taken = self.density * self._wide
        warning = (
            f"sparse_ift: the selected layers have {taken:,.0f} weights, and those of the dense model {self._dense:,}: "
            "not all of their sides grow with the width."
        )
        return [warning] if abs(taken - self._dense) > FAR * self._dense else []
