"""Time what schemes add to training: one rewiring, an epoch with SET, and steps and updates of all schemes.

python scripts/bench_schemes.py schemes --rounds 30
"""

import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import yaml
from bench_models import multi30k, training_step, translation_loss
from interleaved import Row, Step, Times, interleave, measure, timed
from torch import nn

import sparse_bench as sb
from sparse_bench.config import CONF, build, choices
from sparse_bench.errors import ConfigError
from sparse_bench.models.transformer import Transformer
from sparse_bench.sparsity.dynamics.scheme import Dynamic
from sparse_bench.sparsity.scheme import Length, Scheme
from sparse_bench.sparsity.schemes.dense import Dense
from sparse_bench.sparsity.weights import MaskedWeight
from sparse_bench.streams import Streams

_WIDTH, _ZETA = 512, 0.3


class Layers(nn.Module):
    """Six square linear layers under a scheme that an optimizer with moments has trained for a step."""

    def __init__(self, scheme: Dynamic) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(_WIDTH, _WIDTH) for _ in range(6))
        self.scheme = scheme
        scheme.attach(self, Streams(0))
        scheme.before_training(lambda: Length(1, 10**6))
        self.optimizer = torch.optim.Adam(self.parameters(), lr=1e-4)
        self._x = torch.randn(1024, _WIDTH)
        self.forward_backward()
        self.optimizer.step()

    def forward_backward(self) -> None:
        """A pass, which leaves the gradient that RigL goes by."""
        self.optimizer.zero_grad()
        self.scheme.before_backward(1)
        torch.stack([layer(self._x).square().mean() for layer in self.layers]).sum().backward()
        self.scheme.after_backward()

    def give_values(self) -> None:
        """Small random values for the connections that have none yet."""
        for weight in self.scheme.weights.values():
            entries, values = weight.entries()
            untrained = (values == 0).nonzero().squeeze(1)
            new = torch.randn(len(untrained)) / 100
            if isinstance(weight, MaskedWeight):
                weight.parameter.detach().view(-1)[entries[untrained]] = new
            else:
                values[untrained] = new

    def rewire(self) -> None:
        """Replace connections, with all that is noted for the diagnostics."""
        self.scheme.rewire(_ZETA, self.optimizer, Streams(0))


def rewiring(*, seconds: float = 60.0, threads: int = 1) -> Iterator[Row | str]:
    """Rewiring 6 masks of 512 × 512.

    All ways remove the fraction ζ = 0.3 of the positive weights nearest zero and of the negative ones, and grow as
    many at random free entries, at density 0.078: in masks, values and two Adam moments of each layer. `sort and loop`
    is the usual way. The diagnostics of the topology come once an epoch. RigL grows where the gradient is largest. The
    sparse kernel arranges a new structure for itself in its first pass: forward and backward on 1,024 tokens.
    Milliseconds are medians for all layers together.
    """
    arms: dict[str, tuple[Step, Step]] = {}  # what comes unmeasured before each repetition, and what is timed
    settings: dict[str, Any] = {"density": 0.078, "layers": ["layers.*.weight"]}
    usual = Layers(sb.SET(zeta=_ZETA, **settings))
    arms["sort and loop"] = (usual.give_values, partial(sort_and_loop, usual, np.random.default_rng(0)))
    for execution, name in (("masked", "masked"), ("csr", "compressed")):
        ours = Layers(sb.SET(zeta=_ZETA, execution=execution, **settings))
        rigl = Layers(sb.RigL(fraction=_ZETA, interval=1, execution=execution, **settings))
        arms[f"ours, {name}"] = (ours.give_values, ours.rewire)
        arms[f"ours, {name}: diagnostics, once an epoch"] = (both(ours.give_values, ours.rewire), ours.scheme.topology)
        arms[f"RigL, {name}"] = (both(rigl.give_values, rigl.forward_backward), rigl.rewire)
    kernel = Layers(sb.SET(zeta=_ZETA, execution="kernel", **settings))
    changed = both(kernel.give_values, kernel.rewire, kernel.give_values)
    for number, before in (("first", changed), ("second", both(changed, kernel.forward_backward))):
        arms[f"sparse kernel: the {number} pass with a structure"] = (before, kernel.forward_backward)
    before, works = ({name: pair[part] for name, pair in arms.items()} for part in (0, 1))
    spent = interleave(works, seconds, before=before)
    base = spent["sort and loop"]
    for name, times in spent.items():
        yield {
            "way": name,
            "× sort and loop": f"{times.over(base, 'processor'):.3f}",
            "of processor time": f"{times.ms('processor'):.1f}",
            "by the clock": f"{times.ms():.1f}",
            "least by the clock": f"{1e3 * min(times.clock):.1f}",
        }


