"""A sparse linear map, computed in the requested way: the function that sparse layers call."""

import warnings
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec

import torch
from torch import Tensor

from sparse_bench.errors import ConfigError, unknown_choice
from sparse_bench.kernels import auto
from sparse_bench.kernels.block import block_linear, tile_side
from sparse_bench.kernels.cpu import Availability, kernel_available, kernel_linear
from sparse_bench.kernels.csr import csr_linear
from sparse_bench.kernels.masked import masked_linear
from sparse_bench.kernels.structure import SparseStructure

_Linear = Callable[[Tensor, SparseStructure, Tensor, Tensor | None], Tensor]


def _triton_linear(x: Tensor, structure: SparseStructure, values: Tensor, bias: Tensor | None) -> Tensor:
    from sparse_bench.kernels.gpu import gpu_linear  # imports triton, which is optional

    return gpu_linear(x, structure, values, bias)


#: The project's own kernels, by type of device.
_KERNELS: dict[str, _Linear] = {"cpu": kernel_linear, "cuda": _triton_linear}
_WAYS: dict[str, _Linear] = {
    "kernel": kernel_linear,
    "csr": csr_linear,
    "block": block_linear,
    "masked": masked_linear,
}
#: Ways to compute a sparse product; all give the same numbers up to rounding.
EXECUTIONS = ("auto", *_WAYS)

#: Side of the smallest tiles for which dense products can be faster than products with single weights.
_WORTHWHILE_TILE = 8
#: Entries of the largest full matrix (half a gigabyte in float32) for which ``masked`` is timed.
_LARGEST_FULL = 2**27


def sparse_linear(
    x: Tensor, structure: SparseStructure, values: Tensor, bias: Tensor | None = None, execution: str = "auto"
) -> Tensor:
    """y = x Wᵀ + b with a sparse W [out, in]; differentiable for ``x``, ``values`` and ``bias``.

    Args:
        x: the input [..., in], with any strides.
        structure: which entries of W exist.
        values: their values [entries], in the structure's order.
        bias: [out] or None.
        execution: ``kernel`` (the project's own: compiled C++ on the CPU, Triton on CUDA), ``csr`` (torch's sparse
            products), ``block`` (dense products over tiles), ``masked`` (a full matrix with zeros), or ``auto``
            (the fastest of these, timed once for this shape, device and number of threads).

    Returns:
        [..., out], in the dtype of ``x`` or of autocast. In lower precision than float32, all ways but ``masked``
        compute in float32 and convert the result. ``kernel`` on the CPU reads and writes bfloat16 itself, multiplies
        with weights rounded to it, and adds up in float32.

    Raises:
        ConfigError: ``execution`` is unknown, or it is ``kernel`` on a device without one.
    """
    if x.is_meta:  # meta tensors have shapes and no numbers, so any way will do
        return masked_linear(x, structure, values, bias)
    if execution == "auto":
        execution = _fastest(x, structure, values, bias)
    elif execution not in _WAYS:
        raise ConfigError(unknown_choice("execution", execution, EXECUTIONS))
    if execution == "masked":
        return masked_linear(x, structure, values, bias)
    if execution == "kernel":
        if x.device.type not in _KERNELS:
            devices = " and ".join(_KERNELS)
            raise ConfigError(
                f"execution 'kernel' computes on {devices}, the input is on {x.device}; use csr or masked"
            )
        execution = kernel_or_csr(x.device.type)
    way = _KERNELS[x.device.type] if execution == "kernel" else _WAYS[execution]
    return _in_its_precision(way, x, structure, values, bias)


def _fastest(x: Tensor, structure: SparseStructure, values: Tensor, bias: Tensor | None) -> str:
    """The execution that ``auto`` chooses for these arguments."""
    setting = auto.Setting.of(x)

    def prepare() -> Callable[[str], object]:
        size = (2**setting.power, structure.in_features)
        made = torch.full(size, 0.5, dtype=values.dtype, device=values.device)
        leaves = [tensor.detach().clone().requires_grad_() for tensor in (made, values, bias) if tensor is not None]

        def trial(execution: str) -> object:
            y = sparse_linear(leaves[0], structure, leaves[1], leaves[2] if bias is not None else None, execution)
            return torch.autograd.grad(y, leaves, torch.ones_like(y))

        return trial

    def subject() -> str:
        shape = f"{structure.out_features}x{structure.in_features}"
        return f"{shape} density {auto.rounded_density(structure)} {setting}"

    return auto.choose(structure, setting, subject, lambda: candidates(x, structure), prepare)


def candidates(x: Tensor, *structures: SparseStructure) -> tuple[str, ...]:
    """The executions worth timing for an input ``x`` and all of these structures, on the device of ``x``."""
    kernel = ("kernel",) if x.device.type in _KERNELS and kernel_or_csr(x.device.type) == "kernel" else ()
    block = ("block",) if min(tile_side(structure) for structure in structures) >= _WORTHWHILE_TILE else ()
    small = all(structure.out_features * structure.in_features <= _LARGEST_FULL for structure in structures)
    return (*kernel, "csr", *block, *(("masked",) if small else ()))


@cache
def kernel_or_csr(device: str) -> str:
    """``kernel`` if it is available on this type of device, else ``csr``, with one warning per process."""
    available, reason = availability(device)
    if available:
        return "kernel"
    warnings.warn(f"The sparse kernel is not available, 'csr' is used instead: {reason}", RuntimeWarning, stacklevel=3)
    return "csr"


def availability(device: str) -> Availability:
    """Whether the project's kernel can be used on this type of device, with the reason."""
    return kernel_available() if device == "cpu" else triton_available()


def triton_available() -> Availability:
    """Whether Triton is installed, in which the kernel for CUDA is written."""
    if find_spec("triton") is None:
        return Availability(False, "triton is not installed; pip install 'sparse_bench[triton]'")
    return Availability(True, f"Triton {version('triton')}")


def _in_its_precision(
    way: _Linear, x: Tensor, structure: SparseStructure, values: Tensor, bias: Tensor | None
) -> Tensor:
    """Call ``way`` in float32 if the input or autocast has lower precision; return the result in that precision.

    The kernel for CPUs takes activations in bfloat16, too.
    """
    device = x.device.type
    autocast = torch.is_autocast_enabled(device)
    if not autocast and x.dtype in (torch.float32, torch.float64):
        return way(x, structure, values, bias)
    result = torch.get_autocast_dtype(device) if autocast and x.dtype != torch.float64 else x.dtype
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    taken = result if way is kernel_linear and result == torch.bfloat16 else compute
    with torch.autocast(device, enabled=False):
        y = way(x.to(taken), structure, values.to(compute), None if bias is None else bias.to(compute))
    return y.to(result)
