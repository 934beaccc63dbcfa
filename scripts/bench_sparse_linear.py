"""Time one training step of a sparse linear layer, in every way of computing it, against the dense layer.

A step is forward, gradients of input and weights, and fused Adam. All ways are run in turn in one process, so that
what else happens on the machine hits all of them alike; the figures are ratios of medians. SparseProp (Nikdan et al.
2023) is measured where it is installed. Writes a tidy CSV file and a table in Markdown that describes the machine.

    python scripts/bench_sparse_linear.py --sizes 1024 --tokens 1024 --densities 0.2 0.05
"""

import argparse
import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path

import torch
from interleaved import bf16_is_native, describe_machine, interleave, titled, write
from torch import Tensor, nn

from sparse_bench.environment import tune_process
from sparse_bench.kernels import SparseStructure, kernel_available, sparse_linear
from sparse_bench.kernels.linear import triton_available

DENSE, DENSE_BF16, SPARSEPROP, SPARSE = "dense", "dense_bf16", "sparseprop", ("kernel", "csr", "masked")
#: The columns of the table.
TITLES = {"kernel": "kernel", "csr": "CSR", "masked": "masked", DENSE_BF16: "dense bf16", SPARSEPROP: "SparseProp"}

Step = Callable[[], None]


@dataclass(frozen=True)
class Timing:
    """One way of computing one layer."""

    out_features: int
    in_features: int
    tokens: int
    density: float
    way: str
    median_ms: float
    least_ms: float
    repetitions: int
    speedup: float  # median of the dense layer divided by this one's
    speedup_processor: float  # the same of processor time


def dense_step(x: Tensor, grad: Tensor, bf16: bool) -> Step:
    """A step of ``nn.Linear``, in float32 or under bfloat16 autocast."""
    layer = nn.Linear(x.shape[1], grad.shape[1], device=x.device)
    optimizer = torch.optim.Adam(layer.parameters(), fused=True)
    leaf = x.clone().requires_grad_()
    output_grad = grad.bfloat16() if bf16 else grad

    def step() -> None:
        leaf.grad = None
        optimizer.zero_grad()
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bf16):
            y = layer(leaf)
        torch.autograd.backward(y, output_grad)
        optimizer.step()

    return step


def sparse_step(x: Tensor, grad: Tensor, structure: SparseStructure, execution: str) -> Step:
    """A step of a sparse layer whose trainable values are the stored entries alone."""
    values = nn.Parameter(torch.randn(structure.entries, device=x.device) / math.sqrt(x.shape[1]))
    bias = nn.Parameter(torch.zeros(grad.shape[1], device=x.device))
    optimizer = torch.optim.Adam([values, bias], fused=True)
    leaf = x.clone().requires_grad_()

    def step() -> None:
        leaf.grad = None
        optimizer.zero_grad()
        torch.autograd.backward(sparse_linear(leaf, structure, values, bias, execution), grad)
        optimizer.step()

    return step


def sparseprop_step(x: Tensor, grad: Tensor, structure: SparseStructure) -> Step:
    """A step of SparseProp's layer."""
    from sparseprop.modules.linear import SparseLinear

    weight = structure.scatter(torch.randn(structure.entries) / math.sqrt(x.shape[1]))
    layer = SparseLinear(weight, nn.Parameter(torch.zeros(grad.shape[1])))
    optimizer = torch.optim.Adam(layer.parameters(), fused=True)
    leaf = x.clone().requires_grad_()

    def step() -> None:
        leaf.grad = None
        optimizer.zero_grad()
        torch.autograd.backward(layer(leaf), grad)
        optimizer.step()

    return step


def left_out(bf16: str, device: torch.device) -> dict[str, str]:
    """Ways that are not measured here, and why."""
    reasons = {}
    if bf16 == "no" or (bf16 == "auto" and not bf16_is_native(device)):
        reasons[DENSE_BF16] = "this processor only emulates bfloat16" if bf16 == "auto" else "not asked for"
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
    skipped: dict[str, str],
    seed: int,
    device: torch.device,
) -> Iterator[Timing]:
    """Timings of all ways for one layer."""
    generator = torch.Generator().manual_seed(seed)
    structure = SparseStructure(torch.rand(shape, generator=generator) < density).to(device)
    x = torch.randn(tokens, shape[1], generator=generator).to(device)
    grad = torch.randn(tokens, shape[0], generator=generator).to(device)
    steps = {DENSE: dense_step(x, grad, bf16=False)}
    steps |= {execution: sparse_step(x, grad, structure, execution) for execution in SPARSE}
    if DENSE_BF16 not in skipped:
        steps[DENSE_BF16] = dense_step(x, grad, bf16=True)
    if SPARSEPROP not in skipped:
        steps[SPARSEPROP] = sparseprop_step(x, grad, structure)
    spent = interleave(steps, seconds)
    dense = spent[DENSE]
    for way, times in spent.items():
        yield Timing(
            *shape,
            tokens,
            density,
            way,
            median_ms=times.milliseconds,
            least_ms=1e3 * min(times.clock),
            repetitions=len(times.clock),
            speedup=dense.median / times.median,
            speedup_processor=dense.median_processor / times.median_processor,
        )