def both(*steps: Step) -> Step:
    """One after the other."""
    return lambda: [step() for step in steps]


def sort_and_loop(model: Layers, draw: np.random.Generator) -> None:
    """Rewire masked layers: sort all entries for two thresholds, then draw places until enough free ones are hit."""
    for weight in model.scheme.weights.values():
        weights, mask = weight.dense().numpy(), weight.mask.numpy()
        ordered = np.sort(weights.ravel())
        negative, positive = ordered[ordered < 0], ordered[ordered > 0]
        low, high = negative[round((1 - _ZETA) * len(negative))], positive[round(_ZETA * len(positive))]
        kept = ((weights < low) | (weights >= high)) & mask
        missing, mask[:] = int(mask.sum() - kept.sum()), kept
        while missing:
            place = draw.integers(_WIDTH), draw.integers(_WIDTH)
            missing -= not mask[place]
            mask[place] = True
        weights *= kept
        for moment in model.optimizer.state[model.get_parameter(weight.name)].values():
            if moment.shape == weights.shape:
                moment.mul_(torch.from_numpy(kept))


def set_epoch(*, seconds: float = 90.0, batches: int = 3, threads: int = 1) -> Iterator[Row | str]:
    """An epoch with SET against a dense one.

    The arms are those of the report on SET in the Transformer (d_model 512, 2 + 2 layers, 64 pairs a batch, ε = 20 on
    the queries, keys and values of the encoder), on batches that stand for an epoch, in turn. Processor time of all
    threads. *Whole steps* are medians of the rounds' ratios to the dense arm, with their quartiles. So small a
    difference drowns in what else a machine does: *reckoned* is the dense step with the scheme's own calls and its
    share of the epoch's end added, for arms whose products are the dense arm's.
    """
    task, chosen = multi30k(batches)
    steps = task.epoch_steps(0, Streams(0))
    arms, calls, ends, ended = dict[str, Step](), dict[str, list[Times]](), dict[str, Step](), dict[str, Times]()
    for name in ("dense", "dense, Adam begins anew", "SET, masked", "SET, kernel"):
        scheme: Scheme = Dense()
        if name.startswith("SET"):
            scheme = sb.SET(epsilon=20, layers=["encoder_self_attention_qkv"], execution=name.removeprefix("SET, "))
        model = Transformer(task.sizes)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True, betas=(0.9, 0.98), eps=1e-9)
        sparse = sb.sparsify(model, optimizer, scheme, steps=10**6, steps_per_epoch=10**5)
        arms[name] = training_step(model, translation_loss(task), chosen, optimizer=optimizer)
        calls[name] = [clocked(scheme, call) for call in ("before_backward", "after_backward", "after_step")]

        def end(sparse: sb.SparseTraining = sparse, anew: bool = "anew" in name) -> None:
            sparse.end_epoch(0, last=False)
            sparse.scheme.topology()
            if anew:  # which is what the report's transfer of weights comes to
                sparse.optimizer.state.clear()

        ended[name] = Times()
        ends[name] = partial(timed, end, ended[name])
    spent = interleave(arms, seconds, before=ends)
    base = spent["dense"].ms("processor") / batches
    for name, times in spent.items():
        middle = times.over(spent["dense"], "processor")
        # Of each, what came before the first measured round warms up.
        call = sum(1e3 * statistics.median(one.processor[batches:]) for one in calls[name])
        at_end = 1e3 * statistics.median(ended[name].processor[1:])
        same_products = name in ("dense", "SET, masked")  # making moments anew is part of a step
        yield {
            "arm": name,
            "epoch over dense, whole steps": f"{middle + at_end / steps / base:.3f}",
            "epoch over dense, reckoned": f"{(base + call + at_end / steps) / base:.4f}" if same_products else None,
            "whole steps": f"{middle:.3f} ({times.quartiles(spent['dense'], 'processor').replace(' to ', '–')})",
            "ms a step": f"{times.ms('processor') / batches:.1f}",
            "scheme's calls, ms a step": f"{call:.2f}",
            "epoch end, ms": f"{at_end:.1f}",
        }
    yield f"{len(spent['dense'].clock)} rounds of {batches} batches; an epoch has {steps} steps"


