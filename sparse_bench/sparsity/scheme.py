"""The interface of a sparsity scheme, and the base of those that say by masks which weights exist.

A scheme is a file in ``schemes/`` and a YAML in ``conf/sparsity/``; adding one touches nothing else. The trainer calls
it at six moments: when it is attached to a model, before training, before a backward pass, after a step's last backward
pass (the gradients are complete; dense, or row-sparse), after an optimizer step, and at the end of
an epoch. Any other loop can do the same, for instance from the hooks of an optimizer.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from sparse_bench.errors import ConfigError
from sparse_bench.limits import Name, Share, check_fields, one_of
from sparse_bench.sparsity.selection import select
from sparse_bench.sparsity.topology import Shape
from sparse_bench.sparsity.weights import EXECUTIONS, SparseWeight, sparsify
from sparse_bench.streams import Streams

#: Layer groups, or patterns on parameter names.
Layers = Annotated[Sequence[Name], Field(min_length=1)]


class ModelFactory(Protocol):
    """Builds the configured model, with some of its settings replaced."""

    def __call__(self, **settings: Any) -> Any:
        """The model, with these settings in place of the configured ones."""
        ...

    def widths(self) -> list[dict[str, Any]]:
        """Settings of all narrower variants, narrowest first."""
        ...


@dataclasses.dataclass(frozen=True)
class Length:
    """How long a run trains unless it stops early, in epochs begun and in optimizer steps."""

    epochs: int
    steps: int


@dataclasses.dataclass
class Scheme:
    """Base of every scheme; by itself it leaves the selected layers dense.

    A scheme that says by masks which weights exist is a :class:`MaskScheme`. One that replaces whole modules is a
    :class:`sparse_bench.sparsity.structured.StructuredScheme`. One that rewires is a
    :class:`sparse_bench.sparsity.dynamics.scheme.Dynamic` besides.

    Attributes:
        density: share of the weights of the selected layers that exist, between 0 and 1.
        layers: groups that the model declares, or patterns on parameter names.
        execution: how products with sparse weights are computed.
    """

    #: Groups of layers that a model must declare; the configuration is refused where it does not.
    needs: ClassVar[tuple[str, ...]] = ()
    #: Optimizers that it works with; none named: all. The configuration is refused likewise.
    optimizers: ClassVar[tuple[type[Optimizer], ...]] = ()
    #: What to set instead where it would remove nothing, for the message.
    remedy: ClassVar[str] = "Use a lower sparsity.density or larger layers (sparsity.layers)"

    #: Whether only tables will do that a model looks rows up in and does nothing else with.
    looked_up_only: ClassVar[bool] = False

    density: Share = 1.0
    layers: Layers = ("default",)
    execution: Annotated[str, one_of(*EXECUTIONS)] = "masked"

    def __post_init__(self) -> None:
        check_fields(self)
        #: Names of the selected weight matrices, once attached.
        self.selected: list[str] = []
        #: The sparse ones among them.
        self.weights: dict[str, SparseWeight] = {}
        #: Weights of the selected layers in the full model, where a scheme builds a smaller one.
        self.full_size: int | None = None

    def asked(self) -> str | None:
        """How sparse the model is asked to be, in words; None where it is to stay dense."""
        return None if self.density == 1.0 else f"density {self.density:g}"

    def build(self, factory: ModelFactory) -> Any:
        """The model to train. Only schemes that change its size do more than call the factory."""
        return factory()

    def matrices(self, model: nn.Module) -> list[str]:
        """Names of the weight matrices of ``model`` that ``layers`` selects.

        Raises:
            ConfigError: there is no such group, or nothing fits a pattern.
        """
        return select(model, layer_groups(model), self.layers)

    def attach(self, model: nn.Module, streams: Streams) -> None:
        """Make the selected layers of ``model`` sparse.

        Raises:
            ConfigError: a selected layer does not exist or cannot be sparse, or sparsity is asked for and all weights
                would stay.
        """
        self.selected = self.matrices(model)
        if not self.selected:
            raise ConfigError(f"The layers {', '.join(self.layers)} hold no weight matrix in this model.")
        self.weights = self.install(model, streams)
        if self.asked() is not None and not self.missing_in_the_end():
            raise ConfigError(
                f"{type(self).__name__} ({self.asked()}) removes no weight from {', '.join(self.selected)}: it would "
                f"train the dense model. {self.remedy}, or sparsity=dense if that is what you want."
            )

    def install(self, model: nn.Module, streams: Streams) -> dict[str, SparseWeight]:
        """Make the ``selected`` matrices of the dense ``model`` sparse; returns those that became so.

        A scheme whose first topology depends on the dense weights reads them here, and hands its masks to
        :func:`sparse_bench.sparsity.weights.sparsify`.
        """
        return {}

    def missing(self) -> int:
        """How many weights of the selected layers do not exist now."""
        return sum(weight.size - weight.active for weight in self.weights.values())

    def missing_in_the_end(self) -> int:
        """How many are not to exist when training ends; a scheme that removes them as it trains says more than now."""
        return self.missing()

    def reached(self) -> bool:
        """Whether the topology is as sparse as asked for. A model of another density is none to choose or to stop at,
        so evaluations count from here on."""
        return self.missing() >= self.missing_in_the_end()

    def before_training(self, length: Callable[[], Length]) -> None:
        """A trainer has taken over; ``length()`` says how long training is, which may take a moment to find out."""

    def warnings(self) -> list[str]:
        """What a reader of the result should know of a training of this length; asked for once it is known."""
        return []

    def before_backward(self, step: int) -> None:
        """The backward passes to come belong to optimizer step ``step`` (from 1, over the whole run)."""

    def after_backward(self) -> None:
        """The gradients of a step are complete."""
        for weight in self.weights.values():
            weight.after_backward()

    def after_step(self, step: int, optimizer: Optimizer, streams: Streams) -> None:
        """An optimizer step (numbered from 1 over the whole run) is done."""
        for weight in self.weights.values():
            weight.after_step(optimizer)

    def at_epoch_end(self, epoch: int, last: bool, optimizer: Optimizer, streams: Streams) -> dict[str, float]:
        """Epoch ``epoch`` (from 0) is done; returns diagnostics to log. ``last`` says that training ends here."""
        return {}

    def rewirings(self) -> int | None:
        """How often this training has changed the topology so far; None where it never does."""
        return None

    def topology(self) -> dict[str, Any]:
        """What the topology looks like, layer by layer, for the run's ``topology.jsonl``; asked for before the first
        epoch and after each. Empty if there is nothing new to say."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """State beyond the masks and weights, which the model's own ``state_dict`` holds."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`, called after the model has loaded its own state."""
        for weight in self.weights.values():
            weight.active = int(weight.mask.sum())


