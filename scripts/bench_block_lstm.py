"""Time one training step of a block-diagonal LSTM layer against the dense layers of equal weights and of equal width.

A step is forward, gradients of input and weights, and fused SGD. The layers take turns in one process, so that what
else happens on the machine hits all of them alike; the figures are ratios of medians. The defaults are the first
layer of the published language model: 400→1725 in three components against dense 400→1150 and 400→1725.

    python scripts/bench_block_lstm.py --output results/performance/block_lstm.md
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from interleaved import Times, describe_machine, interleave, titled, write
from torch import nn

from sparse_bench.environment import tune_process
from sparse_bench.sparsity.layers.block_diagonal import BlockDiagonalLayer
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

    return step


def weights(layer: nn.Module) -> int:
    """Parameters, biases included."""
    return sum(parameter.numel() for parameter in layer.parameters())


def table(layers: dict[str, nn.Module], spent: dict[str, Times], title: str, machine: str) -> str:
    """Markdown: ratios to the block-diagonal layer, the first of ``layers``, and milliseconds."""
    block = next(iter(spent.values()))
    lines = [
        f"# {title}",
        "",
        f"{machine}. Forward, gradients of input and weights, and fused SGD; medians (and least) of "
        f"{len(block.clock)} interleaved repetitions.",
        "",
        "| layer | block-diagonal over this | of processor time | weights | ms | least ms |",
        "|:--|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {name} | {block.median / spent[name].median:.2f} "
        f"| {block.median_processor / spent[name].median_processor:.2f} | {weights(layer):,} "
        f"| {spent[name].milliseconds:.1f} | {1e3 * min(spent[name].clock):.1f} |"
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
    parser.add_argument("--seconds", type=float, default=30.0, help="and at least so many rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    given = parser.parse_args()
    tune_process()
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
    spent = interleave(steps, given.seconds, given.rounds)
    write(table(layers, spent, titled(title, device), describe_machine(device)), given.output)


if __name__ == "__main__":
    main()
