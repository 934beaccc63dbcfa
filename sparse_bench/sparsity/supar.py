"""SμPar: a start and learning rates with which the same settings suit every width and density.

With m the width over the base width, and ρ the density of a matrix: first weights have the standard deviation
σ / √(mρ), and Adam has the rate η / (mρ). Embeddings, biases and normalisations keep theirs.

Source: Dey et al. 2024, "Sparse maximal update parameterization" (arXiv 2405.15743), table 1.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.weights import SparseWeight
from sparse_bench.streams import Streams


def densities(names: Iterable[str], weights: Mapping[str, SparseWeight]) -> dict[str, float]:
    """Matrix → ρ, 1 where it is dense. Matrices without a weight are left out."""
    found = {name: weights[name].active / weights[name].size if name in weights else 1.0 for name in names}
    return {name: density for name, density in found.items() if density}


@torch.no_grad()
def draw(
    model: nn.Module,
    names: Iterable[str],
    weights: Mapping[str, SparseWeight],
    width_ratio: float,
    sigma: float,
    streams: Streams,
) -> None:
    """Draw the first weights of the matrices ``names`` from N(0, σ² / (mρ)), with σ = ``sigma`` at the base width."""
    for name, density in densities(names, weights).items():
        deviation, generator = sigma / (width_ratio * density) ** 0.5, streams.torch("init", name)
        if name not in weights:
            parameter = model.get_parameter(name)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)
        else:
            weights[name].set_values(torch.randn(weights[name].held, generator=generator) * deviation)


def scale_rates(
    optimizer: Optimizer,
    model: nn.Module,
    names: Iterable[str],
    weights: Mapping[str, SparseWeight],
    width_ratio: float,
) -> None:
    """Give each matrix in ``names`` a group of its own in ``optimizer``, with the rate η / (mρ).

    Raises:
        ConfigError: the optimizer is not Adam or AdamW.
    """
    if not isinstance(optimizer, Adam | AdamW):
        raise ConfigError(
            f"sparsity.width_ratio scales the rates of Adam, not of {type(optimizer).__name__}. "
            "Use optimizer=adam or adamw, or sparsity.width_ratio=null."
        )
    density_of = {id(model.get_parameter(name)): density for name, density in densities(names, weights).items()}
    for group in list(optimizer.param_groups):
        own = [parameter for parameter in group["params"] if id(parameter) in density_of]
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in density_of]
        for parameter in own:
            rate = group["lr"] / (width_ratio * density_of[id(parameter)])
            optimizer.add_param_group({**group, "params": [parameter], "lr": rate})