@dataclasses.dataclass
class MaskScheme(Scheme, ABC):
    """Base of schemes that say by masks which weights exist at first."""

    def install(self, model: nn.Module, streams: Streams) -> dict[str, SparseWeight]:
        shapes = {name: tuple(model.get_parameter(name).shape) for name in self.selected}
        return sparsify(model, self.first_topology(shapes, streams), self.execution)

    @abstractmethod
    def first_topology(self, shapes: Mapping[str, Shape], streams: Streams) -> dict[str, Tensor]:
        """A boolean mask [out, in] for every layer that becomes sparse; layers that are left out stay dense."""


def layer_groups(model: nn.Module) -> dict[str, list[str]]:
    """The groups that ``model`` declares; else ``embedding``, and as ``default`` all its other weight matrices."""
    declare: Callable[[], dict[str, list[str]]] | None = getattr(model, "layer_groups", None)
    if declare is not None:
        return declare()
    tables = {path for path, module in model.named_modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)}
    matrices = [name for name, parameter in model.named_parameters() if parameter.dim() == 2]
    groups: dict[str, list[str]] = {"default": [], "embedding": []}
    for name in matrices:
        groups["embedding" if name.rpartition(".")[0] in tables else "default"].append(name)
    return groups


def total_size(shapes: Mapping[str, Shape]) -> int:
    """Entries of all matrices together."""
    return sum(math.prod(shape) for shape in shapes.values())
