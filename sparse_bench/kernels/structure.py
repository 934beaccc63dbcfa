"""Which entries of a weight matrix [out, in] exist, in the forms that sparse products walk through.

The order of the stored entries is that of CSR: by row, and by column within a row. A layer's trainable values
[entries] are in that order. Everything but the CSR indices is derived from them when first needed and kept until the
structure changes, so that rewiring pays for nothing that its execution does not use.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparse_bench.errors import CheckpointError

#: Indices are 32-bit: half the memory traffic of the products. Places count padding too, hence the margin.
_INDEX = torch.int32
_MOST_ENTRIES = 2**30
#: The stamp of a gradient that has never been looked at.
UNSEEN = (-1, -1)


class SparseStructure(nn.Module):
    """The structure of one sparse weight matrix, as a module so that it moves, is saved and loads with its layer.

    Buffers: ``row_start`` int32 [out + 1] and ``column`` int32 [entries], both in the state dict. Loading accepts
    another number of entries than the structure has (a pruned layer's checkpoint); the owner of the values has to
    resize them.
    """

    row_start: Tensor
    column: Tensor
    #: Gradient of the full matrix [out, in], summed over the backward passes since it was asked for; else None.
    dense_gradient: Tensor | None

    def __init__(self, mask: Tensor) -> None:
        """Build from a boolean mask [out, in].

        Raises:
            ValueError: ``mask`` is not a boolean matrix.
        """
        super().__init__()
        self._derived: dict[str, Any] = {}
        self.dense_gradient = None
        self._seen, self._task = UNSEEN, -1
        self.out_features, self.in_features = _checked(mask).shape
        self.register_buffer("row_start", None)
        self.register_buffer("column", None)
        self._set(*_compress(mask))

    @classmethod
    def from_csr(cls, row_start: Tensor, column: Tensor, in_features: int) -> "SparseStructure":
        """Build from CSR indices: ``row_start`` [out + 1] and ``column`` [entries], ascending within each row.

        Raises:
            ValueError: The indices are no CSR matrix with ``in_features`` columns.
        """
        _validate(row_start, column, in_features)
        structure = cls(torch.empty(row_start.numel() - 1, 0, dtype=torch.bool, device=column.device))
        structure.in_features = in_features
        structure._set(row_start.to(_INDEX).contiguous(), column.to(_INDEX).contiguous())
        return structure

    @property
    def entries(self) -> int:
        """Number of stored entries, a host integer."""
        return self.column.numel()

    @property
    def device(self) -> torch.device:
        """Where the indices are."""
        return self.column.device

    @property
    def density(self) -> float:
        """Share of the matrix that is stored; 1 for a matrix without entries at all."""
        size = self.out_features * self.in_features
        return self.entries / size if size else 1.0

    def rewire(self, mask: Tensor) -> None:
        """Change the structure to ``mask`` [out, in], on the device where the structure is.

        Values in the old order are no longer meaningful: carry them over with :meth:`scatter` before and
        :meth:`gather` after.

        Raises:
            ValueError: ``mask`` is not boolean or of another shape.
        """
        if tuple(_checked(mask).shape) != (self.out_features, self.in_features):
            raise ValueError(f"the structure is {self.out_features} × {self.in_features}, the mask {tuple(mask.shape)}")
        self._set(*_compress(mask.to(self.column.device)))

    def _set(self, row_start: Tensor, column: Tensor) -> None:
        if column.numel() > _MOST_ENTRIES:
            raise ValueError(f"a structure holds at most {_MOST_ENTRIES} entries, not {column.numel()}")
        self.row_start, self.column = row_start, column
        self._derived.clear()

    def derived(self, name: str, build: Any) -> Any:
        """What ``build()`` makes of the present indices, kept under ``name`` until they change."""
        if name not in self._derived:
            with torch.inference_mode(False):  # a tensor that is made in that mode could not be used in training later
                self._derived[name] = build()
        return self._derived[name]

    def rows(self) -> Tensor:
        """Row of each entry, int64 [entries]."""

        def build() -> Tensor:
            row = torch.arange(self.out_features, device=self.column.device)
            return torch.repeat_interleave(row, self.row_start.diff(), output_size=self.entries)

        return self.derived("rows", build)

    def positions(self) -> Tensor:
        """Place of each entry in the flattened matrix, int64 [entries]."""
        return self.derived("positions", lambda: self.rows() * self.in_features + self.column)

    def by_column(self) -> tuple[Tensor, Tensor, Tensor]:
        """CSC form: int32 ``column_start`` [in + 1], ``row`` [entries], and ``origin`` int64 [entries].

        ``values[origin]`` are the values in CSC order; ``origin`` is the permutation from CSC to CSR places.
        """

        def build() -> tuple[Tensor, Tensor, Tensor]:
            origin = torch.argsort(self.column, stable=True)
            column_start = torch.zeros(self.in_features + 1, dtype=_INDEX, device=self.column.device)
            counts = torch.zeros(self.in_features, dtype=_INDEX, device=self.column.device)
            counts.index_add_(0, self.column, torch.ones_like(self.column))
            torch.cumsum(counts, 0, dtype=_INDEX, out=column_start[1:])
            return column_start, self.rows()[origin].to(_INDEX), origin

        return self.derived("by_column", build)

    def mask(self) -> Tensor:
        """The structure as a boolean matrix [out, in]."""
        return self.scatter(torch.ones(self.entries, dtype=torch.bool, device=self.column.device))

    def gather(self, matrix: Tensor) -> Tensor:
        """Stored entries [entries] of a full matrix [out, in]. Differentiable."""
        return matrix.reshape(-1).gather(0, self.positions())

    def scatter(self, values: Tensor) -> Tensor:
        """The full matrix [out, in] of ``values`` [entries], zero elsewhere. Differentiable."""
        flat = values.new_zeros(self.out_features * self.in_features)
        return flat.scatter(0, self.positions(), values).view(self.out_features, self.in_features)

    def keep_dense_gradient(self, wanted: bool) -> None:
        """Gather :attr:`dense_gradient` from now on, or forget it. Meanwhile layers multiply with :meth:`full`."""
        if not wanted:
            self.dense_gradient = None
        elif self.dense_gradient is None:
            self.dense_gradient = torch.zeros(self.out_features, self.in_features, device=self.column.device)

    def follow(self, values: nn.Parameter) -> None:
        """Note each gradient of ``values`` [entries], so that :attr:`dense_gradient` starts again where theirs does."""

        def note(parameter: Tensor) -> None:
            assert parameter.grad is not None
            self._seen = stamp(parameter.grad)

        if values.requires_grad:
            values.register_post_accumulate_grad_hook(note)

    def full(self, values: Tensor) -> Tensor:
        """:meth:`scatter`, and the gradient that reaches the full matrix is added to :attr:`dense_gradient`."""
        matrix = self.scatter(values)
        if matrix.requires_grad:
            matrix.register_hook(partial(self._add_dense_gradient, values))
        return matrix

    def _add_dense_gradient(self, values: Tensor, gradient: Tensor) -> None:
        if self.dense_gradient is None:
            return
        task, summed = torch._C._current_graph_task_id(), values.grad
        if task != self._task and summed is None:
            self.dense_gradient.zero_()  # a new sum begins, and what an earlier one left belongs to no step
        elif task != self._task and summed is not None and stamp(summed) != self._seen:
            inside = self.gather(self.dense_gradient)
            self.dense_gradient.copy_(carried(self.dense_gradient, inside, summed))
        self._task = task
        self.dense_gradient += gradient

    def extra_repr(self) -> str:
        """Sizes for ``repr``."""
        return f"{self.out_features} × {self.in_features}, entries={self.entries}, density={self.density:.4g}"

    def _apply(self, fn: Any, recurse: bool = True) -> "SparseStructure":
        self._derived.clear()
        super()._apply(fn, recurse)
        if self.dense_gradient is not None:
            self.dense_gradient = self.dense_gradient.to(self.column.device)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_derived": {}}  # what is derived may be a plan of one process

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        row_start, column = state_dict.get(prefix + "row_start"), state_dict.get(prefix + "column")
        if isinstance(row_start, Tensor) and isinstance(column, Tensor) and row_start.shape == self.row_start.shape:
            try:
                _validate(row_start, column, self.in_features)
            except ValueError as error:
                raise CheckpointError(f"the structure '{prefix.rstrip('.')}' cannot be loaded: {error}") from error
            if column.shape != self.column.shape:
                self.column = torch.empty_like(column, dtype=_INDEX, device=self.column.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._derived.clear()


def stamp(gradient: Tensor) -> tuple[int, int]:
    """A mark that changes when a gradient is written to or replaced."""
    return 0 if gradient.is_sparse else gradient.data_ptr(), gradient._version


def carried(earlier: Tensor, inside: Tensor, standing: Tensor) -> Tensor:
    """A sum of dense gradients as a loop has left it, which has written to the gradients since.

    Gradients that the loop has cleared leave nothing. Those that it has scaled, as a clipping does, scale all entries.
    Between processes that average their gradients in each pass, the sum stays as it is.

    Args:
        earlier: the sum over earlier passes [out, in].
        inside: its entries in the topology, zeros elsewhere or without all others.
        standing: the gradient of these as it is now, of the same shape.
    """
    factor = standing.norm() / inside.norm()
    known = factor.isfinite() & (factor > 0)
    averaged = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.where(known, earlier if averaged else earlier * factor, torch.zeros_like(earlier))


def places_of(mask: Tensor) -> Tensor:
    """Where a boolean tensor is true, as numbers of its entries, row after row: int64, ascending."""
    flat = mask.reshape(-1)
    if flat.is_cpu:  # NumPy takes two thirds of the time of torch
        return torch.from_numpy(np.flatnonzero(flat.numpy()))
    return flat.nonzero().squeeze(1)


def _checked(mask: Tensor) -> Tensor:
    if mask.dtype != torch.bool or mask.dim() != 2:
        raise ValueError(f"a structure needs a boolean matrix, not {mask.dtype} of shape {tuple(mask.shape)}")
    return mask


def _compress(mask: Tensor) -> tuple[Tensor, Tensor]:
    """CSR indices of a mask."""
    position = places_of(mask)
    first = torch.arange(mask.shape[0] + 1, device=mask.device) * mask.shape[1]
    row_start = torch.searchsorted(position, first).to(_INDEX)  # sums over a mask would take four times its memory
    column = position.remainder_(max(1, mask.shape[1])).to(_INDEX)
    return row_start, column


def _validate(row_start: Tensor, column: Tensor, in_features: int) -> None:
    """Raise ValueError unless the indices are CSR with ascending columns. The kernel trusts them with addresses."""
    if row_start.dim() != 1 or column.dim() != 1 or row_start.numel() == 0:
        raise ValueError("CSR indices are two vectors, the first of them one longer than the matrix has rows")
    if column.is_meta:
        return
    start, counts = row_start.long(), row_start.long().diff()
    if int(start[0]) != 0 or int(start[-1]) != column.numel() or bool((counts < 0).any()):
        raise ValueError(f"row starts must rise from 0 to the number of entries, {column.numel()}")
    if bool(((column < 0) | (column >= in_features)).any()):
        raise ValueError(f"column indices must lie in [0, {in_features})")
    row = torch.repeat_interleave(torch.arange(counts.numel(), device=column.device), counts)
    if bool((row[1:] == row[:-1]).logical_and(column[1:] <= column[:-1]).any()):
        raise ValueError("column indices must ascend within each row")
