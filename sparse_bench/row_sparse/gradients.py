"""Row-sparse gradients: torch's COO tensors of a table [V, D] with one sparse dimension, the rows.

With torch's own ``sparse=True``, the gradient has one row per token, repeats included; every later step has to sort and
sum them. Here the tokens are sorted once, in the forward pass. The gradient that reaches the optimizer has each row
once. The kernel of :func:`torch.nn.functional.embedding_bag` sums its rows.

That holds on the CPU. On other devices, the host would have to wait for the device to learn the number of different
rows. So there the gradient keeps one row per token, because that shape is known in advance. For a step, the first entry
of a row gets the sum and its repeats get zeros, so that the norm of all values is the norm of the gradient.
"""

from collections.abc import Iterable
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def readable_without_wait(tensor: Tensor) -> bool:
    """Whether the host can read ``tensor`` without waiting for a device, so that shapes may depend on its numbers."""
    return tensor.device.type == "cpu"


class TouchedRows(NamedTuple):
    """The rows of a table that a look-up of N indices touches.

    Attributes:
        rows: on the CPU the distinct rows, sorted [U]; on other devices the indices themselves [N], and then U = N.
        order: the permutation that sorts the indices [N]; None where ``rows`` are not sorted.
        starts: position of each row's first index among the sorted indices [U]; None where ``rows`` are not sorted.
    """

    rows: Tensor
    order: Tensor | None = None
    starts: Tensor | None = None

    @classmethod
    def of(cls, indices: Tensor) -> Self:
        """The rows that ``indices`` [N] touch."""
        if not readable_without_wait(indices):
            return cls(indices)
        ordered, order = torch.sort(indices, stable=True)
        rows, counts = torch.unique_consecutive(ordered, return_counts=True)
        return cls(rows, order, counts.cumsum(0) - counts)

    def sums(self, grad: Tensor, scale: Tensor | None = None, offsets: Tensor | None = None) -> Tensor:
        """The gradient of each of :attr:`rows` [U, D].

        Args:
            grad: gradients of the looked-up vectors [N, D], or of the bags that sum them [B, D].
            scale: factor on each looked-up vector [N]; None: 1.
            offsets: position of each bag's first index [B], starting with 0; None: there are no bags.
        """
        source = self.order  # row of grad of each index
        if offsets is not None:
            tokens = torch.arange(self.rows.shape[0], device=grad.device) if source is None else source
            source = torch.searchsorted(offsets[1:], tokens, right=True)
        if self.order is None or self.starts is None or source is None:
            values = grad if source is None else grad.index_select(0, source)
            return values if scale is None else values * scale[:, None]
        scale = None if scale is None else scale.index_select(0, self.order)
        return F.embedding_bag(source, grad.contiguous(), self.starts, mode="sum", per_sample_weights=scale)


def row_sparse(rows: Tensor, values: Tensor, shape: torch.Size) -> Tensor:
    """The gradient of a table of ``shape`` [V, ...]: ``values`` [U, ...] in ``rows`` [U], zero elsewhere."""
    return torch.sparse_coo_tensor(rows[None], values, shape, check_invariants=False)


def summed(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted rows [U] of a row-sparse gradient, and their sums [U, D].

    Not on the CPU, rows repeat: the first entry of a row holds the sum, its repeats hold zeros.
    """
    if readable_without_wait(gradient):
        rows = gradient._indices()[0]
        # Autograd loses the mark that a gradient is coalesced, and checking costs less than coalescing again.
        if not bool((rows[1:] > rows[:-1]).all()):
            gradient = gradient.coalesce()
        return gradient._indices()[0], gradient._values()
    rows, order = torch.sort(gradient._indices()[0], stable=True)
    values = gradient._values()
    return rows, torch.zeros_like(values).index_add_(0, _first_entries(rows), values.index_select(0, order))


def repeated(rows: Tensor, sums: Tensor) -> Tensor:
    """The sums of :func:`summed` with the sum in every entry of a row, so that repeats make the same step."""
    return sums if readable_without_wait(rows) else sums.index_select(0, _first_entries(rows))


def _first_entries(rows: Tensor) -> Tensor:
    """For each of the sorted ``rows`` [U], the position of the first entry with the same row."""
    return torch.searchsorted(rows, rows)


@torch.no_grad()
def clip_gradient_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale all gradients so that their joint L2 norm is at most ``max_norm``; returns the norm before (scalar).

    Like :func:`torch.nn.utils.clip_grad_norm_`, which does not accept row-sparse gradients. The norm of a row-sparse
    gradient is that of the equivalent dense gradient: repeated rows are summed first.
    """
    gradients = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
    if not any(gradient.is_sparse for _, gradient in gradients):
        return nn.utils.clip_grad_norm_([parameter for parameter, _ in gradients], max_norm)
    values = []
    for parameter, gradient in gradients:
        if gradient.is_sparse:
            rows, sums = summed(gradient)
            parameter.grad = row_sparse(rows, sums, gradient.shape)
        values.append(sums if gradient.is_sparse else gradient)
    norm = nn.utils.get_total_norm(values)
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for value in values:
        value.mul_(factor)
    return norm
