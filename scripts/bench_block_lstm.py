"""Time one training step of a block-diagonal LSTM layer against the dense layers of equal weights and of equal width.

A step is forward, gradients of input and weights, and fused SGD. The defaults are the first layer of the published
language model: 400→1725 in three components against dense 400→1150 and 400→1725.

    python scripts/bench_block_lstm.py --output results/performance/block_lstm.md
"""

import torch
from interleaved import Step, interleave, parse, report
from torch import nn

from sparse_bench.sparsity.layers.block_diagonal import BlockDiagonalLayer
from sparse_bench.sparsity.segments import Blocks, count_and_share


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


def main() -> None:
    """Measure, print and write."""
    given = parse(
        __doc__ or "",
        inputs=400,
        outputs=1725,
        dense=(1150, "outputs of the dense layer of equal weights"),
        reduction=([1.0, 0.66666], "of inputs and outputs"),
        steps=(70, "time steps"),
        batch=(20, "sequences"),
        seconds=30.0,
        threads=torch.get_num_threads(),
        device="cpu",
    )
    torch.manual_seed(0)
    device, inputs, outputs = torch.device(given.device), given.inputs, given.outputs
    blocks = Blocks.of(inputs, outputs, *count_and_share(inputs, outputs, tuple(given.reduction)))
    wide = nn.LSTM(inputs, outputs)
    layers: dict[str, tuple[nn.Module, int]] = {
        f"block-diagonal {inputs}→{outputs}, {blocks.count} components": (BlockDiagonalLayer(wide, blocks), outputs),
        f"dense {inputs}→{given.dense}": (nn.LSTM(inputs, given.dense), given.dense),
        f"dense {inputs}→{outputs}": (wide, outputs),
    }
    steps = {
        name: training_step(layer, inputs, width, given.steps, given.batch, device)
        for name, (layer, width) in layers.items()
    }
    spent = interleave(steps, given.seconds)
    block = next(iter(spent.values()))
    rows = [
        {
            "layer": name,
            "block-diagonal over this": f"{block.median / times.median:.2f}",
            "of processor time": f"{block.median_processor / times.median_processor:.2f}",
            "weights": sum(parameter.numel() for parameter in layers[name][0].parameters()),
            "ms": f"{times.milliseconds:.1f}",
            "least ms": f"{times.least:.1f}",
        }
        for name, times in spent.items()
    ]
    text = f"""
    Forward, gradients of input and weights, and fused SGD; medians (and least) of {len(block.clock)} interleaved
    repetitions.
    """
    title = f"One training step of an LSTM layer, {given.steps} time steps of {given.batch} sequences"
    report(given.output, title, text, rows, device=device)


if __name__ == "__main__":
    main()
