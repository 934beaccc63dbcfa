"""The one function that layers call: a sparse linear map, computed in the way that was asked for."""

import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from sparse_bench.errors import ConfigError, unknown_choice
from sparse_bench.sparsity.kernels import auto
from sparse_bench.sparsity.kernels.block import block_linear, tile_side
from sparse_bench.sparsity.kernels.cpu import kernel_available, kernel_linear
from sparse_bench.sparsity.kernels.csr import csr_linear
from sparse_bench.sparsity.kernels.masked import masked_linear
from sparse_bench.sparsity.kernels.structure import SparseStructure

_Linear = Callable[[Tensor, SparseStructure, Tensor, Tensor | None], Tensor]
_WAYS: dict[str, _Linear] = {
    "kernel": kernel_linear,
    "csr": csr_linear,
    "block": block_linear,
    "masked": masked_linear,
}
#: How a sparse product can be computed; every way gives the same numbers to rounding.
EXECUTIONS = ("auto", *_WAYS)

#: Side of the smallest tiles whose dense products can be faster than single weights.
_WORTHWHILE_TILE = 8


def sparse_linear(
    x: Tensor, structure: SparseStructure, values: Tensor, bias: Tensor | None = None, execution: str = "auto"
) -> Tensor:
    """y = x Wᵀ + b with a sparse W [out, in]; gradients for ``x``, ``values`` and ``bias``.

    Args:
        x: Input [..., in], of any strides.
        structure: Which entries of W exist.
        values: Their values [entries], in the structure's order.
        bias: [out] or None.
        execution: ``kernel`` (the project's own, on the CPU), ``csr`` (torch's sparse products), ``block`` (dense
            products of the tiles that the structure is made of), ``masked`` (a full matrix with zeros) or ``auto``
            (times them once for this shape, device and number of threads).

    Returns:
        [..., out]. Under autocast in the autocast dtype; all but ``masked`` compute in float32 all the same.

    Raises:
        ConfigError: ``execution`` is unknown, or ``kernel`` on another device than the CPU.
    """
    if x.is_meta:  # no numbers, so no way of computing them: only shapes
        return masked_linear(x, structure, values, bias)
    if execution == "auto":
        execution = auto.choose(x, structure, values, bias, _candidates(x, structure), sparse_linear)
    elif execution not in _WAYS:
        raise ConfigError(unknown_choice("execution", execution, EXECUTIONS))
    if execution == "masked":
        return masked_linear(x, structure, values, bias)
    if execution == "kernel":
        if not x.is_cpu:
            raise ConfigError(f"execution 'kernel' computes on the CPU, the input is on {x.device}; use csr or masked")
        execution = _kernel_or_csr()
    return _in_single_precision(_WAYS[execution], x, structure, values, bias)


def _candidates(x: Tensor, structure: SparseStructure) -> tuple[str, ...]:
    """The ways that are worth timing, on this device."""
    kernel = ("kernel",) if x.is_cpu and _kernel_or_csr() == "kernel" else ()
    block = ("block",) if tile_side(structure) >= _WORTHWHILE_TILE else ()
    return (*kernel, "csr", *block, "masked")


@cache
def _kernel_or_csr() -> str:
    """``kernel`` where it is available, else ``csr`` with one warning."""
    available, reason = kernel_available()
    if available:
        return "kernel"
    warnings.warn(f"The sparse kernel is not available, 'csr' is used instead: {reason}", RuntimeWarning, stacklevel=3)
    return "csr"


def _in_single_precision(
    way: _Linear, x: Tensor, structure: SparseStructure, values: Tensor, bias: Tensor | None
) -> Tensor:
    """Call ``way`` in float32 where the input or autocast asks for less, and return the dtype that was asked for."""
    device = x.device.type
    autocast = torch.is_autocast_enabled(device)
    if not autocast and x.dtype in (torch.float32, torch.float64):
        return way(x, structure, values, bias)
    result = torch.get_autocast_dtype(device) if autocast and x.dtype != torch.float64 else x.dtype
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    with torch.autocast(device, enabled=False):
        y = way(x.to(compute), structure, values.to(compute), None if bias is None else bias.to(compute))
    return y.to(result)
