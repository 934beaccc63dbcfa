"""Time one training step of a sparse linear layer, in every way of computing it, against the dense layer.

A step is forward, gradients of input and weights, and fused Adam. SparseProp (Nikdan et al. 2023) is measured where it
is installed.

    python scripts/bench_sparse_linear.py --sizes 1024 --tokens 1024 --densities 0.2 0.05
"""

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise, product
from typing import Any

import pandas as pd
import torch
from interleaved import Row, Step, bf16_is_native, device_with_kernel, interleave, parse, report
from torch import Tensor, nn

from sparse_bench.kernels import SparseStructure, sparse_linear

DENSE, DENSE_BF16, SPARSEPROP, SPARSE = "dense", "dense_bf16", "sparseprop", ("kernel", "csr", "masked")
KERNEL_BF16 = "kernel_bf16"
#: The columns of the table.
TITLES = {
    "kernel": "kernel",
    KERNEL_BF16: "kernel bf16",
    "csr": "CSR",
    "masked": "masked",
    DENSE_BF16: "dense bf16",
    SPARSEPROP: "SparseProp",
}
LAYER = ["out_features", "in_features", "tokens"]


def training_step(
    x: Tensor, grad: Tensor, forward: Callable[[Tensor], Tensor], parameters: list[nn.Parameter], bf16: bool = False
) -> Step:
    """Forward, gradients of input and weights, and Adam; under bfloat16 autocast where asked for."""
    optimizer = torch.optim.Adam(parameters, fused=True)
    leaf = x.clone().requires_grad_()
    output_grad = grad.bfloat16() if bf16 else grad

    def step() -> None:
        leaf.grad = None
        optimizer.zero_grad()
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bf16):
            y = forward(leaf)
        torch.autograd.backward(y, output_grad)
        optimizer.step()

    return step


def dense_step(x: Tensor, grad: Tensor, bf16: bool) -> Step:
    """A step of ``nn.Linear``."""
    layer = nn.Linear(x.shape[1], grad.shape[1], device=x.device)
    return training_step(x, grad, layer, list(layer.parameters()), bf16)


def sparse_step(x: Tensor, grad: Tensor, structure: SparseStructure, execution: str, bf16: bool = False) -> Step:
    """A step of a sparse layer whose trainable values are the stored entries alone."""
    values = nn.Parameter(torch.randn(structure.entries, device=x.device) / math.sqrt(x.shape[1]))
    bias = nn.Parameter(torch.zeros(grad.shape[1], device=x.device))

    def forward(leaf: Tensor) -> Tensor:
        return sparse_linear(leaf, structure, values, bias, execution)

    return training_step(x, grad, forward, [values, bias], bf16)


def sparseprop_step(x: Tensor, grad: Tensor, structure: SparseStructure) -> Step:
    """A step of SparseProp's layer."""
    from sparseprop.modules.linear import SparseLinear

    weight = structure.scatter(torch.randn(structure.entries) / math.sqrt(x.shape[1]))
    layer = SparseLinear(weight, nn.Parameter(torch.zeros(grad.shape[1])))
    return training_step(x, grad, layer, list(layer.parameters()))


def left_out(device: torch.device) -> dict[str, str]:
    """Ways that are not measured here, and why."""
    reasons = {} if bf16_is_native(device) else {DENSE_BF16: "this processor only emulates bfloat16"}
    if device.type != "cpu":
        return reasons | {SPARSEPROP: "it computes on CPUs alone"}
    try:
        import sparseprop.modules.linear  # noqa: F401
    except ImportError as error:
        reasons[SPARSEPROP] = f"not installed or not built here ({error}); pip install 'sparse_bench[bench]'"
    return reasons