def crossover(timings: list[Timing]) -> str:
    """Density at which the kernel takes as long as the dense layer, between the measured ones."""
    points = sorted((t.density, t.speedup) for t in timings if t.way == "kernel")
    for (below, fast), (above, slow) in pairwise(points):
        if fast >= 1 > slow:
            share = math.log(fast) / math.log(fast / slow)
            return f"{below * (above / below) ** share:.2f}"
    return f"> {points[-1][0]:g}" if points[0][1] >= 1 else f"< {points[0][0]:g}"


def table(timings: list[Timing], skipped: dict[str, str], device: torch.device) -> str:
    """Ratios first, milliseconds after."""
    cells: dict[tuple[int, int, int, float], dict[str, Timing]] = {}
    for t in timings:
        cells.setdefault((t.out_features, t.in_features, t.tokens, t.density), {})[t.way] = t
    lines = [
        "# " + titled("One training step of a sparse linear layer", device),
        "",
        f"{describe_machine(device)}.",
        "",
        "Forward, gradients of input and weights, and fused Adam; times faster than `nn.Linear` in float32 (medians of "
        "interleaved repetitions; in parentheses of processor time).",
        "",
        f"| out × in | tokens | density | {' | '.join(TITLES.values())} | kernel / CSR | dense ms | kernel ms |",
        f"|:--|{'--:|' * (len(TITLES) + 5)}",
    ]
    for (out, inner, tokens, density), ways in cells.items():
        ratios = [f"{ways[way].speedup:.2f}" if way in ways else "—" for way in TITLES]
        kernel, csr, dense = ways["kernel"], ways["csr"], ways[DENSE]
        ratios[0] += f" ({kernel.speedup_processor:.2f})"
        figures = [*ratios, f"{csr.median_ms / kernel.median_ms:.1f}", f"{dense.median_ms:.2f}"]
        lines.append(f"| {out} × {inner} | {tokens} | {density:g} | {' | '.join(figures)} | {kernel.median_ms:.2f} |")
    if skipped:
        lines += ["", *(f"- {TITLES[way]} left out: {reason}." for way, reason in skipped.items())]
    lines += ["", "Density at which the kernel is as fast as the dense layer:", ""]
    for shape in dict.fromkeys((t.out_features, t.in_features, t.tokens) for t in timings):
        of_shape = [t for t in timings if (t.out_features, t.in_features, t.tokens) == shape]
        lines.append(f"- {shape[0]} × {shape[1]}, {shape[2]} tokens: {crossover(of_shape)}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["512", "1024", "2048"], help="N, or OUTxIN")
    parser.add_argument("--tokens", nargs="+", type=int, default=[256, 1024, 4096])
    parser.add_argument("--densities", nargs="+", type=float, default=[0.5, 0.2, 0.1, 0.05, 0.01])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=4.0, help="for each layer")
    parser.add_argument("--bf16", choices=["auto", "yes", "no"], default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="or cuda, where the kernel is the one in Triton")
    parser.add_argument("--output", type=Path, help="Markdown file; a CSV file goes beside it")
    arguments = parser.parse_args()
    tune_process()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    available = kernel_available() if device.type == "cpu" else triton_available()
    if not available:
        raise SystemExit(f"the kernel is not available: {available.reason}")

    timings: list[Timing] = []
    skipped = left_out(arguments.bf16, device)
    for size in arguments.sizes:
        out, _, inner = size.partition("x")
        shape = int(out), int(inner or out)
        for tokens in arguments.tokens:
            for density in arguments.densities:
                cell = list(measure(shape, tokens, density, arguments.seconds, skipped, arguments.seed, device))
                timings += cell
                print(
                    f"{size} {tokens} {density:g}: " + ", ".join(f"{t.way} {t.median_ms:.2f} ms" for t in cell),
                    flush=True,
                )
    write(table(timings, skipped, device), arguments.output)
    if arguments.output:
        with arguments.output.with_suffix(".csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Timing)])
            writer.writeheader()
            writer.writerows(asdict(timing) for timing in timings)


if __name__ == "__main__":
    main()
