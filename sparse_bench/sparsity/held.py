"""Weights that training holds while the model computes with others: dense ones behind a mask, or roots of the weights.

From one optimizer step to the next, a parameter contains the visible weights, with zeros outside the topology. So every
forward pass, evaluation, checkpoint and export sees an ordinary sparse model, of whatever kind its layers are. For the
step itself the held weights take their place: the optimizer moves them by the gradient of the visible ones.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.scheme import Length, Scheme, not_training
from sparse_bench.sparsity.weights import MASK_SUFFIX, MaskedWeight, SparseWeight
from sparse_bench.streams import Streams

_HELD, _TRAINED = "_held", "_trained"
#: Suffixes of the buffers that a weight's module gets, next to the parameter of this name.
BUFFERS = (MASK_SUFFIX, _HELD, _TRAINED)


class HeldWeight(MaskedWeight):
    """The full matrix in a buffer of its module (``weight_held``), of which the mask shows the model a part.

    The gradient of the visible weights reaches all held ones, as if masking were the identity: the straight-through
    estimator. All optimizer moments belong to the held weights.

    Args:
        name: the parameter's name.
        owner: its module.
        power: α. The visible weight is v |v|^(α−1) of the held weight v.
        comes_back: whether a hidden weight is still trained. If not, it stays zero.
    """

    def __init__(self, name: str, owner: nn.Module, power: float = 1.0, comes_back: bool = True) -> None:
        self._power, self._comes_back = power, comes_back
        #: Number of entries in :attr:`trained_places`; None if all entries train.
        self._places: int | None = None
        shape = owner.get_parameter(name.rpartition(".")[2]).shape
        super().__init__(name, owner, torch.ones(shape, dtype=torch.bool))
        owner.register_buffer(self._attribute + _HELD, self._root(self.parameter.detach()).clone())
        self.refresh()

    def _watch(self, parameter: nn.Parameter) -> None:
        """The gradient stays whole, so there is nothing to watch."""

    def _expand_saved(self, owner: nn.Module, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Where others saved the weight, without what this class holds, their weights are the held ones."""
        super()._expand_saved(owner, state_dict, prefix, *rest)
        name = prefix + self._attribute
        if name in state_dict and name + _HELD not in state_dict:
            state_dict[name + _HELD] = self._root(state_dict[name])
            if self._places is not None:
                state_dict.setdefault(name + _TRAINED, torch.ones(self.shape, dtype=torch.bool))

    def _root(self, visible: Tensor) -> Tensor:
        """sign(w) |w|^(1/α)."""
        return visible if self._power == 1.0 else visible.sign() * visible.abs().pow(1 / self._power)

    @property
    def full(self) -> Tensor:
        """The held weights [out, in], also where the mask hides them."""
        return self.owner.get_buffer(self._attribute + _HELD)

    def by_input(self, matrix: Tensor) -> Tensor:
        """A matrix of the weight's shape with its inputs in the rows' direction; the same call takes it back."""
        return matrix.t() if getattr(self.owner, "rows_are_inputs", False) else matrix

    @property
    def trained_places(self) -> Tensor | None:
        """Which held weights a step may change, boolean [out, in]; None: all."""
        if not self._comes_back:
            return self.mask
        return None if self._places is None else self.owner.get_buffer(self._attribute + _TRAINED)

    @property
    def held(self) -> int:
        return self.size if self._comes_back else self.active

    def updated(self) -> int:
        every = self.size if self._places is None else self._places
        return (every if self._comes_back else self.active) if self.trained else 0

    @torch.no_grad()
    def show(self, mask: Tensor, active: int, trained: Tensor | None = None, places: int = 0) -> None:
        """Show the model the weights in ``mask`` alone.

        Args:
            mask: boolean [out, in].
            active: its number of true entries, so that nothing waits for a device.
            trained: which held weights steps may change from now on, boolean [out, in]; None: all.
            places: its number of true entries.
        """
        self.mask.copy_(mask)
        self.active = active
        if trained is not None and self._places is None:
            self.owner.register_buffer(self._attribute + _TRAINED, trained.clone())
        elif trained is not None:
            self.owner.get_buffer(self._attribute + _TRAINED).copy_(trained)
        self._places = None if trained is None else places
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Write the visible weights into the parameter."""
        self.parameter.copy_(self._visible())  # the same memory, which a recurrent layer may have packed

    def _visible(self) -> Tensor:
        full = self.full
        return (full if self._power == 1.0 else full * full.abs().pow(self._power - 1)) * self.factor

    def hidden(self) -> Tensor:
        """Between two steps, the held weights that the mask hides [out, in], with zeros elsewhere; of a power of 1."""
        return self.full - self.parameter.detach()

    def _restore(self) -> None:
        """What others have written to the parameter becomes the held weight there; the mask stays."""
        written = self.parameter != self._visible()
        if bool(written.any()):
            self.full.copy_(torch.where(written, self._root(self.parameter), self.full))
            self.refresh()

    @torch.no_grad()
    def add_to_gradient(self, term: Tensor, scale: Tensor | None) -> None:
        """Add a term [out, in] to the gradient, times the ``scale`` of the gradients if they are still scaled.

        Raises:
            ConfigError: the gradient is row-sparse, and the term is not.
        """
        gradient = self.parameter.grad
        if gradient is None:
            return
        if gradient.is_sparse:
            raise ConfigError(f"The gradient of '{self.name}' is row-sparse. Use an embedding with sparse=False.")
        gradient.add_(term if scale is None else term * scale)

    @torch.no_grad()
    def after_backward(self) -> None:
        """Replace the visible weights and their gradient by the held ones, for the optimizer's step."""
        factor = None if self._power == 1.0 else self._power * self.full.abs().pow(self._power - 1)
        if (places := self.trained_places) is not None:
            places = places.view(torch.uint8)
            factor = places if factor is None else factor * places
        gradient = self.parameter.grad
        if gradient is not None and factor is not None:
            if gradient.is_sparse:
                gradient._values().mul_(factor.index_select(0, gradient._indices()[0]))
            else:
                gradient.mul_(factor)
        self.parameter.copy_(self.full)

    @torch.no_grad()
    def take_back(self) -> None:
        """Keep what the optimizer made of the held weights; :meth:`show` or :meth:`refresh` has to follow."""
        full, places = self.full, self.trained_places
        full.copy_(self.parameter if places is None else torch.where(places, self.parameter, full))

    def after_step(self, optimizer: Optimizer) -> None:
        self.take_back()
        self.refresh()

    @torch.no_grad()
    def set_values(self, values: Tensor) -> None:
        if not self._comes_back:
            super().set_values(values)
        else:
            self.full.copy_(self._root(values.view(self.shape)))
            self.refresh()

    @torch.no_grad()
    def rewire(self, removed: Tensor, grown: Tensor, values: Tensor, optimizer: Optimizer | None) -> None:
        super().rewire(removed, grown, values, optimizer)
        roots = self._root(values.to(self.full))
        self.full.view(-1).index_fill_(0, removed, 0).index_copy_(0, grown, roots)