def measure(
    shape: tuple[int, int],
    tokens: int,
    density: float,
    seconds: float,
    skipped: Mapping[str, str],
    device: torch.device,
) -> Iterator[dict[str, Any]]:
    """A row for each way of computing one layer."""
    generator = torch.Generator().manual_seed(0)
    structure = SparseStructure(torch.rand(shape, generator=generator) < density).to(device)
    x = torch.randn(tokens, shape[1], generator=generator).to(device)
    grad = torch.randn(tokens, shape[0], generator=generator).to(device)
    steps = {DENSE: dense_step(x, grad, bf16=False)}
    steps |= {execution: sparse_step(x, grad, structure, execution) for execution in SPARSE}
    steps[KERNEL_BF16] = sparse_step(x, grad, structure, "kernel", bf16=True)
    if DENSE_BF16 not in skipped:
        steps[DENSE_BF16] = dense_step(x, grad, bf16=True)
    if SPARSEPROP not in skipped:
        steps[SPARSEPROP] = sparseprop_step(x, grad, structure)
    spent = interleave(steps, seconds)
    dense = spent[DENSE]
    for way, times in spent.items():
        yield {
            **dict(zip(LAYER, (*shape, tokens), strict=True)),
            "density": density,
            "way": way,
            "median_ms": times.milliseconds,
            "least_ms": times.least,
            "repetitions": len(times.clock),
            "speedup": dense.median / times.median,
            "speedup_processor": dense.median_processor / times.median_processor,
        }


def view(rows: pd.DataFrame) -> Iterator[Row]:
    """A line for each layer: ratios first, milliseconds after."""
    for (out, inner, tokens, density), part in rows.groupby([*LAYER, "density"], sort=False):
        ways = part.set_index("way").to_dict("index")
        kernel = ways["kernel"]
        ratios = {title: f"{ways[way]['speedup']:.2f}" if way in ways else None for way, title in TITLES.items()}
        yield {
            "out × in": f"{out} × {inner}",
            "tokens": str(tokens),
            "density": f"{density:g}",
            **ratios,
            "kernel": f"{ratios['kernel']} ({kernel['speedup_processor']:.2f})",
            "kernel / CSR": f"{ways['csr']['median_ms'] / kernel['median_ms']:.1f}",
            "dense ms": f"{ways[DENSE]['median_ms']:.2f}",
            "kernel ms": f"{kernel['median_ms']:.2f}",
        }


def crossover(points: list[tuple[float, float]]) -> str:
    """Density at which the kernel takes as long as the dense layer, between the measured pairs of density, speed-up."""
    points = sorted(points)
    for (below, fast), (above, slow) in pairwise(points):
        if fast >= 1 > slow:
            share = math.log(fast) / math.log(fast / slow)
            return f"{below * (above / below) ** share:.2f}"
    return f"> {points[-1][0]:g}" if points[0][1] >= 1 else f"< {points[0][0]:g}"


def main() -> None:
    """Measure, print and write."""
    given = parse(
        __doc__ or "",
        sizes=(["512", "1024", "2048"], "N, or OUTxIN"),
        tokens=[256, 1024, 4096],
        densities=[0.5, 0.2, 0.1, 0.05, 0.01],
        threads=torch.get_num_threads(),
        seconds=(4.0, "for each layer"),
        device=("cpu", "or cuda, where the kernel is the one in Triton"),
    )
    device = device_with_kernel(given.device)
    skipped = left_out(device)
    rows: list[dict[str, Any]] = []
    notes = [f"{TITLES[way]} left out: {reason}." for way, reason in skipped.items()]
    for size, tokens in product(given.sizes, given.tokens):
        out, _, inner = size.partition("x")
        shape = int(out), int(inner or out)
        layer = [row for d in given.densities for row in measure(shape, tokens, d, given.seconds, skipped, device)]
        at = crossover([(row["density"], row["speedup"]) for row in layer if row["way"] == "kernel"])
        equal = "Density at which the kernel is as fast as the dense layer"
        notes.append(f"{equal}, {shape[0]} × {shape[1]}, {tokens} tokens: {at}")
        rows += layer
    text = """
    Forward, gradients of input and weights, and fused Adam; times faster than `nn.Linear` in float32 (medians of
    interleaved repetitions; in parentheses of processor time).
    """
    title = "One training step of a sparse linear layer"
    report(given.output, title, text, rows, notes=notes, view=view, device=device)


if __name__ == "__main__":
    main()
