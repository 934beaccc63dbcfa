"""Time one rewiring of several sparse layers, against the usual way of sorting everything and drawing in a loop.

All ways do the same to the same layers (masks, values and two Adam moments of each): remove the fraction ζ of the
positive weights nearest zero and the fraction ζ of the negative ones, and grow as many at random free entries. The
table also has the diagnostics of the topology, once an epoch; RigL's rewiring, which grows where the gradient is
largest; and what the sparse kernel pays at its first step with another structure.

    python scripts/bench_rewiring.py --threads 1 --output results/performance/rewiring.md
"""

from collections.abc import Callable

import numpy as np
import torch
from interleaved import Step, interleave, parse, report
from torch import nn

from sparse_bench.sparsity.dynamics.scheme import Dynamic
from sparse_bench.sparsity.scheme import Length
from sparse_bench.sparsity.schemes.rigl import RigL
from sparse_bench.sparsity.schemes.set import SET
from sparse_bench.sparsity.weights import MaskedWeight
from sparse_bench.streams import Streams

#: Rows of a batch, about the tokens of one of Multi30k's.
_TOKENS = 1024
#: What comes unmeasured before each repetition, and what is timed; by name.
Arms = dict[str, tuple[Step, Step]]


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
        entries, values = weight.entries()
        untrained = (values == 0).nonzero().squeeze(1)
        new = torch.randn(len(untrained)) / 100
        if isinstance(weight, MaskedWeight):
            weight.parameter.detach().view(-1)[entries[untrained]] = new
        else:
            values[untrained] = new


def rewirings(number: int, width: int, density: float, zeta: float, execution: str) -> Arms:
    """The project's rewiring with all that it notes for its diagnostics, and those; then RigL's rewiring."""
    name = "masked" if execution == "masked" else "compressed"
    scheme = under_set(density, zeta, execution)
    _, optimizer, _ = prepared(number, width, scheme)

    def rewire() -> None:
        scheme.rewire(zeta, optimizer, Streams(0))

    def train_and_rewire() -> None:
        give_values(scheme)
        rewire()

    rigl = RigL(density=density, fraction=zeta, interval=1, layers=["layers.*.weight"], execution=execution)
    _, its_optimizer, forward_backward = prepared(number, width, rigl)

    def train() -> None:
        give_values(rigl)
        forward_backward()  # computes the gradient that RigL goes by

    return {
        f"ours, {name}": (lambda: give_values(scheme), rewire),
        f"ours, {name}: diagnostics, once an epoch": (train_and_rewire, scheme.topology),
        f"RigL, {name}": (train, lambda: rigl.rewire(zeta, its_optimizer, Streams(0))),
    }


def passes(number: int, width: int, density: float, zeta: float) -> Arms:
    """Forward and backward pass of the sparse kernel, which arranges a new structure for itself in the first."""
    scheme = under_set(density, zeta, "kernel")
    _, optimizer, forward_backward = prepared(number, width, scheme)

    def rewire() -> None:
        give_values(scheme)
        scheme.rewire(zeta, optimizer, Streams(0))
        give_values(scheme)

    def rewire_and_pass() -> None:
        rewire()
        forward_backward()

    return {
        "sparse kernel: the first pass with a structure": (rewire, forward_backward),
        "sparse kernel: the second pass with a structure": (rewire_and_pass, forward_backward),
    }


def naive(number: int, width: int, density: float, zeta: float) -> Arms:
    """Sort the full matrix for two thresholds, then draw single entries until enough free ones are hit."""
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

    return {"sort and loop": (train, rewire)}


def main() -> None:
    """Measure, print and write."""
    given = parse(__doc__ or "", layers=6, width=512, density=0.078, zeta=0.3, seconds=60.0, threads=1)
    size = (given.layers, given.width, given.density, given.zeta)
    arms = naive(*size) | rewirings(*size, "masked") | rewirings(*size, "csr") | passes(*size)
    timed, before = ({name: pair[part] for name, pair in arms.items()} for part in (1, 0))
    found = interleave(timed, given.seconds, before=before)
    base = next(iter(found.values()))
    rows = [
        {
            "way": name,
            "× sort and loop": f"{times.median_processor / base.median_processor:.3f}",
            "of processor time": f"{1e3 * times.median_processor:.1f}",
            "by the clock": f"{times.milliseconds:.1f}",
            "least by the clock": f"{times.least:.1f}",
        }
        for name, times in found.items()
    ]
    text = f"""
    Density {given.density:g}, ζ = {given.zeta:g}, {len(base.clock)} repetitions in turn. A pass is forward and
    backward on {_TOKENS:,} tokens. Milliseconds for all layers together; processor time is the steadier of the two on
    a machine that others use.
    """
    report(given.output, f"Rewiring {given.layers} masks of {given.width} × {given.width}", text, rows)


if __name__ == "__main__":
    main()
