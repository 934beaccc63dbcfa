"""Time one training step of a sparse linear layer, in every way of computing it, against the dense layer.

A step is forward, gradients of input and weights, and fused Adam. All ways are run in turn in one process, so that
what else happens on the machine hits all of them alike; the figures are ratios of medians. Writes a tidy CSV file and
a table in Markdown that describes the machine.

    python scripts/bench_sparse_linear.py --sizes 1024 --tokens 1024 --densities 0.2 0.05
"""

import argparse
import csv
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from sparse_bench.sparsity.kernels import SparseStructure, kernel_available, sparse_linear

DENSE, DENSE_BF16, SPARSE = "dense", "dense_bf16", ("masked", "csr", "kernel")
_LEAST_ROUNDS = 5
#: A bfloat16 product this many times slower than float32 is emulated: it is left out at larger sizes.
_EMULATED = 4.0

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


def dense_step(x: Tensor, grad: Tensor, bf16: bool) -> Step:
    """A step of ``nn.Linear``, in float32 or under bfloat16 autocast."""
    layer = nn.Linear(x.shape[1], grad.shape[1])
    optimizer = torch.optim.Adam(layer.parameters(), fused=True)
    leaf = x.clone().requires_grad_()
    output_grad = grad.bfloat16() if bf16 else grad

    def step() -> None:
        leaf.grad = None
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            y = layer(leaf)
        torch.autograd.backward(y, output_grad)
        optimizer.step()

    return step


def sparse_step(x: Tensor, grad: Tensor, structure: SparseStructure, execution: str) -> Step:
    """A step of a sparse layer whose trainable values are the stored entries alone."""
    values = nn.Parameter(torch.randn(structure.entries) / math.sqrt(x.shape[1]))
    bias = nn.Parameter(torch.zeros(grad.shape[1]))
    optimizer = torch.optim.Adam([values, bias], fused=True)
    leaf = x.clone().requires_grad_()

    def step() -> None:
        leaf.grad = None
        optimizer.zero_grad()
        torch.autograd.backward(sparse_linear(leaf, structure, values, bias, execution), grad)
        optimizer.step()

    return step


def interleave(steps: dict[str, Step], seconds: float) -> dict[str, list[float]]:
    """Seconds of each repetition. Every step runs once unmeasured, then all in turn until the time is spent; a step
    that alone takes a large part of it is repeated less often than the others, but at least once."""
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    start, rounds = time.perf_counter(), 0
    while rounds < _LEAST_ROUNDS or time.perf_counter() - start < seconds:
        for name, step in steps.items():
            if spent[name] and sum(spent[name]) > max(seconds / 2, rounds * seconds / 4 / _LEAST_ROUNDS):
                continue
            begin = time.perf_counter()
            step()
            spent[name].append(time.perf_counter() - begin)
        rounds += 1
    return spent


def measure(
    shape: tuple[int, int], tokens: int, density: float, seconds: float, bf16: bool, seed: int
) -> Iterator[Timing]:
    """Timings of all ways for one layer."""
    generator = torch.Generator().manual_seed(seed)
    structure = SparseStructure(torch.rand(shape, generator=generator) < density)
    x = torch.randn(tokens, shape[1], generator=generator)
    grad = torch.randn(tokens, shape[0], generator=generator)
    steps = {DENSE: dense_step(x, grad, bf16=False)}
    steps |= {execution: sparse_step(x, grad, structure, execution) for execution in SPARSE}
    if bf16:
        steps[DENSE_BF16] = dense_step(x, grad, bf16=True)
    spent = interleave(steps, seconds)
    medians = {way: statistics.median(times) for way, times in spent.items()}
    for way, times in spent.items():
        speedup = medians[DENSE] / medians[way]
        yield Timing(*shape, tokens, density, way, 1e3 * medians[way], 1e3 * min(times), len(times), speedup)


def crossover(timings: list[Timing]) -> str:
    """Density at which the kernel takes as long as the dense layer, between the measured ones."""
    points = sorted((t.density, t.speedup) for t in timings if t.way == "kernel")
    for (below, fast), (above, slow) in pairwise(points):
        if fast >= 1 > slow:
            share = math.log(fast) / math.log(fast / slow)
            return f"{below * (above / below) ** share:.2f}"
    return f"> {points[-1][0]:g}" if points[0][1] >= 1 else f"< {points[0][0]:g}"


def describe_machine() -> str:
    """Processor, cores, threads, kernel and versions in one line."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"kernel with {kernel_available().reason}, torch {torch.__version__}, Python {platform.python_version()}"
    )


def table(timings: list[Timing]) -> str:
    """Ratios first, milliseconds after."""
    cells: dict[tuple[int, int, int, float], dict[str, Timing]] = {}
    for t in timings:
        cells.setdefault((t.out_features, t.in_features, t.tokens, t.density), {})[t.way] = t
    lines = [
        "# One training step of a sparse linear layer",
        "",
        f"{describe_machine()}.",
        "",
        "Forward, gradients of input and weights, and fused Adam; times faster than `nn.Linear` in float32 (medians of "
        "interleaved repetitions). `—`: left out, as this processor only emulates bfloat16.",
        "",
        "| out × in | tokens | density | kernel | CSR | masked | dense bf16 | kernel / CSR | dense ms | kernel ms |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (out, inner, tokens, density), ways in cells.items():
        ratios = [f"{ways[w].speedup:.2f}" if w in ways else "—" for w in ("kernel", "csr", "masked", DENSE_BF16)]
        kernel, csr, dense = ways["kernel"], ways["csr"], ways[DENSE]
        figures = [*ratios, f"{csr.median_ms / kernel.median_ms:.1f}", f"{dense.median_ms:.2f}"]
        lines.append(f"| {out} × {inner} | {tokens} | {density:g} | {' | '.join(figures)} | {kernel.median_ms:.2f} |")
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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("results/performance/sparse_linear"), help="without suffix")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not kernel_available():
        raise SystemExit(f"the kernel is not available: {kernel_available().reason}")

    timings: list[Timing] = []
    bf16 = True
    for size in arguments.sizes:
        out, _, inner = size.partition("x")
        shape = int(out), int(inner or out)
        for tokens in arguments.tokens:
            for density in arguments.densities:
                cell = list(measure(shape, tokens, density, arguments.seconds, bf16, arguments.seed))
                timings += cell
                print(
                    f"{size} {tokens} {density:g}: " + ", ".join(f"{t.way} {t.median_ms:.2f} ms" for t in cell),
                    flush=True,
                )
                bf16 = bf16 and all(timing.speedup > 1 / _EMULATED for timing in cell if timing.way == DENSE_BF16)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Timing)])
        writer.writeheader()
        writer.writerows(asdict(timing) for timing in timings)
    arguments.output.with_suffix(".md").write_text(table(timings))
    print(table(timings))


if __name__ == "__main__":
    main()
