"""Time single sparse layers, a table at a time.

python scripts/bench_layers.py sparse_linear --sizes 1024 --tokens 1024 --densities 0.2 0.05
"""

import importlib.util
import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import torch
from interleaved import Row, Step, bf16_is_native, device_with_kernel, interleave, measure
from torch import Tensor, nn

from sparse_bench import kernels
from sparse_bench.sparsity.layers.block_diagonal import BlockDiagonalLayer
from sparse_bench.sparsity.segments import Blocks, count_and_share


def training_step(
    forward: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer, x: Tensor, grad: Tensor, bf16: bool = False
) -> Step:
    """Forward, gradients of input and weights, and the optimizer's step; under bfloat16 autocast where asked for."""
    leaf = x.clone().requires_grad_()

    def step() -> None:
        leaf.grad = None
        optimizer.zero_grad()
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bf16):
            y = forward(leaf)
        torch.autograd.backward(y, grad.to(y.dtype))
        optimizer.step()

    return step


def sparse_linear(
    *,
    sizes: tuple[int, ...] = (512, 1024, 2048),
    tokens: tuple[int, ...] = (256, 1024, 4096),
    densities: tuple[float, ...] = (0.5, 0.2, 0.1, 0.05, 0.01),
    threads: int = torch.get_num_threads(),
    seconds: float = 4.0,
    device: str = "cpu",
) -> Iterator[Row | str]:
    """One training step of a sparse linear layer.

    Forward, gradients of input and weights, and fused Adam; times faster than `nn.Linear` in float32 (medians of
    interleaved repetitions). SparseProp: Nikdan et al. 2023.
    """
    place, generator = device_with_kernel(device), torch.Generator().manual_seed(0)
    left_out = set()
    if not bf16_is_native(place):
        left_out.add("dense_bf16")
        yield "Dense bf16 left out: this processor only emulates bfloat16."
    if place.type != "cpu" or importlib.util.find_spec("sparseprop") is None:
        left_out.add("sparseprop")
        yield "SparseProp left out: it computes on CPUs alone, and needs pip install 'sparse_bench[bench]'."
    for size, rows, density in product(sizes, tokens, densities):
        mask = torch.rand(size, size, generator=generator) < density
        x, grad = (torch.randn(rows, size, generator=generator).to(place) for _ in range(2))
        arms = _arms(kernels.SparseStructure(mask).to(place), x, grad)
        spent = interleave({way: make() for way, make in arms.items() if way not in left_out}, seconds)
        for way, times in spent.items():
            yield {
                "out_features": size,
                "in_features": size,
                "tokens": rows,
                "density": density,
                "way": way,
                "median_ms": times.ms(),
                "least_ms": 1e3 * min(times.clock),
                "repetitions": len(times.clock),
                "speedup": spent["dense"].over(times),
                "speedup_processor": spent["dense"].over(times, "processor"),
            }


def _arms(structure: kernels.SparseStructure, x: Tensor, grad: Tensor) -> dict[str, Callable[[], Step]]:
    """What makes the step of each way to compute a layer."""
    size, device = x.shape[1], x.device

    def whole(layer: nn.Module, bf16: bool = False) -> Step:
        return training_step(layer, torch.optim.Adam(layer.parameters(), fused=True), x, grad, bf16)

    def stored(way: str, bf16: bool = False) -> Step:
        """Of a layer whose trainable values are the stored entries alone."""
        values = nn.Parameter(torch.randn(structure.entries, device=device) / math.sqrt(size))
        bias = nn.Parameter(torch.zeros(size, device=device))
        adam = torch.optim.Adam([values, bias], fused=True)
        return training_step(
            lambda leaf: kernels.sparse_linear(leaf, structure, values, bias, way), adam, x, grad, bf16
        )

    def sparseprop() -> Step:
        from sparseprop.modules.linear import SparseLinear

        weight = structure.scatter(torch.randn(structure.entries) / math.sqrt(size))
        return whole(SparseLinear(weight, nn.Parameter(torch.zeros(size))))

    return {
        "dense": lambda: whole(nn.Linear(size, size, device=device)),
        **{way: partial(stored, way) for way in ("kernel", "csr", "masked")},
        "kernel_bf16": lambda: stored("kernel", bf16=True),
        "dense_bf16": lambda: whole(nn.Linear(size, size, device=device), bf16=True),
        "sparseprop": sparseprop,
    }


def block_lstm(
    *, threads: int = torch.get_num_threads(), seconds: float = 30.0, device: str = "cpu"
) -> Iterator[Row | str]:
    """One training step of an LSTM layer, 70 time steps of 20 sequences.

    The block-diagonal layer is the first one of the published language model. It is compared with the dense layers of
    equal weights and of equal width. A step is forward, gradients of input and weights, and fused SGD. Times are
    medians (and least) of interleaved repetitions.
    """
    inputs, outputs, narrow = 400, 1725, 1150
    blocks = Blocks.of(inputs, outputs, *count_and_share(inputs, outputs, (1.0, 0.66666)))
    wide_layer = nn.LSTM(inputs, outputs)
    layers: dict[str, nn.Module] = {
        f"block-diagonal {inputs}→{outputs}, {blocks.count} components": BlockDiagonalLayer(wide_layer, blocks),
        f"dense {inputs}→{narrow}": nn.LSTM(inputs, narrow),
        f"dense {inputs}→{outputs}": wide_layer,
    }
    x, arms = torch.randn(70, 20, inputs, device=device), dict[str, Step]()
    for name, layer in layers.items():
        layer.to(device)
        grad = torch.randn(70, 20, narrow if str(narrow) in name else outputs, device=device)
        forward = lambda leaf, layer=layer: layer(leaf)[0]  # noqa: E731
        arms[name] = training_step(forward, torch.optim.SGD(layer.parameters(), lr=1e-3, fused=True), x, grad)
    spent = interleave(arms, seconds)
    block = next(iter(spent.values()))
    for name, times in spent.items():
        yield {
            "layer": name,
            "block-diagonal over this": f"{block.over(times):.2f}",
            "of processor time": f"{block.over(times, 'processor'):.2f}",
            "weights": sum(parameter.numel() for parameter in layers[name].parameters()),
            "ms": f"{times.ms():.1f}",
            "least ms": f"{1e3 * min(times.clock):.1f}",
        }


if __name__ == "__main__":
    measure(sparse_linear, block_lstm, wide={"sparse_linear": ("way", "speedup")})
