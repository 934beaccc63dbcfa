"""Report how the products with a model's sparse weights are really computed, which may differ from the setting.

Where a kernel is not available, torch's products replace it. ``auto`` chooses by measured times. Both change the last
digits of results, so a run records what it used, and warns if it resumes with something else.
"""

from collections.abc import Iterator

from torch import nn

from sparse_bench.kernels import auto
from sparse_bench.kernels.linear import availability
from sparse_bench.sparsity.layers.linear import SparseLinear
from sparse_bench.sparsity.layers.lstm import SparseLSTM
from sparse_bench.sparsity.weights import MASK_SUFFIX

#: Layers that compute with the existing weights alone → their kind in reports.
_SPARSE: dict[type[nn.Module], str] = {SparseLinear: "linear", SparseLSTM: "lstm"}


def computed(model: nn.Module) -> dict[str, str]:
    """Kind of layer → how it is computed on this machine; empty for a dense model."""
    found: dict[str, set[str]] = {}
    for module in model.modules():
        for kind, way in _ways(module):
            found.setdefault(kind, set()).add(way)
    return {kind: " and ".join(sorted(ways)) for kind, ways in sorted(found.items())}


def fallbacks(model: nn.Module) -> list[str]:
    """A warning for every kind of layer that is not computed in the requested way."""
    missing = {}
    for module in model.modules():
        kind = _SPARSE.get(type(module))
        if kind is not None and module.execution == "kernel" and not (found := availability(_device(module))):
            missing[kind] = found.reason
    return [
        f"execution=kernel is not available, so {kind} layers use csr, whose last digits differ: {reason}."
        for kind, reason in sorted(missing.items())
    ]


def _ways(module: nn.Module) -> Iterator[tuple[str, str]]:
    kind = _SPARSE.get(type(module))
    if kind is None:
        if any(name.endswith(MASK_SUFFIX) for name, _ in module.named_buffers(recurse=False)):
            yield type(module).__name__.lower(), "masked"
        return
    if module.execution not in ("kernel", "auto"):
        yield kind, str(module.execution)
        return
    kernel = availability(_device(module))
    there = f"kernel, {kernel.reason}" if kernel else f"no kernel, {kernel.reason}"
    if module.execution == "kernel":
        yield kind, f"kernel ({kernel.reason})" if kernel else f"csr ({there})"
        return
    chosen = {way for key, way in auto.used().items() if key.startswith("lstm ") == (kind == "lstm")}
    yield kind, f"auto ({there}; timed on {auto.machine()}): {', '.join(sorted(chosen)) or 'nothing yet'}"


def _device(module: nn.Module) -> str:
    return next(module.parameters()).device.type
