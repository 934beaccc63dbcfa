"""The base of schemes whose topology changes during training.

A dynamic scheme combines a first topology, a drop, a growth and a schedule. Another base class provides the first
topology. A rewiring updates counts, values, optimizer moments and diagnostics in the same way for all schemes, here.
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
from sparse_bench.sparsity.scheme import Length, Scheme, not_training
from sparse_bench.sparsity.weights import SparseWeight
from sparse_bench.streams import Streams


@dataclass(frozen=True)
class Dynamics:
    """The parts of a dynamic scheme, apart from its first topology.

    Attributes:
        drop: chooses the connections to remove.
        grow: chooses the places of new connections; None if none grow.
        schedule: when connections are removed, and what fraction of them.
        everywhere: whether ``drop`` chooses among the connections of all layers together; else in each layer.
        by_gradient: whether growth ranks free places by the dense gradient of the step just done.
        last_removal: whether connections are also removed after the last epoch, when none grow.
    """

    drop: Drop
    grow: Grow | None
    schedule: Schedule
    everywhere: bool = False
    by_gradient: bool = False
    last_removal: bool = True


@dataclass
class Dynamic(Scheme, ABC):
    """Removes and grows connections when its schedule says so.

    Each layer grows as many connections as it loses, so its number of weights stays the same. After the last epoch
    nothing grows, so a removal then makes the model sparser. A new connection starts at zero, and its optimizer moments
    are zero, also at the place of a connection that has just been removed.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.dynamics = self.compose()
        self._length: Callable[[], Length] = not_training
        #: Number of rewirings, earlier training stages included; each one has its own random numbers.
        self._rewirings = 0
        #: Number of rewirings in this training that removed a connection.
        self._changes = 0
        self._evolution = Evolution({})
        self._keeps_gradient = False
        #: Amount of a change that was deferred to the next step, because a gradient was not finite.
        self._put_off: float | None = None
        #: Layer → scores of its places at the next rewiring [size].
        self._scores: dict[str, Tensor] = {}

    @abstractmethod
    def compose(self) -> Dynamics:
        """Make the dynamics from the scheme's settings.

        Raises:
            ConfigError: a setting is out of range.
        """

    def attach(self, model: nn.Module, streams: Streams) -> None:
        super().attach(model, streams)
        frozen = [name for name, weight in self.weights.items() if not weight.trained]
        if frozen and self.dynamics.grow is not None:
            raise ConfigError(
                f"{type(self).__name__} grows connections that start at zero and have to be trained, and the model "
                f"freezes {', '.join(frozen)}. Use a scheme with a fixed topology, or select other layers "
                "(sparsity.layers)."
            )
        self._evolution = Evolution(self.weights)

    def before_training(self, length: Callable[[], Length]) -> None:
        self._length = cache(length)
        self._changes = 0
        self._evolution.tell_again()  # a second training stage records its first topology too

    def warnings(self) -> list[str]:
        doubt = self.dynamics.schedule.doubt(self._length())
        return [f"{type(self).__name__} {doubt}."] if doubt else []

    def before_backward(self, step: int) -> None:
        if self.dynamics.by_gradient:
            self._keep_gradient(self._due(step) is not None)

    def _due(self, step: int) -> float | None:
        """The amount of change after optimizer step ``step``, or one that an earlier step deferred; None: no change."""
        amount = self.dynamics.schedule.after_step(step, self._length)
        return self._put_off if amount is None else amount

    def after_backward(self) -> None:
        if self._keeps_gradient:
            self._scores = {name: _magnitudes(weight) for name, weight in self.weights.items()}
            self._keep_gradient(False)
        super().after_backward()

    def _keep_gradient(self, wanted: bool) -> None:
        if wanted != self._keeps_gradient:
            self._keeps_gradient = wanted
            for weight in self.weights.values():
                weight.keep_dense_gradient(wanted)

    def after_step(self, step: int, optimizer: Optimizer, streams: Streams) -> None:
        super().after_step(step, optimizer, streams)
        amount = self._due(step)
        if amount is None:
            return
        # After a gradient overflow, the scaler skips the step; then the topology changes after the next step instead.
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
        """Change the topology of all layers now.

        Args:
            amount: amount of change, as given by the schedule.
            optimizer: the moments of removed and of new connections are set to zero; None: there is none.
            streams: source of random numbers.
            grows: whether new connections grow.
        """
        self._rewirings += 1
        share, lost = self.share_to_remove(amount), 0
        together = self._removed_together(share) if self.dynamics.everywhere else {}
        # Finish one layer before the next, so that its data are still in the processor's cache when it is changed.
        for name, weight in self.weights.items():
            gone = together[name] if together else self._removed(name, share)
            generator = streams.torch("topology", name, self._rewirings)
            occupied = weight.mask.flatten()
            if grows and self.dynamics.grow is not None:
                # The places of removed connections are free for growth too.
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
        """The fraction of the connections to remove, given the schedule's amount; by default that amount."""
        return amount

    def new_values(self, layer: str, count: int, generator: Generator) -> Tensor:
        """Values of the new connections of a layer [count]; by default zero."""
        return torch.zeros(count)

    def ranked(self, layer: str) -> tuple[Tensor, Tensor]:
        """Places of a layer's connections, and the values that the drop compares; by default, weights [entries]."""
        return self.weights[layer].entries()

    def _removed(self, layer: str, fraction: float) -> Tensor:
        """Places of the connections of one layer to remove."""
        places, values = self.ranked(layer)
        return _where(places, self.dynamics.drop(on_host(values), fraction))

    def _removed_together(self, fraction: float) -> dict[str, Tensor]:
        """Layer → places of its connections to remove, when the connections of all layers are compared together."""
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
        self._changes = state.get("changes", self._rewirings)  # earlier versions saved only the rewirings
        self._put_off = state.get("put_off")
        self._evolution.load_state_dict(state["evolution"])


def _where(places: Tensor, chosen: np.ndarray) -> Tensor:
    """The ``places`` [n] for which ``chosen`` [n] is true."""
    return places.index_select(0, torch.from_numpy(np.flatnonzero(chosen)).to(places.device))


def _magnitudes(weight: SparseWeight) -> Tensor:
    """Magnitudes of the dense gradient [size]; zero if the weight took no part in the loss."""
    gradient = weight.dense_gradient()
    return torch.zeros_like(weight.dense()).flatten() if gradient is None else gradient.abs().flatten()