def hold(model: nn.Module, names: Iterable[str], **settings: Any) -> dict[str, SparseWeight]:
    """Hold the weight matrices ``names`` of ``model``; all entries are visible at first. See :class:`HeldWeight`.

    Raises:
        ConfigError: a weight already has a topology.
    """
    weights: dict[str, SparseWeight] = {}
    for name in names:
        path, _, attribute = name.rpartition(".")
        owner = model.get_submodule(path)
        if attribute + MASK_SUFFIX in owner._buffers or attribute not in owner._parameters:
            raise ConfigError(f"The weight '{name}' already has a topology; only one scheme can own it.")
        weights[name] = HeldWeight(name, owner, **settings)
    return weights


def check_masked(scheme: Scheme) -> None:
    """Check that a scheme which holds more weights than it shows computes with full matrices.

    Raises:
        ConfigError: its execution is another one.
    """
    if scheme.execution != "masked":
        raise ConfigError(
            f"{type(scheme).__name__} trains weights that the model does not see, so it computes with full matrices. "
            "Use execution=masked."
        )


@dataclass
class Held(Scheme, ABC):
    """Base of schemes that train all weights of the selected layers and choose, step by step, which of them exist."""

    holds_hidden: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_masked(self)
        self.length: Callable[[], Length] = not_training

    def attach(self, model: nn.Module, streams: Streams) -> None:
        super().attach(model, streams)
        if self.sigma is not None:
            self.choose()  # among the weights that have just been drawn

    def install(self, model: nn.Module, streams: Streams) -> dict[str, SparseWeight]:
        self.weights = hold(model, self.selected)
        self.choose()
        return self.weights

    @property
    def held(self) -> dict[str, HeldWeight]:
        """Name → held weight."""
        return {name: weight for name, weight in self.weights.items() if isinstance(weight, HeldWeight)}

    @abstractmethod
    def choose(self) -> None:
        """Choose the weights that exist in the next step, with :meth:`HeldWeight.show`."""

    def due(self, step: int) -> bool:
        """Whether to choose again after optimizer step ``step``; by default, after every step."""
        return True

    def penalty(self, weight: HeldWeight) -> Tensor | None:
        """A term [out, in] of the gradient of the held weights; None: there is none."""
        return None

    def before_training(self, length: Callable[[], Length]) -> None:
        self.length = cache(length)

    def after_backward(self) -> None:
        for weight in self.held.values():
            if weight.trained and (term := self.penalty(weight)) is not None:
                weight.add_to_gradient(term, self.gradient_scale)
        super().after_backward()

    def after_step(self, step: int, optimizer: Optimizer, streams: Streams) -> None:
        for weight in self.held.values():
            weight.take_back()
        if self.due(step):
            self.choose()
            return
        for weight in self.held.values():
            weight.refresh()
