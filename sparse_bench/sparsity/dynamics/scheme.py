"""The base of every scheme whose topology changes while the model is trained.

A dynamic scheme is a first topology (another base's matter), a drop, a growth and a schedule. What happens at a
rewiring, to counts, values, optimizer moments and diagnostics, is the same for all and happens here.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.diagnostics import Evolution
from sparse_bench.sparsity.dynamics.drop import Drop, on_host
from sparse_bench.sparsity.dynamics.grow import Grow, Room
from sparse_bench.sparsity.dynamics.schedule import Schedule
from sparse_bench.sparsity.scheme import Length, Scheme
from sparse_bench.sparsity.weights import SparseWeight
from sparse_bench.streams import Streams


@dataclass(frozen=True)
class Dynamics:
    """What tells one dynamic scheme from another, beside its first topology.

    Attributes:
        drop: which connections go.
        grow: which come; None if none does.
        schedule: when, and what fraction of the connections goes.
        everywhere: whether ``drop`` chooses among the connections of all layers together, not of each for itself.
        by_gradient: whether growth ranks free places by the dense gradient of the step that it follows.
        last_removal: whether connections also go after the last epoch, when none comes any more.
    """

    drop: Drop
    grow: Grow | None
    schedule: Schedule
    everywhere: bool = False
    by_gradient: bool = False
    last_removal: bool = True


@dataclass
class Dynamic(Scheme, ABC):
    """Replaces connections when its schedule says so.

    Each layer grows as many connections as it has lost, so that its number of weights stays what it was; after the
    last epoch nothing grows any more, so what is removed then is missing. A new connection is zero at first and has no
    optimizer moments, also where an old one has just been removed.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.dynamics = self.compose()
        self._length: Callable[[], Length] = _not_training
        #: How often it was rewired, in earlier stages too; each time has random numbers of its own.
        self._rewirings = 0
        #: In this training, and some connection went.
        self._changes = 0
        self._evolution = Evolution({})
        self._gradient_asked_for = False
        #: The change that a step without a finite gradient has left to the next.
        self._put_off: float | None = None
        #: By which free places are ranked at the coming rewiring, [size] for each layer.
        self._scores: dict[str, Tensor] = {}

    @abstractmethod
    def compose(self) -> Dynamics:
        """The dynamics, from the scheme's settings.

        Raises:
            ConfigError: a setting is out of range.
        """

    def attach(self, model: nn.Module, streams: Streams) -> None:
        super().attach(model, streams)
        frozen = [name for name, weight in self.weights.items() if not weight.trained]
        if frozen and self.dynamics.grow is not None:
            raise ConfigError(
                f"{type(self).__name__} grows connections that learn from zero, and {', '.join(frozen)} "
                "keep their first weights. Use a scheme whose topology stays, or select other layers (sparsity.layers)."
            )
        self._evolution = Evolution(self.weights)

    def before_training(self, length: Callable[[], Length]) -> None:
        self._length = cache(length)
        self._changes = 0
        self._evolution.tell_again()  # a second stage begins with the topology that a first one has left

    def warnings(self) -> list[str]:
        doubt = self.dynamics.schedule.doubt(self._length())
        return [f"{type(self).__name__} {doubt}."] if doubt else []

    def before_backward(self, step: int) -> None:
        if self.dynamics.by_gradient:
            self._ask_for_gradient(self._due(step) is not None)

    def _due(self, step: int) -> float | None:
        """The change after optimizer step ``step``, or an earlier one that its own step has put off; None for none."""
        amount = self.dynamics.schedule.after_step(step, self._length)
        return self._put_off if amount is None else amount

    def after_backward(self) -> None:
        if self._gradient_asked_for:
            self._scores = {name: _magnitudes(weight) for name, weight in self.weights.items()}
            self._ask_for_gradient(False)
        super().after_backward()

    def _ask_for_gradient(self, wanted: bool) -> None:
        if wanted != self._gradient_asked_for:
            self._gradient_asked_for = wanted
            for weight in self.weights.values():
                weight.keep_dense_gradient(wanted)

    def after_step(self, step: int, optimizer: Optimizer, streams: Streams) -> None:
        super().after_step(step, optimizer, streams)
        amount = self._due(step)
        if amount is None:
            return
        # A step that a gradient scaler leaves out, because of an overflow, changes no topology: the next one does.
        overflow = getattr(optimizer, "found_inf", None)
        finite = all(bool(score.isfinite().all()) for score in self._scores.values())
        if finite and not (overflow is not None and bool(overflow)):
            self._put_off = None
            self.rewire(amount, optimizer, streams)
        else:
            self._put_off, self._scores = amount, {}

    def at_epoch_end(self, epoch: int, last: bool, optimizer: Optimizer, streams: Streams) -> dict[str, float]:
        amount = self.dynamics.schedule.after_epoch(epoch, self._length)
        if amount is not None and (self.dynamics.last_removal or not last):
            self.rewire(amount, optimizer, streams, grows=not last)
        return self._evolution.end_epoch(self.weights)

    def rewirings(self) -> int:
        return self._changes

    def topology(self) -> dict[str, Any]:
        return self._evolution.news(self.weights)

    @torch.no_grad()
    def rewire(self, amount: float, optimizer: Optimizer | None, streams: Streams, grows: bool = True) -> None:
        """Change the topology of all layers now, by ``amount`` as the schedule gives it."""
        self._rewirings += 1
        share, lost = self.share_to_remove(amount), 0
        together = self._removed_together(share) if self.dynamics.everywhere else {}
        # One layer after the other, so that what is read of it is still in the processor's cache when it is changed.
        for name, weight in self.weights.items():
            gone = together[name] if together else self._removed(name, share)
            generator = streams.torch("topology", name, self._rewirings)
            occupied = weight.mask.flatten()
            if grows and self.dynamics.grow is not None:
                free = weight.size - weight.active + gone.numel()
                left = occupied.index_fill(0, gone, False).view(weight.shape)
                room = Room(left, free, self._scores.get(name), generator)
                grown = self.dynamics.grow(room, gone.numel())
            else:
                grown = gone[:0]
            values = self.new_values(name, grown.numel(), generator)
            self._evolution.record(name, weight.active, occupied, gone, grown)
            weight.rewire(gone, grown, values, optimizer)
            lost += gone.numel()
        self._changes += lost > 0
        self._evolution.count_rewiring()
        self._scores = {}

    def share_to_remove(self, amount: float) -> float:
        """The fraction of the connections that goes, given the schedule's amount: that amount."""
        return amount

    def new_values(self, layer: str, count: int, generator: Generator) -> Tensor:
        """Values of ``count`` new connections of a layer: zero."""
        return torch.zeros(count)

    def ranked(self, layer: str) -> tuple[Tensor, Tensor]:
        """Places of a layer's connections, and what the drop judges them by: their weights. Both [entries]."""
        return self.weights[layer].entries()

    def _removed(self, layer: str, fraction: float) -> Tensor:
        """Places of the connections of one layer that go."""
        places, values = self.ranked(layer)
        return _where(places, self.dynamics.drop(on_host(values), fraction))

    def _removed_together(self, fraction: float) -> dict[str, Tensor]:
        """Places of the connections that go, for each layer, where all layers' connections are judged together."""
        entries = [self.ranked(name) for name in self.weights]
        chosen = self.dynamics.drop(np.concatenate([on_host(values) for _, values in entries]), fraction)
        parts = np.split(chosen, np.cumsum([places.numel() for places, _ in entries])[:-1])
        return {
            name: _where(places, part) for name, (places, _), part in zip(self.weights, entries, parts, strict=True)
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "rewirings": self._rewirings,
            "changes": self._changes,
            "put_off": self._put_off,
            "evolution": self._evolution.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._rewirings = state["rewirings"]
        self._changes = state.get("changes", self._rewirings)  # an earlier version kept the first alone
        self._put_off = state.get("put_off")
        self._evolution.load_state_dict(state["evolution"])


def _where(places: Tensor, chosen: np.ndarray) -> Tensor:
    """Those of ``places`` that are ``chosen``."""
    return places.index_select(0, torch.from_numpy(np.flatnonzero(chosen)).to(places.device))


def _magnitudes(weight: SparseWeight) -> Tensor:
    """Of the dense gradient [size]; zero where the weight took no part in the loss."""
    gradient = weight.dense_gradient()
    return torch.zeros_like(weight.dense()).flatten() if gradient is None else gradient.abs().flatten()


def _not_training() -> Length:
    raise RuntimeError("before_training() tells a dynamic scheme how long training is, and has not been called")
