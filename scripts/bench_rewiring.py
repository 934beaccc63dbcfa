"""Time one rewiring of several sparse layers, against the usual way of sorting everything and drawing in a loop.

Both arms do the same to the same layers (masks, values and two Adam moments of each): remove the fraction ζ of the
positive weights nearest zero and the fraction ζ of the negative ones, and grow as many at random free places. They run
in turn in one process, so that what else happens on the machine hits both alike; the figures are medians.

    python scripts/bench_rewiring.py --threads 1 --output results/performance/rewiring.md
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sparse_bench.sparsity.schemes.set import SET
from sparse_bench.sparsity.weights import MaskedWeight
from sparse_bench.streams import Streams


class Layers(nn.Module):
    """Square linear layers of one width."""

    def __init__(self, number: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(number))


def prepared(
    number: int, width: int, density: float, zeta: float, execution: str
) -> tuple[Layers, SET, torch.optim.Adam]:
    """Layers under SET that an optimizer with moments has trained for a step."""
    torch.manual_seed(0)
    model = Layers(number, width)
    scheme = SET(density=density, zeta=zeta, layers=["layers.*.weight"], execution=execution)
    scheme.attach(model, Streams(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    x = torch.randn(64, width)
    sum(layer(x).square().mean() for layer in model.layers).backward()  # type: ignore[union-attr]
    scheme.after_backward()
    optimizer.step()
    return model, scheme, optimizer


@dataclass(frozen=True)
class Arm:
    """What is timed, and what comes between two repetitions: new weights are zero until they are trained."""

    rewire: Callable[[], object]
    train: Callable[[], object]


def ours(number: int, width: int, density: float, zeta: float, execution: str) -> Arm:
    """The project's rewiring, with all that it follows for its diagnostics."""
    _, scheme, optimizer = prepared(number, width, density, zeta, execution)

    def train() -> None:
        for weight in scheme.weights.values():
            values = weight.entries()[1]
            places = (values == 0).nonzero().squeeze(1)
            new = torch.randn(len(places)) / 100
            if isinstance(weight, MaskedWeight):
                places = weight.entries()[0][places]
                weight.parameter.detach().view(-1)[places] = new
            else:
                values[places] = new

    return Arm(lambda: scheme.rewire(zeta, optimizer, Streams(0)), train)


def naive(number: int, width: int, density: float, zeta: float) -> Arm:
    """Sort the full matrix for two thresholds, then draw single places until enough free ones are hit."""
    model, scheme, optimizer = prepared(number, width, density, zeta, "masked")
    draw = np.random.default_rng(0)
    layers = {name: (model.get_parameter(name), weight.mask.numpy().copy()) for name, weight in scheme.weights.items()}

    def rewire_one(parameter: nn.Parameter, mask: np.ndarray) -> None:
        weights = parameter.detach().numpy()
        ordered = np.sort(weights.ravel())
        negative, positive = ordered[ordered < 0], ordered[ordered > 0]
        low = negative[round((1 - zeta) * len(negative))]
        high = positive[round(zeta * len(positive))]
        kept = ((weights < low) | (weights >= high)) & mask
        missing = int(mask.sum() - kept.sum())
        grown = kept.copy()
        while missing:
            i, j = draw.integers(weights.shape[0]), draw.integers(weights.shape[1])
            if not grown[i, j]:
                grown[i, j] = True
                missing -= 1
        weights *= kept
        for moment in optimizer.state[parameter].values():
            if moment.shape == parameter.shape:
                moment.mul_(torch.from_numpy(kept))
        mask[:] = grown

    def rewire() -> None:
        for layer in layers.values():
            rewire_one(*layer)

    def train() -> None:
        for parameter, mask in layers.values():
            weights = parameter.detach().numpy()
            new = mask & (weights == 0)
            weights[new] = draw.normal(scale=1e-2, size=int(new.sum()))

    return Arm(rewire, train)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--density", type=float, default=0.078)
    parser.add_argument("--zeta", type=float, default=0.3)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="Markdown file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size = (arguments.layers, arguments.width, arguments.density, arguments.zeta)
    arms = {
        "sort and loop": naive(*size),
        "ours, masked": ours(*size, "masked"),
        "ours, compressed": ours(*size, "csr"),
    }
    spent: dict[str, list[float]] = {name: [] for name in arms}
    for repetition in range(arguments.repetitions + 1):
        for name, arm in arms.items():
            begin = time.perf_counter()
            arm.rewire()
            if repetition:  # the first one warms up
                spent[name].append(1e3 * (time.perf_counter() - begin))
            arm.train()
    medians = {name: statistics.median(times) for name, times in spent.items()}
    slowest = max(medians.values())
    lines = [
        f"# Rewiring {arguments.layers} masks of {arguments.width} × {arguments.width}",
        "",
        f"Density {arguments.density:g}, ζ = {arguments.zeta:g}, {arguments.repetitions} repetitions in turn, "
        f"{arguments.threads} threads; {platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"torch {torch.__version__}. Milliseconds for all layers together.",
        "",
        "| way | median | least | times faster |",
        "|---|---|---|---|",
        *(
            f"| {name} | {median:.1f} | {min(spent[name]):.1f} | {slowest / median:.1f} |"
            for name, median in medians.items()
        ),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text)


if __name__ == "__main__":
    main()
