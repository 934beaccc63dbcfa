"""Clipping by the norm of all gradients together, dense ones and those that are sparse in rows."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sparse_bench.sparsity.row_gradients import sparse_in_rows
from sparse_bench.training.row_sparse.gradients import summed


@torch.no_grad()
def clip_gradient_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale all gradients so that their joint L2 norm is at most ``max_norm``; returns the norm before (scalar).

    :func:`torch.nn.utils.clip_grad_norm_`, which refuses sparse gradients. The norm of one of those is that of the
    dense gradient that it stands for: repeated rows are added up first.
    """
    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    if not any(parameter.grad.is_sparse for parameter in parameters if parameter.grad is not None):
        return nn.utils.clip_grad_norm_(parameters, max_norm)
    values = [_values(parameter) for parameter in parameters]
    norm = nn.utils.get_total_norm(values)
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for value in values:
        value.mul_(factor)
    return norm


def _values(parameter: nn.Parameter) -> Tensor:
    """What of a gradient is stored; that of a sparse one first gets each row's sum in one place."""
    gradient = parameter.grad
    assert gradient is not None
    if not gradient.is_sparse:
        return gradient
    rows, sums = summed(gradient)
    parameter.grad = sparse_in_rows(rows, sums, gradient.shape)
    return sums
