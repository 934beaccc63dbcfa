"""Time a training step of SparseLang's language model, sparse against dense, at paper scale.

    python scripts/bench_sparse_lstm.py --output results/performance/sparse_lstm.md

A step is forward, backward, clipping and fused Adam on 20 streams of 20 tokens; two LSTM layers of 2,500 units, a
factored head over 10,000 words. All arms are built at once (about 3 GB) and run in turn in one process.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from interleaved import Times, describe_machine, interleave, titled, write
from torch import nn
from torch.nn import functional as F

from sparse_bench import environment
from sparse_bench.batch.language import LanguageSizes
from sparse_bench.kernels import kernel_available
from sparse_bench.kernels.linear import triton_available
from sparse_bench.models.lstm_lm import LSTMLM
from sparse_bench.sparsity.schemes.random_fan_in import RandomFanIn
from sparse_bench.streams import Streams

VOCABULARY, STEPS, STREAMS = 10_000, 20, 20


def training_step(
    hidden: int, density: float, lstm_alone: bool, device: torch.device
) -> tuple[Callable[[], object], int]:
    """A step, and the number of weights in the LSTM layers.

    Args:
        hidden: units of each layer.
        density: 1 is dense.
        lstm_alone: leave embedding and head out.
        device: where.
    """
    torch.manual_seed(0)
    model = LSTMLM(LanguageSizes(VOCABULARY, (1,) * VOCABULARY), hidden=hidden, head="factored")
    scheme = RandomFanIn(density=density, execution="kernel" if density < 1 else "masked")
    scheme.attach(model, Streams(0))
    model.to(device)
    weights = sum(parameter.numel() for parameter in model.layers.parameters() if parameter.requires_grad)
    trained: nn.Module = model.layers if lstm_alone else model
    optimizer = torch.optim.Adam([p for p in trained.parameters() if p.requires_grad], lr=5e-4, fused=True)
    words = torch.randint(VOCABULARY, (STEPS + 1, STREAMS)).to(device)
    embedded = torch.randn(STEPS, STREAMS, 600).to(device)

    def step() -> None:
        if lstm_alone:
            x = embedded
            for layer in model.layers:
                x, _ = layer(x)
            loss = x.square().mean()
        else:
            logits = model(words[:-1], None).logits
            loss = F.cross_entropy(logits.flatten(0, 1), words[1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 0.25)
        optimizer.step()
        optimizer.zero_grad()

    return step, weights


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=2500)
    parser.add_argument("--densities", type=float, nargs="+", default=[0.0005, 0.001, 0.002, 0.005, 0.01])
    parser.add_argument("--seconds", type=float, default=60.0, help="for each of the two tables")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    environment.tune_process()
    device = torch.device(arguments.device)
    available = kernel_available() if device.type == "cpu" else triton_available()
    if not available:
        raise SystemExit(f"the kernel is not available: {available.reason}")

    lines = [
        "# " + titled("A training step of SparseLang's LSTM, sparse against dense", device),
        "",
        f"{describe_machine(device)}. Medians of interleaved steps; {STREAMS} streams of {STEPS} tokens, two layers of "
        f"{arguments.hidden:,} units, float32, fused Adam.",
        "",
        "| density | LSTM weights | times faster, LSTM layers alone | times faster, whole model | LSTM ms | model ms |",
        "|---|---|---|---|---|---|",
    ]
    times: dict[bool, dict[str, Times]] = {}
    weights: dict[str, int] = {}
    for lstm_alone in (True, False):
        arms = {}
        for density in (1.0, *arguments.densities):
            arms[f"{density:g}"], weights[f"{density:g}"] = training_step(arguments.hidden, density, lstm_alone, device)
        times[lstm_alone] = interleave(arms, arguments.seconds)
        del arms
    for density, count in weights.items():
        alone, whole = ({name: arm.median for name, arm in times[part].items()} for part in (True, False))
        lines.append(
            f"| {density} | {count:,} | {alone['1'] / alone[density]:.1f} | {whole['1'] / whole[density]:.1f} | "
            f"{1e3 * alone[density]:.1f} | {1e3 * whole[density]:.1f} |"
        )
    write("\n".join(lines) + "\n", arguments.output)


if __name__ == "__main__":
    main()
