"""Time one training step of a block-diagonal LSTM layer against the dense layers of equal weights and of equal width.

A step is forward, gradients of input and weights, and fused SGD. The layers take turns in one process, so that what
else happens on the machine hits all of them alike; the figures are ratios of medians. The defaults are the first
layer of the published language model: 400→1725 in three components against dense 400→1150 and 400→1725.

    python scripts/bench_block_lstm.py --output results/performance/block_lstm.md
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from sparse_bench.sparsity.recurrent import BlockDiagonalLayer
from sparse_bench.sparsity.segments import Blocks, count_and_share

Step = Callable[[], None]


def training_step(layer: nn.Module, inputs: int, outputs: int, steps: int, batch: int, device: torch.device) -> Step:
    """A step over ``steps`` time steps of ``batch`` sequences."""
    layer.to(device)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(steps, batch, inputs, generator=generator).to(device).requires_grad_()
    gradient = torch.randn(steps, batch, outputs, generator=generator).to(device)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        x.grad = None
        optimizer.zero_grad()
        torch.autograd.backward(layer(x)[0], gradient)
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def interleaved(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step in ``rounds`` rounds, after two that are not measured."""
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if number >= 2:
                spent[name].append(time.perf_counter() - start)
    return spent


def weights(layer: nn.Module) -> int:
    """Parameters, biases included."""
    return sum(parameter.numel() for parameter in layer.parameters())


def processor(device: torch.device) -> str:
    """What computes."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def table(layers: dict[str, nn.Module], spent: dict[str, list[float]], title: str, machine: str) -> str:
    """Markdown: milliseconds and ratios to the block-diagonal layer, the first of ``layers``."""
    medians = {name: statistics.median(seconds) for name, seconds in spent.items()}
    block = next(iter(layers))
    lines = [
        f"# {title}",
        "",
        f"{machine}, torch {torch.__version__}, Python {platform.python_version()}. Forward, gradients of input and "
        f"weights, and fused SGD; medians (and least) of {len(spent[block])} interleaved repetitions.",
        "",
        "| layer | weights | ms | least ms | block-diagonal over this |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {weights(layer):,} | {1e3 * medians[name]:.1f} | {1e3 * min(spent[name]):.1f} | "
        f"{medians[block] / medians[name]:.2f} |"
        for name, layer in layers.items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=400)
    parser.add_argument("--outputs", type=int, default=1725)
    parser.add_argument("--dense", type=int, default=1150, help="outputs of the dense layer of equal weights")
    parser.add_argument("--reduction", nargs=2, type=float, default=[1.0, 0.66666], metavar=("IN", "OUT"))
    parser.add_argument("--steps", type=int, default=70, help="time steps")
    parser.add_argument("--batch", type=int, default=20, help="sequences")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    device = torch.device(given.device)

    inputs, outputs = given.inputs, given.outputs
    blocks = Blocks.of(inputs, outputs, *count_and_share(inputs, outputs, tuple(given.reduction)))
    wide = nn.LSTM(inputs, outputs)
    layers: dict[str, nn.Module] = {
        f"block-diagonal {inputs}→{outputs}, {blocks.count} components": BlockDiagonalLayer(wide, blocks),
        f"dense {inputs}→{given.dense}": nn.LSTM(inputs, given.dense),
        f"dense {inputs}→{outputs}": wide,
    }
    widths = [outputs, given.dense, outputs]
    steps = {
        name: training_step(layer, inputs, width, given.steps, given.batch, device)
        for (name, layer), width in zip(layers.items(), widths, strict=True)
    }
    title = f"One training step of an LSTM layer, {given.steps} time steps of {given.batch} sequences"
    page = table(layers, interleaved(steps, given.rounds), title, processor(device))
    print(page)
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
