"""Compiled code for rows of large tables on the CPU; see ``kernels/native/table_rows.cpp``.

Without a compiler, or for tensors that the compiled code does not support, the functions use torch instead.
:func:`adam_rows` then does nothing and returns False.
"""

import ctypes
import warnings
from functools import cache

import torch
from torch import Tensor

from sparse_bench.kernels.build import BuildError, load_library

#: Longest polynomial for which there is compiled code.
MOST_TERMS = 24
#: dtype → suffix of the compiled functions' names, and the type in C.
_TYPES = {torch.float32: ("f32", ctypes.c_float), torch.float64: ("f64", ctypes.c_double)}


def compiled() -> bool:
    """Whether the compiled code is available; without it the last digits of results differ."""
    return _library() is not None


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled kernels; None, with a warning, if they cannot be compiled."""
    try:
        library = load_library()
    except BuildError as error:
        warnings.warn(
            f"Rows of tables are updated without compiled code, which is slower: {error}", RuntimeWarning, stacklevel=3
        )
        return None
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    for ending, number in _TYPES.values():
        adam, add = getattr(library, f"adam_rows_{ending}"), getattr(library, f"add_rows_{ending}")
        # count, width, rows, weight, first moment, second moment, copies, numbers, terms, eps, threads
        adam.argtypes = [size, size, *[pointer] * 6, size, number, ctypes.c_int]
        # count, width, rows, values, table, scale
        add.argtypes = [size, size, *[pointer] * 3, number]
        adam.restype = add.restype = None
    for function in (library.put_rows, library.take_rows):
        function.argtypes = [size, size, *[pointer] * 3]
        function.restype = None
    return library


def adam_rows(
    weight: Tensor,
    first: Tensor,
    second: Tensor,
    rows: Tensor | None,
    numbers: Tensor,
    eps: float,
    copies: Tensor | None = None,
) -> bool:
    """Bring rows of a table up to date, in place.

    :class:`sparse_bench.row_sparse.deferral.AdamDeferral` explains the computation. The tensors have one dtype, float32
    or float64, and are contiguous.

    Args:
        weight: the table [V, ...].
        first: Adam's first moment of it [V, ...].
        second: Adam's second moment of it [V, ...].
        rows: the rows to update, distinct [U], int64; None: all rows.
        numbers: for each of these rows B̄, the factors on the weight, on the first and on the second moment, and the
            coefficients of the polynomial, lowest power first [U, 4 + terms].
        eps: Adam's ε.
        copies: if given, receives the new rows of weight and moments [3, U, ...]; then only ``weight`` is changed.

    Returns:
        Whether the update was done. False: nothing was changed, as the compiled code cannot do it.

    Raises:
        ValueError: the shapes do not match.
    """
    tensors, terms = [weight, first, second, numbers], numbers.shape[1] - 4
    if copies is not None:
        tensors.append(copies)
    if weight.dtype not in _TYPES or not 1 <= terms <= MOST_TERMS:
        return False
    if any(not tensor.is_cpu or tensor.dtype != weight.dtype or not tensor.is_contiguous() for tensor in tensors):
        return False
    count = weight.shape[0] if rows is None else rows.shape[0]
    width = weight.numel() // weight.shape[0]
    fits = first.shape == weight.shape == second.shape and numbers.shape[0] == count
    if not fits or (copies is not None and copies.numel() != 3 * count * width):
        raise ValueError(f"{list(numbers.shape)} numbers and moments {list(first.shape)} for {count} rows of the table")
    library = _library()
    if library is None:
        return False
    rows = None if rows is None else rows.contiguous()
    getattr(library, f"adam_rows_{_TYPES[weight.dtype][0]}")(
        count,
        width,
        None if rows is None else rows.data_ptr(),
        weight.data_ptr(),
        first.data_ptr(),
        second.data_ptr(),
        None if copies is None else copies.data_ptr(),
        numbers.data_ptr(),
        terms,
        eps,
        torch.get_num_threads(),
    )
    return True


def put_rows(table: Tensor, rows: Tensor, values: Tensor) -> None:
    """Copy ``values`` [U, ...] into ``rows`` [U] (int64) of ``table`` [V, ...]. Repeated rows need equal values."""
    library = _library() if _plain(table, rows, values) else None
    if library is None or not values.is_contiguous():
        table.index_copy_(0, rows, values)
        return
    rows, width = rows.contiguous(), _bytes_in_row(table)
    library.put_rows(rows.shape[0], width, rows.data_ptr(), values.data_ptr(), table.data_ptr())


def take_rows(table: Tensor, rows: Tensor) -> Tensor:
    """A copy of ``rows`` [U] (int64) of ``table`` [V, ...]: [U, ...]."""
    library = _library() if _plain(table, rows) else None
    if library is None:
        return table.index_select(0, rows)
    rows, values = rows.contiguous(), table.new_empty(rows.shape[0], *table.shape[1:])
    library.take_rows(rows.shape[0], _bytes_in_row(table), rows.data_ptr(), table.data_ptr(), values.data_ptr())
    return values


def add_rows(table: Tensor, rows: Tensor, values: Tensor, scale: float) -> None:
    """Add ``scale`` · ``values`` [U, ...] to ``rows`` [U] (int64) of ``table`` [V, ...]. Repeated rows add up."""
    library = _library() if table.dtype in _TYPES and _plain(table, rows, values) else None
    if library is None or not values.is_contiguous():
        table.index_add_(0, rows, values, alpha=scale)
        return
    rows, width = rows.contiguous(), table.numel() // table.shape[0]
    add = getattr(library, f"add_rows_{_TYPES[table.dtype][0]}")
    add(rows.shape[0], width, rows.data_ptr(), values.data_ptr(), table.data_ptr(), scale)


def _plain(table: Tensor, rows: Tensor, values: Tensor | None = None) -> bool:
    """Whether the compiled code supports these tensors. The rows themselves are not checked."""
    fits = values is None or (values.dtype == table.dtype and values.shape == (rows.shape[0], *table.shape[1:]))
    return fits and table.is_cpu and rows.is_cpu and table.is_contiguous() and table.shape[0] > 0


def _bytes_in_row(table: Tensor) -> int:
    return table.numel() // table.shape[0] * table.element_size()
