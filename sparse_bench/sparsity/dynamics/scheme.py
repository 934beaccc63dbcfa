"""The base of schemes whose topology changes during training.

A dynamic scheme combines a first topology, a drop, a growth and a schedule. Another base class provides the first
topology. A rewiring updates counts, values, optimizer moments and diagnostics in the same way for all schemes, here.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from sparse_bench.errors import ConfigError
from sparse_bench.kernels import places_of
from sparse_bench.limits import one_of
from sparse_bench.sparsity.diagnostics import Evolution
from sparse_bench.sparsity.dynamics.adam import NEW_WEIGHT_ADAM, OwnSteps, parameter_of
from sparse_bench.sparsity.dynamics.drop import Drop, on_host
from sparse_bench.sparsity.dynamics.grow import Grow, Room
from sparse_bench.sparsity.dynamics.schedule import NEVER, Schedule
from sparse_bench.sparsity.dynamics.tiles import as_places, in_tiles, tiles_of
from sparse_bench.sparsity.scheme import Length, Scheme, not_training
from sparse_bench.sparsity.weights import SparseWeight
from sparse_bench.streams import Streams

#: Amount of change, and the density to prune to; None: no pruning.
Change = tuple[float, float | None]


@dataclass(frozen=True)
class Dynamics:
    """The parts of a dynamic scheme, apart from its first topology.

    Attributes:
        drop: chooses the connections to remove in a layer, and, when pruning, in all layers together.
        grow: chooses the places of new connections; None if none grow.
        schedule: when connections are replaced, and what fraction of them.
        by_gradient: whether growth ranks free places by the dense gradient of the step just done.
        last_removal: whether connections are also removed after the last epoch, when none grow.
        pruning: when the density changes, and to which; None: the number of connections stays the same.
    """

    drop: Drop
    grow: Grow | None
    schedule: Schedule
    by_gradient: bool = False
    last_removal: bool = True
    pruning: Schedule | None = None


@dataclass
class Dynamic(Scheme, ABC):
    """Removes and grows connections when its schedule says so.

    Each layer grows as many connections as it loses, so its number of weights stays the same. After the last epoch
    nothing grows, so a removal then makes the model sparser. A new connection starts at zero, and its optimizer moments
    are zero, also at the place of a connection that has just been removed.

    A scheme with a setting ``block`` = b removes and grows tiles of b × b connections, judged by the sums over a tile.

    Attributes:
        new_weight_adam: number of steps that Adam corrects the moments of new weights for, one of
            :data:`sparse_bench.sparsity.dynamics.adam.NEW_WEIGHT_ADAM`.
    """

    #: Whether training may change the number of weights of a layer.
    resizes: ClassVar[bool] = False

    new_weight_adam: Annotated[str, one_of(*NEW_WEIGHT_ADAM)] = "torch"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.dynamics = self.compose()
        self._own_steps: OwnSteps | None = None
        if self.new_weight_adam != "torch":
            if self.dynamics.grow is None:
                raise ConfigError(
                    f"{type(self).__name__} grows no weight, so sparsity.new_weight_adam={self.new_weight_adam} would "
                    "do nothing. Use sparsity.new_weight_adam=torch."
                )
            self._own_steps = OwnSteps(warm_up=self.new_weight_adam == "warm_up")
        #: Side of a tile of connections that are removed and grown together.
        self.side: int = getattr(self, "block", 1)
        self._length: Callable[[], Length] = not_training
        #: Number of rewirings, earlier training stages included; each one has its own random numbers.
        self._rewirings = 0
        #: Number of rewirings in this training that removed a connection.
        self._changes = 0
        self._evolution = Evolution({})
        self._keeps_gradient = False
        #: A change that was deferred to the next step, because a gradient was not finite.
        self._put_off: Change | None = None
        #: The optimizer step that is being made, or was made last.
        self.step = 0
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
        self._evolution.mark_changed()  # a second training stage records its first topology too

    def warnings(self) -> list[str]:
        schedules = [self.dynamics.schedule, self.dynamics.pruning]
        warnings = [schedule.warning(self._length()) for schedule in schedules if schedule is not None]
        never = NEVER if self.dynamics.pruning is None else "never replaces weights in this run, and only prunes"
        return [f"{type(self).__name__} {warning.replace(NEVER, never)}." for warning in warnings if warning]

    def check_optimizer(self, optimizer: Optimizer) -> None:
        if self._own_steps is not None:
            self._own_steps.check(optimizer, self.weights)

    def before_backward(self, step: int) -> None:
        self.step = step
        if self.dynamics.by_gradient:
            self._keep_gradient(self._due(step) is not None)

    def _due(self, step: int) -> Change | None:
        """The change after optimizer step ``step``, or one that an earlier step deferred; None: no change."""
        amount = self.dynamics.schedule.after_step(step, self._length)
        pruning = self.dynamics.pruning
        density = None if pruning is None else pruning.after_step(step, self._length)
        if amount is None and density is None:
            return self._put_off
        if density is None and self._put_off is not None:
            density = self._put_off[1]
        return amount or 0.0, density

    def progress(self) -> float:
        """Share of all steps of this training that have been made, 0 to 1."""
        return self.step / self._length().steps

    def after_backward(self) -> None:
        if self._keeps_gradient:
            self._scores = {name: self.observed(weight) for name, weight in self.weights.items()}
            self._keep_gradient(False)
        super().after_backward()

    def observed(self, weight: SparseWeight) -> Tensor:
        """The scores of a layer's places that growth ranks [size]; by default, magnitudes of the dense gradient."""
        return dense_gradient(weight).abs()

    def before_step(self, optimizer: Optimizer) -> None:
        if self._own_steps is not None:
            self._own_steps.before_step(optimizer, self.weights)

    def _keep_gradient(self, wanted: bool) -> None:
        if wanted != self._keeps_gradient:
            self._keeps_gradient = wanted
            for weight in self.weights.values():
                weight.keep_dense_gradient(wanted)

    def after_step(self, step: int, optimizer: Optimizer, streams: Streams) -> None:
        super().after_step(step, optimizer, streams)
        if self._own_steps is not None:
            self._own_steps.after_step(optimizer, self.weights)
        self.step = step
        change = self._due(step)
        if change is None:
            return
        # After a gradient overflow, the scaler skips the step; then the topology changes after the next step instead.
        overflow = getattr(optimizer, "found_inf", None)
        finite = all(bool(score.isfinite().all()) for score in self._scores.values())
        if finite and not (overflow is not None and bool(overflow)):
            self._put_off = None
            amount, density = change
            self.rewire(amount, optimizer, streams, density=density)
        else:
            self._put_off, self._scores = change, {}

    def at_epoch_end(self, epoch: int, last: bool, optimizer: Optimizer, streams: Streams) -> dict[str, float]:
        amount = self.dynamics.schedule.after_epoch(epoch, self._length)
        if amount is not None and (self.dynamics.last_removal or not last):
            self.rewire(amount, optimizer, streams, grows=not last)
        return self._evolution.end_epoch(self.weights)

    def rewirings(self) -> int:
        return self._changes

    def topology(self) -> dict[str, Any]:
        return self._evolution.describe_if_changed(self.weights)

    @torch.no_grad()
    def rewire(
        self,
        amount: float,
        optimizer: Optimizer | None,
        streams: Streams,
        grows: bool = True,
        density: float | None = None,
    ) -> None:
        """Change the topology of all layers now.

        Args:
            amount: amount of change, as given by the schedule.
            optimizer: the moments of removed and of new connections are set to zero; None: there is none.
            streams: source of random numbers.
            grows: whether new connections grow.
            density: the density to prune to, as given by ``Dynamics.pruning``; None: no pruning.
        """
        self._rewirings += 1
        generators = {name: streams.torch("topology", name, self._rewirings) for name in self.weights}
        lost = 0
        # Finish one layer before the next, so that its data are still in the processor's cache when it is changed.
        for name, gone, count in self.plan(amount, density, generators):
            weight, generator = self.weights[name], generators[name]
            occupied = weight.mask
            grown = gone[:0]
            if grows and self.dynamics.grow is not None:
                # The places of removed connections are free for growth too.
                tiles = tiles_of(occupied, self.side)
                left = tiles.flatten().index_fill(0, gone, False).view(tiles.shape)
                grown = as_places(self.grown(name, left, count, generator), weight.shape, self.side)
            gone = as_places(gone, weight.shape, self.side)
            values = self.new_values(name, grown.numel(), generator)
            self._evolution.record(name, weight.active, occupied.flatten(), gone, grown)
            weight.rewire(gone, grown, values, optimizer)
            if self._own_steps is not None:
                self._own_steps.grow(optimizer, weight, grown)
            lost += gone.numel()
        self._changes += lost > 0
        self._evolution.count_rewiring()
        self._scores = {}

    def plan(
        self, amount: float, density: float | None, generators: dict[str, Generator]
    ) -> Iterator[tuple[str, Tensor, int]]:
        """Say what to remove, layer by layer; each one is changed before the next is asked for.

        Args:
            amount: amount of change, as given by the schedule.
            density: the density to prune to; None: no pruning.
            generators: layer → its source of random numbers.

        Yields:
            A layer, the places of its connections to remove (numbers of tiles where ``side`` is above 1), and the
            number of connections or tiles to grow. By default each layer grows what it loses, but for what is pruned.
        """
        pruned = {} if density is None else self.pruned(density, generators)
        for name in self.weights:
            if name not in pruned:
                gone = self.removed(name, amount, generators[name])
                yield name, gone, gone.numel()
            else:
                gone = self.removed(name, amount, generators[name], pruned[name]) if amount else pruned[name][:0]
                yield name, torch.cat([pruned[name], gone]), gone.numel()

    def grown(self, layer: str, left: Tensor, count: int, generator: Generator) -> Tensor:
        """Places of ``count`` new connections of a layer; ``left`` [out, in] is true where connections remain."""
        assert self.dynamics.grow is not None
        score = self._scores.get(layer)
        if score is not None and self.side > 1:
            score = in_tiles(score.view(self.weights[layer].shape), self.side).flatten()
        return self.dynamics.grow(Room(left, left.numel() - int(left.count_nonzero()), score, generator), count)

    def new_values(self, layer: str, count: int, generator: Generator) -> Tensor:
        """Values of the new connections of a layer [count]; by default zero."""
        return torch.zeros(count)

    def ranked(self, layer: str, generator: Generator) -> tuple[Tensor, Tensor]:
        """Places of a layer's connections, and the values that the drop compares; by default, weights [entries].

        ``generator`` is for a drop by chance.
        """
        return self.weights[layer].entries()

    def _candidates(self, layer: str, generator: Generator) -> tuple[Tensor, Tensor]:
        """As :meth:`ranked`; for tiles, their numbers, and the sums of magnitudes over each [tiles]."""
        places, values = self.ranked(layer, generator)
        if self.side == 1:
            return places, values
        weight = self.weights[layer]
        full = values.new_zeros(weight.size).index_copy_(0, places, values.abs()).view(weight.shape)
        tiles = places_of(tiles_of(weight.mask, self.side))
        return tiles, in_tiles(full, self.side).flatten().index_select(0, tiles)

    def removed(self, layer: str, fraction: float, generator: Generator, pruned: Tensor | None = None) -> Tensor:
        """Places of the connections of one layer to remove, a ``fraction`` of those that are not ``pruned`` already."""
        places, values = self._candidates(layer, generator)
        if pruned is not None:
            rest = torch.isin(places, pruned, assume_unique=True, invert=True)
            places, values = places[rest], values[rest]
        return where(places, self.dynamics.drop(on_host(values), fraction))

    def pruned(self, density: float, generators: dict[str, Generator]) -> dict[str, Tensor]:
        """Layer → places of its connections to remove for a ``density``, compared with those of all layers."""
        entries = [self._candidates(name, generators[name]) for name in self.weights]
        values = np.concatenate([on_host(values) for _, values in entries])
        surplus = values.size - round(density * sum(weight.size for weight in self.weights.values()) / self.side**2)
        chosen = self.dynamics.drop(values, max(0, surplus) / max(1, values.size))
        parts = np.split(chosen, np.cumsum([places.numel() for places, _ in entries])[:-1])
        return {name: where(places, part) for name, (places, _), part in zip(self.weights, entries, parts, strict=True)}

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
        put_off = state.get("put_off")
        if isinstance(put_off, float):  # of an earlier version, in which a change was either of the two
            put_off = (put_off, None) if self.dynamics.pruning is None else (0.0, put_off)
        self._put_off = put_off
        self._evolution.load_state_dict(state["evolution"])


