"""Time a training step of SparseLang's language model, sparse against dense, at paper scale.

    python scripts/bench_sparse_lstm.py --output results/performance/sparse_lstm.md

A step is forward, backward, clipping and fused Adam on 20 streams of 20 tokens; two LSTM layers of 2,500 units, a
factored head over 10,000 words. All arms are built at once (about 3 GB) and run in turn in one process.
"""

import torch
from interleaved import Step, Times, device_with_kernel, interleave, parse, report
from torch import nn
from torch.nn import functional as F

from sparse_bench.batch.language import LanguageSizes
from sparse_bench.models.lstm_lm import LSTMLM
from sparse_bench.sparsity.schemes.random_fan_in import RandomFanIn
from sparse_bench.streams import Streams

VOCABULARY, STEPS, STREAMS = 10_000, 20, 20


def training_step(hidden: int, density: float, lstm_alone: bool, device: torch.device) -> tuple[Step, int]:
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
    given = parse(
        __doc__ or "",
        hidden=2500,
        densities=[0.0005, 0.001, 0.002, 0.005, 0.01],
        seconds=(60.0, "for each of the two parts"),
        device="cpu",
    )
    device = device_with_kernel(given.device)
    times: list[dict[str, Times]] = []
    weights: dict[str, int] = {}
    for lstm_alone in (True, False):
        arms = {}
        for density in (1.0, *given.densities):
            arms[f"{density:g}"], weights[f"{density:g}"] = training_step(given.hidden, density, lstm_alone, device)
        times.append(interleave(arms, given.seconds))
        del arms
    alone, whole = times
    rows = [
        {
            "density": density,
            "LSTM weights": count,
            "times faster, LSTM layers alone": f"{alone['1'].median / alone[density].median:.1f}",
            "times faster, whole model": f"{whole['1'].median / whole[density].median:.1f}",
            "LSTM ms": f"{alone[density].milliseconds:.1f}",
            "model ms": f"{whole[density].milliseconds:.1f}",
        }
        for density, count in weights.items()
    ]
    text = f"Medians of interleaved steps; {STREAMS} streams of {STEPS} tokens, two layers of {given.hidden:,} units, "
    title = "A training step of SparseLang's LSTM, sparse against dense"
    report(given.output, title, f"{text}float32, fused Adam.", rows, device=device)


if __name__ == "__main__":
    main()