def clocked(scheme: Scheme, call: str) -> Times:
    """The times of all coming calls of one of a scheme's methods."""
    times, work = Times(), getattr(scheme, call)
    setattr(scheme, call, lambda *arguments: timed(partial(work, *arguments), times))
    return times


#: Steps between updates where all schemes are compared, and of an epoch for those that rewire between epochs.
_EVERY = 5
#: Steps of an epoch of Multi30k in batches of 64, over which an update between epochs is spread.
_EPOCH = 453


def schemes(*, rounds: int = 30, d_model: int = 256, threads: int = torch.get_num_threads()) -> Iterator[Row | str]:
    """What a step and an update cost under each scheme.

    The transformer (256 wide, 2 + 2 layers) at density 0.1 with masked weights and Adam, as `sparsify` runs it. Medians
    of processor time, the schemes in turn on the same batches. A step is forward, backward and optimizer. An update is
    a step in which connections change, all of its work included; here all schemes update every few steps. "Amortised"
    spreads updates over the scheme's own interval, or over 453 steps where it rewires between epochs, and compares with
    `random`.
    """
    task, batches = multi30k(2)
    loss = translation_loss(task)
    found = dict[str, tuple[sb.SparseTraining, int, list[Step], dict[bool, Times]]]()
    for name in choices("sparsity"):
        model = Transformer(task.sizes, d_model=d_model, d_inner=4 * d_model)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        losses = lambda model: (loss(model, batch) for batch in batches)  # noqa: E731
        try:
            scheme, interval = shipped(name)
            sparse = sb.sparsify(model, optimizer, scheme, steps=1000, steps_per_epoch=_EVERY, losses=losses)
        except ConfigError as error:
            yield f"`{name}` is left out: {str(error).split('. ')[0].rstrip('.')}."
            continue
        steps = [training_step(model, loss, [batch], optimizer=optimizer) for batch in batches]
        found[name] = sparse, interval, steps, {False: Times(), True: Times()}
    for number in range(rounds):
        for sparse, _, steps, times in found.values():
            before, spent = sparse.scheme.rewirings(), Times()
            timed(steps[number % 2], spent)
            times[sparse.scheme.rewirings() != before].processor += spent.processor
    dense, masked = (found[name][3][False].ms("processor") for name in ("dense", "random"))
    for name, (_, interval, _, times) in found.items():
        plain, updates = times[False].processor, times[True].processor
        step = times[not plain].ms("processor")
        update = times[True].ms("processor") if updates and plain else None
        spread = step if update is None else (step * (interval - 1) + update) / interval
        yield {
            "scheme": name,
            "step / dense": f"{step / dense:.2f}",
            "update / dense step": None if update is None else f"{update / dense:.2f}",
            "steps between updates": None if update is None else str(interval),
            "amortised / masked step": f"{spread / masked:.3f}",
            "steps timed": str(len(plain)),
            "updates timed": str(len(updates)),
        }


def shipped(name: str) -> tuple[Scheme, int]:
    """The scheme of a shipped file, and how many steps apart its updates are by default.

    Raises:
        ConfigError: the file combines other files.
    """
    node: dict[str, Any] = yaml.safe_load((CONF / "sparsity" / f"{name}.yaml").read_text(encoding="utf-8"))
    if "defaults" in node:
        raise ConfigError("It combines other schemes")
    interval = node.get("interval", _EPOCH)  # others change connections at most once an epoch
    node |= {key: value for key, value in (("density", 0.1), ("begin", 0.0)) if key in node and name != "dense"}
    if node.get("interval", 1) > 1:
        node["interval"] = _EVERY
    return build(node), interval


if __name__ == "__main__":
    measure(rewiring, set_epoch, schemes)