def where(places: Tensor, chosen: np.ndarray) -> Tensor:
    """The ``places`` [n] for which ``chosen`` [n] is true."""
    return places.index_select(0, torch.from_numpy(np.flatnonzero(chosen)).to(places.device))


def dense_gradient(weight: SparseWeight) -> Tensor:
    """The dense gradient [size]; zero if the weight took no part in the loss."""
    gradient = weight.dense_gradient()
    return torch.zeros_like(weight.dense()).flatten() if gradient is None else gradient.flatten()


def own_gradient(weight: SparseWeight, optimizer: Optimizer) -> Tensor:
    """The gradient [size] that ``optimizer`` is about to step on, zero where no weight exists.

    It is accumulated and clipped as the loop does it. A scale of the loss is taken out.
    """
    parameter = parameter_of(weight)
    if parameter.grad is None:
        return torch.zeros_like(weight.dense()).flatten()
    gradient = parameter.grad.detach().to_dense().flatten()
    if gradient.numel() != weight.size:
        gradient = gradient.new_zeros(weight.size).index_copy_(0, weight.entries()[0], gradient)
    scale = getattr(optimizer, "grad_scale", None)  # of a loop that leaves it to a fused optimizer
    return gradient if scale is None else gradient / scale


def of_step(
    weights: Mapping[str, SparseWeight], gradients: Mapping[str, Tensor], optimizer: Optimizer
) -> dict[str, Tensor]:
    """Dense gradients [size] of the backward passes, times the factor that the training loop put on them since.

    A loop takes the scale of the loss out, and may clip the norm. The gradients of existing weights tell the factor.
    """
    if not gradients:
        return {}
    stepped = [own_gradient(weight, optimizer).float().norm() for weight in weights.values()]
    passed = [
        (gradients[name] * weight.mask.view(torch.uint8).flatten()).float().norm() for name, weight in weights.items()
    ]
    before = torch.stack(passed).norm()
    factor = torch.where(before > 0, torch.stack(stepped).norm() / before, 1.0)
    return {name: gradient * factor for name, gradient in gradients.items()}
