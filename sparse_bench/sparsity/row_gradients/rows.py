"""Which rows of a table a batch touches, and the table's gradient, which holds those and no others.

torch's own ``sparse=True`` leaves the gradient with one row a token, repeats included, and sorts it out in every later
step. Here the tokens are sorted once, in the forward pass: the gradient that reaches the optimizer has each row once,
and its rows are summed by the kernel of :func:`torch.nn.functional.embedding_bag`.

Only on the CPU, where the host sees every number anyway. On other devices the number of different rows is not known
to the host without waiting for the device, so there the gradient keeps one row a token: its shape is known beforehand.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F


def host_sees(tensor: Tensor) -> bool:
    """Whether shapes may depend on the numbers in ``tensor`` without anyone waiting for a device."""
    return tensor.device.type == "cpu"


class TouchedRows(NamedTuple):
    """The rows of a table that N looked-up indices touch.

    Attributes:
        rows: the rows: each once and sorted [U] where the host sees them, else the N indices as they are.
        order: the permutation that sorts the indices [N]; None where ``rows`` are not sorted.
        starts: where the indices of each row start among the sorted ones [U]; None likewise.
    """

    rows: Tensor
    order: Tensor | None = None
    starts: Tensor | None = None

    @classmethod
    def of(cls, indices: Tensor) -> Self:
        """The rows that ``indices`` [N] touch."""
        if not host_sees(indices):
            return cls(indices)
        ordered, order = torch.sort(indices, stable=True)
        rows, counts = torch.unique_consecutive(ordered, return_counts=True)
        return cls(rows, order, counts.cumsum(0) - counts)

    def sums(self, grad: Tensor, scale: Tensor | None = None) -> Tensor:
        """The gradient of each of :attr:`rows` [U, D].

        Args:
            grad: gradients of the looked-up vectors [N, D].
            scale: factor on each of them [N]; None: 1.
        """
        return self._summed(grad, self.order, scale)

    def sums_of_bags(self, grad: Tensor, offsets: Tensor, scale: Tensor | None = None) -> Tensor:
        """The same where the looked-up vectors were summed in bags.

        Args:
            grad: gradients of the bags [B, D].
            offsets: where each bag starts among the indices [B], the first at 0.
            scale: factor with which each index contributed to its bag [N]; None: 1.
        """
        tokens = torch.arange(self.rows.shape[0], device=grad.device) if self.order is None else self.order
        bags = torch.searchsorted(offsets[1:], tokens, right=True)
        return self._summed(grad, bags, scale)

    def _summed(self, grad: Tensor, source: Tensor | None, scale: Tensor | None) -> Tensor:
        """Sums for each of :attr:`rows`; ``source``: row of ``grad`` of each index, these sorted by row [N]."""
        if self.order is None or self.starts is None or source is None:
            values = grad if source is None else grad.index_select(0, source)
            return values if scale is None else values * scale[:, None]
        scale = None if scale is None else scale.index_select(0, self.order)
        return F.embedding_bag(source, grad.contiguous(), self.starts, mode="sum", per_sample_weights=scale)


def sparse_in_rows(rows: Tensor, values: Tensor, shape: torch.Size) -> Tensor:
    """The gradient of a table of ``shape`` [V, ...] that is ``values`` [U, ...] in ``rows`` [U], and zero elsewhere."""
    return torch.sparse_coo_tensor(rows[None], values, shape, check_invariants=False)
