"""Gradients that are sparse in rows: torch's COO tensors with one sparse dimension, [V, D].

A row may occur several times in one, and its gradient is the sum. On the CPU the rows are made distinct. On other
devices their number is not known to the host without waiting, so there repeats stay, in a fixed shape: the first entry
of a row holds its sum and the repeats hold zeros, so that the norm of all values is that of the gradient.
"""

import torch
from torch import Tensor

from sparse_bench.sparsity.row_gradients import host_sees


def summed(gradient: Tensor, distinct: bool = False) -> tuple[Tensor, Tensor]:
    """Sorted rows [U] and their gradients [U, D], see above; ``distinct`` says that they are known to be so already."""
    if host_sees(gradient):
        rows = gradient._indices()[0]
        # Autograd does not hand on that a gradient is coalesced, and coalescing costs more than looking.
        if distinct or bool((rows[1:] > rows[:-1]).all()):
            return rows, gradient._values()
        gradient = gradient.coalesce()
        return gradient._indices()[0], gradient._values()
    rows, order = torch.sort(gradient._indices()[0], stable=True)
    values = gradient._values()
    return rows, torch.zeros_like(values).index_add_(0, first_entries(rows), values.index_select(0, order))


def first_entries(rows: Tensor) -> Tensor:
    """For each of the sorted ``rows`` [U], the position of the first one equal to it."""
    return torch.searchsorted(rows, rows)


def whole(rows: Tensor, sums: Tensor) -> Tensor:
    """What :func:`summed` gave, with the sum in every entry of a row, so that all of them make the same step."""
    return sums if host_sees(rows) else sums.index_select(0, first_entries(rows))


def dense(gradient: Tensor) -> Tensor:
    """The gradient of all rows [V, D]."""
    values = gradient._values()
    return values.new_zeros(gradient.shape).index_add_(0, gradient._indices()[0], values)
