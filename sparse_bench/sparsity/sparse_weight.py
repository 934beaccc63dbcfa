"""What every sparse weight is: a weight matrix together with the topology that says which of its entries exist."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer


class SparseWeight(ABC):
    """One sparse weight matrix of shape [out, in] in a model, addressed by its parameter's name."""

    _kept = False  # whether the dense gradient is

    def __init__(self, name: str, owner: nn.Module, size: int, active: int) -> None:
        #: Name of the parameter in the model.
        self.name = name
        #: The module that holds it.
        self.owner = owner
        #: Entries of the full matrix.
        self.size = size
        #: Entries in the topology; a host integer, so that reading it never waits for a device.
        self.active = active
        owner.register_load_state_dict_post_hook(self._count)

    def _count(self, *hook: Any) -> None:
        """A state with another topology has been loaded."""
        self.active = int(self.mask.sum())

    @property
    @abstractmethod
    def mask(self) -> Tensor:
        """The topology, boolean, [out, in]."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in)."""
        return tuple(self.mask.shape)

    @property
    @abstractmethod
    def trained(self) -> bool:
        """Whether an optimizer changes it; a model may keep layers at their first weights."""

    @property
    def held(self) -> int:
        """Number of weights that training keeps now; more than ``active`` if removed ones may come back."""
        return self.active

    def updated(self) -> int:
        """Number of entries whose gradient the coming step needs."""
        return (self.size if self._kept else self.active) if self.trained else 0

    @abstractmethod
    def dense(self) -> Tensor:
        """The full matrix [out, in], detached, zeros outside the topology."""

    @abstractmethod
    def entries(self) -> tuple[Tensor, Tensor]:
        """Places in the flattened matrix, int64 and ascending, and values of the existing weights: both [entries]."""

    def set_values(self, values: Tensor) -> None:
        """Give the weights that training keeps these values [held], in the order of their places, before training."""
        places, _ = self.entries()
        self.rewire(places, places, values.to(places.device), None)

    @abstractmethod
    def keep_dense_gradient(self, wanted: bool) -> None:
        """Keep :meth:`dense_gradient` in the backward passes to come, or stop keeping it."""

    @property
    def kept(self) -> bool:
        """Whether :meth:`dense_gradient` is kept."""
        return self._kept

    def passed_gradient(self, wanted: bool = True) -> Tensor | None:
        """The dense gradient of this process's backward passes alone, to be changed in place.

        Where none has reached the weight it is zero if ``wanted``, else None.
        """
        return self.dense_gradient()

    @abstractmethod
    def dense_gradient(self) -> Tensor | None:
        """Gradient [out, in] of the full matrix, entries outside the topology included.

        It is the sum over the backward passes whose gradients make up the coming step, before any clipping. None if it
        is not kept, or if the weight took no part in the loss. Where the loop scales the gradients between two passes,
        as a clipping does, what the earlier passes left is scaled alike.
        """

    def after_backward(self) -> None:
        """Take the entries outside the topology out of a gradient that was written by hand, and by no backward pass."""

    def settle(self) -> None:
        """Keep the topology where another than the optimizer has written to the weight, such as an initialisation."""

    def note(self) -> None:
        """The optimizer's step is done, and the weight is as it should be; :meth:`settle` looks for later changes."""

    @abstractmethod
    def after_step(self, optimizer: Optimizer) -> None:
        """Keep the entries outside the topology at zero where ``optimizer`` would not."""

    @abstractmethod
    def rewire(self, removed: Tensor, grown: Tensor, values: Tensor, optimizer: Optimizer | None) -> None:
        """Take the weights at the places ``removed`` out of the topology, then put new ones at the places ``grown``.

        A place may be in both: its weight is a new one. Optimizer moments of removed and of new weights are zero,
        those of all others survive.

        Args:
            removed: Places in the flattened matrix where weights exist, int64, each once.
            grown: Places where none exists, or none any longer, int64, each once.
            values: The new weights, one for each place in ``grown``, of any type and on any device.
            optimizer: That of the weight's parameter, if it has one.
        """
