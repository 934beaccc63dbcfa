"""Time one rewiring of several sparse layers, against the usual way of sorting everything and drawing in a loop.

All ways do the same to the same layers (masks, values and two Adam moments of each): remove the fraction ζ of the
positive weights nearest zero and the fraction ζ of the negative ones, and grow as many at random free places. They run
in turn in one process, so that what else happens on the machine hits all alike; the figures are medians. What the
diagnostics of the topology take, once an epoch, is told beside them; so are RigL's rewiring, which grows where the
gradient is largest, and what the sparse kernel pays at its first step with another structure.

    python scripts/bench_rewiring.py --threads 1 --output results/performance/rewiring.md
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from interleaved import Times, describe_machine, write
from torch import nn

from sparse_bench.sparsity.dynamics.scheme import Dynamic
from sparse_bench.sparsity.scheme import Length
from sparse_bench.sparsity.schemes.rigl import RigL
from sparse_bench.sparsity.schemes.set import SET
from sparse_bench.sparsity.weights import MaskedWeight
from sparse_bench.streams import Streams

#: Rows of a batch, about the tokens of one of Multi30k's.
_TOKENS = 1024


class Layers(nn.Module):
    """Square linear layers of one width."""

    def __init__(self, number: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(number))


def prepared(number: int, width: int, scheme: Dynamic) -> tuple[Layers, torch.optim.Adam, Callable[[], None]]:
    """Layers under a scheme that an optimizer with moments has trained for a step; and a forward and backward pass."""
    torch.manual_seed(0)
    model = Layers(number, width)
    scheme.attach(model, Streams(0))
    scheme.before_training(lambda: Length(1, 10**6))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    x = torch.randn(_TOKENS, width)

    def forward_backward() -> None:
        optimizer.zero_grad()
        scheme.before_backward(1)
        sum(layer(x).square().mean() for layer in model.layers).backward()  # type: ignore[union-attr]
        scheme.after_backward()

    forward_backward()
    optimizer.step()
    return model, optimizer, forward_backward


def under_set(density: float, zeta: float, execution: str) -> SET:
    """SET on all layers."""
    return SET(density=density, zeta=zeta, layers=["layers.*.weight"], execution=execution)


def give_values(scheme: Dynamic) -> None:
    """Small random values for the connections that have none yet."""
    for weight in scheme.weights.values():
        places, values = weight.entries()
        untrained = (values == 0).nonzero().squeeze(1)
        new = torch.randn(len(untrained)) / 100
        if isinstance(weight, MaskedWeight):
            weight.parameter.detach().view(-1)[places[untrained]] = new
        else:
            values[untrained] = new


@dataclass
class Arm:
    """What is timed, and what comes between two repetitions: new weights are zero until they are trained.

    Attributes:
        parts: what is timed, by name, in this order.
        train: what comes between, unmeasured.
        times: of each part's repetitions.
    """

    parts: dict[str, Callable[[], object]]
    train: Callable[[], object]
    times: dict[str, Times] = field(default_factory=dict)

    def repeat(self, measured: bool) -> None:
        """Everything once."""
        for name, part in self.parts.items():
            begin, begin_processor = time.perf_counter(), time.process_time()
            part()
            spent, spent_processor = time.perf_counter() - begin, time.process_time() - begin_processor
            if measured:
                times = self.times.setdefault(name, Times())
                times.clock.append(spent)
                times.processor.append(spent_processor)
        self.train()


def ours(number: int, width: int, density: float, zeta: float, execution: str) -> Arm:
    """The project's rewiring, with all that it notes for its diagnostics; and those."""
    scheme = under_set(density, zeta, execution)
    _, optimizer, _ = prepared(number, width, scheme)
    name = "masked" if execution == "masked" else "compressed"
    return Arm(
        {
            f"ours, {name}": lambda: scheme.rewire(zeta, optimizer, Streams(0)),
            f"ours, {name}: diagnostics, once an epoch": scheme.topology,
        },
        lambda: give_values(scheme),
    )


def rigl(number: int, width: int, density: float, zeta: float, execution: str) -> Arm:
    """RigL's rewiring; the gradient that it goes by was computed in the step before, unmeasured."""
    scheme = RigL(density=density, fraction=zeta, interval=1, layers=["layers.*.weight"], execution=execution)
    _, optimizer, forward_backward = prepared(number, width, scheme)

    def train() -> None:
        give_values(scheme)
        forward_backward()

    name = "masked" if execution == "masked" else "compressed"
    return Arm({f"RigL, {name}": lambda: scheme.rewire(zeta, optimizer, Streams(0))}, train)


def steps_after(number: int, width: int, density: float, zeta: float) -> Arm:
    """Forward and backward pass of the sparse kernel, which arranges a new structure for itself in the first."""
    scheme = under_set(density, zeta, "kernel")
    _, optimizer, forward_backward = prepared(number, width, scheme)
    first, later = (f"sparse kernel: the {which} pass with a structure" for which in ("first", "second"))

    def train() -> None:
        give_values(scheme)
        scheme.rewire(zeta, optimizer, Streams(0))
        give_values(scheme)

    return Arm({first: forward_backward, later: forward_backward}, train)


def naive(number: int, width: int, density: float, zeta: float) -> Arm:
    """Sort the full matrix for two thresholds, then draw single places until enough free ones are hit."""
    scheme = under_set(density, zeta, "masked")
    model, optimizer, _ = prepared(number, width, scheme)
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

    return Arm({"sort and loop": rewire}, train)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--density", type=float, default=0.078)
    parser.add_argument("--zeta", type=float, default=0.3)
    parser.add_argument("--repetitions", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="Markdown file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size = (arguments.layers, arguments.width, arguments.density, arguments.zeta)
    arms = [naive(*size), ours(*size, "masked"), ours(*size, "csr")]
    arms += [rigl(*size, "masked"), rigl(*size, "csr"), steps_after(*size)]
    for repetition in range(arguments.repetitions + 1):
        for arm in arms:
            arm.repeat(measured=repetition > 0)  # the first one warms up
    found = {name: times for arm in arms for name, times in arm.times.items()}
    base = next(iter(found.values()))
    lines = [
        f"# Rewiring {arguments.layers} masks of {arguments.width} × {arguments.width}",
        "",
        f"Density {arguments.density:g}, ζ = {arguments.zeta:g}, {arguments.repetitions} repetitions in turn; "
        f"{describe_machine()}. A pass is forward and backward on {_TOKENS:,} tokens. Milliseconds for all "
        "layers together; processor time is the steadier of the two on a machine that others use.",
        "",
        "| way | × sort and loop | of processor time | by the clock | least by the clock |",
        "|:--|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {name} | {times.median_processor / base.median_processor:.3f} | {1e3 * times.median_processor:.1f} "
        f"| {times.milliseconds:.1f} | {1e3 * min(times.clock):.1f} |"
        for name, times in found.items()
    ]
    write("\n".join(lines) + "\n", arguments.output)


if __name__ == "__main__":
    main()
