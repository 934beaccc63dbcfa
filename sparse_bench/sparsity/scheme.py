"""The interface of a sparsity scheme, and the base of schemes that use masks.

A scheme is a file in ``schemes/`` and a YAML in ``conf/sparsity/``; a new one changes no other file. The trainer calls
it at seven moments: when it is attached to a model, before training, before a step's backward passes, after the last of
them, before and after an optimizer step, and at the end of an epoch. Any other training loop can do the same.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from sparse_bench.errors import ConfigError
from sparse_bench.limits import Name, Positive, Share, check_fields, one_of
from sparse_bench.sparsity import supar
from sparse_bench.sparsity.scores import DISTRIBUTIONS_BY_SCORE, Losses, counts_by_score
from sparse_bench.sparsity.selection import select
from sparse_bench.sparsity.topology import DISTRIBUTIONS, Shape, apportion
from sparse_bench.sparsity.weights import EXECUTIONS, SparseWeight, sparsify
from sparse_bench.streams import Streams

#: Layer groups, or patterns on parameter names.
Layers = Annotated[Sequence[Name], Field(min_length=1)]


class ModelFactory(Protocol):
    """Builds the configured model, with some of its settings replaced."""

    def __call__(self, **settings: Any) -> Any:
        """The model, with these settings in place of the configured ones."""
        ...

    def widths(self, **settings: Any) -> list[dict[str, Any]]:
        """Settings of all variants up to the configured width, or up to that of ``settings``; narrowest first."""
        ...


@dataclass(frozen=True)
class Length:
    """How long a run trains unless it stops early, in epochs begun and in optimizer steps."""

    epochs: int
    steps: int


@dataclass
class Scheme:
    """Base of every scheme; by itself it leaves the selected layers dense.

    A scheme that uses masks is a :class:`MaskScheme`. One that replaces whole modules is a
    :class:`sparse_bench.sparsity.structured.StructuredScheme`. One that rewires inherits from
    :class:`sparse_bench.sparsity.dynamics.scheme.Dynamic` too.

    Attributes:
        density: share of the weights of the selected layers that exist, between 0 and 1.
        layers: groups that the model declares, or patterns on parameter names.
        execution: how products with sparse weights are computed.
        width_ratio: configured width over the base width, for the learning rates of
            :mod:`sparse_bench.sparsity.supar`; None: the optimizer's rate for all weights.
        sigma: standard deviation of the first weights at the base width, for its start; None: the model's own start.
    """

    #: Groups of layers that the scheme needs; a configuration whose model declares none of them is refused.
    needs: ClassVar[tuple[str, ...]] = ()
    #: Optimizers that the scheme supports, empty for all; a configuration with another optimizer is refused.
    optimizers: ClassVar[tuple[type[Optimizer], ...]] = ()
    #: When connections change, in words; a scheme with a setting ``interval`` or ``zeta`` need not say it.
    changes: ClassVar[str] = "never"
    #: Advice in the error message when the scheme would remove no weight.
    remedy: ClassVar[str] = "Use a lower sparsity.density or larger layers (sparsity.layers)"

    #: Whether the scheme needs tables that a model uses for nothing but look-ups.
    looked_up_only: ClassVar[bool] = False
    #: Whether the optimizer moves other values than those with which the model computes.
    holds_hidden: ClassVar[bool] = False

    density: Share = 1.0
    layers: Layers = ("default",)
    execution: Annotated[str, one_of(*EXECUTIONS)] = "masked"
    width_ratio: Positive | None = field(default=None, kw_only=True)
    sigma: Positive | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.sigma is not None and self.width_ratio is None:
            raise ConfigError("sparsity.sigma refers to the base width, so give sparsity.width_ratio too.")
        #: Names of the selected weight matrices, once attached.
        self.selected: list[str] = []
        #: The sparse ones among them.
        self.weights: dict[str, SparseWeight] = {}
        #: Number of weights of the selected layers in the full model, if the scheme builds a smaller one.
        self.full_size: int | None = None
        #: Width of the model that the scheme builds, over the configured one.
        self.widened = 1.0
        #: Losses of training batches, for a scheme that scores the dense model's weights; set before it is attached.
        self.losses: Losses | None = None
        #: Layer → its density, if ``distribution`` shares the density by scores of the dense weights.
        self._by_score: dict[str, float] = {}
        #: Factor that the gradients of the coming step still contain, where a gradient scaler left it to the optimizer.
        self.gradient_scale: Tensor | None = None

    def members(self) -> "list[Scheme]":
        """The schemes that work on weights: this one, or all those that it is made of."""
        return [self]

    def asked(self) -> str | None:
        """The nominal sparsity in words, as "density 0.1"; None if the model is to stay dense."""
        return None if self.density == 1.0 else f"density {self.density:g}"

    def build(self, factory: ModelFactory) -> Any:
        """Build the model to train; by default, call the factory. Schemes that change its size override this."""
        return factory()

    def matrices(self, model: nn.Module) -> list[str]:
        """Names of the weight matrices of ``model`` that ``layers`` selects.

        Raises:
            ConfigError: a group does not exist, or a pattern matches no weight matrix.
        """
        return select(model, layer_groups(model), self.layers)

    def attach(self, model: nn.Module, streams: Streams) -> None:
        """Make the selected layers of ``model`` sparse.

        Raises:
            ConfigError: a selected layer does not exist or cannot be sparse, or the scheme would remove no weight.
        """
        self.selected = self.matrices(model)
        if not self.selected:
            raise ConfigError(f"The layers {', '.join(self.layers)} hold no weight matrix in this model.")
        self.weights = self.install(model, streams)
        if self.width_ratio is not None and self.sigma is not None:
            ratio = self.width_ratio * self.widened
            supar.draw(model, self._hidden(model), self.weights, ratio, self.sigma, streams)
        if self.asked() is not None and not self.missing_in_the_end():
            raise ConfigError(
                f"{type(self).__name__} ({self.asked()}) removes no weight from {', '.join(self.selected)}: it would "
                f"train the dense model. {self.remedy}, or sparsity=dense if that is what you want."
            )

    def scale_rates(self, optimizer: Optimizer, model: nn.Module) -> None:
        """Change the groups of a new ``optimizer`` so that weights have the rates that the scheme wants.

        Raises:
            ConfigError: the optimizer does not fit.
        """
        if self.width_ratio is not None:
            ratio = self.width_ratio * self.widened
            supar.scale_rates(optimizer, model, self._hidden(model), self.weights, ratio)

    def _hidden(self, model: nn.Module) -> list[str]:
        """The selected matrices that are no embeddings."""
        tables = layer_groups(model).get("embedding", [])
        return [name for name in self.selected if name not in tables]

    def install(self, model: nn.Module, streams: Streams) -> dict[str, SparseWeight]:
        """Make the ``selected`` matrices of the dense ``model`` sparse; returns the sparse ones, by name.

        A scheme whose first topology depends on the dense weights reads them here, and passes its masks to
        :func:`sparse_bench.sparsity.weights.sparsify`.
        """
        return {}

    @property
    def size(self) -> int:
        """Number of entries of the sparse layers' full matrices."""
        return sum(weight.size for weight in self.weights.values())

    def missing(self) -> int:
        """Number of weights of the selected layers that do not exist now."""
        return sum(weight.size - weight.active for weight in self.weights.values())

    def missing_in_the_end(self) -> int:
        """Number of weights that will be missing when training ends; by default as many as now."""
        return self.missing()

    def reached(self) -> bool:
        """Whether the model has reached its nominal sparsity.

        Before that, evaluations do not count for choosing the best weights or for stopping.
        """
        return self.missing() >= self.missing_in_the_end()

    def next_stage(self, model: nn.Module) -> None:
        """Prepare for a further stage: model and scheme have just loaded the end of the run that this one starts from.

        Raises:
            ConfigError: no further stage is possible.
        """

    def before_training(self, length: Callable[[], Length]) -> None:
        """Prepare for training. ``length()`` returns how long it will be; the call may take a moment."""

    def warnings(self) -> list[str]:
        """Warnings for the result, given the length of training; called after :meth:`before_training`."""
        return []

    def check_optimizer(self, optimizer: Optimizer) -> None:
        """Look at the optimizer before training begins.

        Raises:
            ConfigError: the scheme cannot work with it.
        """

    def before_backward(self, step: int) -> None:
        """Prepare for the backward passes of optimizer step ``step`` (from 1, over the whole run)."""

    def after_backward(self) -> None:
        """Work on a step's gradients, which are now complete."""
        for weight in self.weights.values():
            weight.after_backward()

    def before_step(self, optimizer: Optimizer) -> None:
        """Look at weights and gradients as ``optimizer`` is about to see them; called after :meth:`after_backward`."""

    def after_step(self, step: int, optimizer: Optimizer, streams: Streams) -> None:
        """Restore and change the topology after an optimizer step (from 1, over the whole run)."""
        for weight in self.weights.values():
            weight.after_step(optimizer)

    def at_epoch_end(self, epoch: int, last: bool, optimizer: Optimizer, streams: Streams) -> dict[str, float]:
        """Change the topology after epoch ``epoch`` (from 0); returns diagnostics to log.

        ``last``: whether training ends with this epoch.
        """
        return {}

    def rewirings(self) -> int | None:
        """How often this training has changed the topology so far; None if the scheme never does."""
        return None

    def topology(self) -> dict[str, Any]:
        """Description of each layer's topology for the run's ``topology.jsonl``; empty if it has not changed.

        Called before the first epoch and after each epoch.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The scheme's state, without the masks and weights, which are in the model's ``state_dict``."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the result of :meth:`state_dict`, after the model has loaded its own state."""
        for weight in self.weights.values():
            weight.active = int(weight.mask.sum())


@dataclass
class MaskScheme(Scheme, ABC):
    """Base of schemes whose first topology is given by masks."""

    def install(self, model: nn.Module, streams: Streams) -> dict[str, SparseWeight]:
        shapes = {name: tuple(model.get_parameter(name).shape) for name in self.selected}
        kind = getattr(self, "distribution", None)
        if kind in DISTRIBUTIONS_BY_SCORE and self.density is not None:
            seed = streams.derive("scores")
            counts = counts_by_score(kind, model, self.selected, self.density, self.losses, seed)
            self._by_score = {name: count / math.prod(shapes[name]) for name, count in counts.items()}
        return sparsify(model, self.first_topology(shapes, streams), self.execution)

    def counts(self, shapes: Mapping[str, Shape], distribution: str) -> dict[str, int]:
        """Layer → its number of weights, or of tiles if ``shapes`` are in tiles, as the settings want."""
        if not self._by_score:
            return DISTRIBUTIONS[distribution](shapes, self.density)
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        shares = [self._by_score[name] * size for name, size in sizes.items()]
        counts = apportion(shares, round(self.density * sum(sizes.values())), list(sizes.values()))
        return dict(zip(shapes, counts, strict=True))

    @abstractmethod
    def first_topology(self, shapes: Mapping[str, Shape], streams: Streams) -> dict[str, Tensor]:
        """Layer → boolean mask [out, in], true where a weight exists; layers without a mask stay dense."""


def layer_groups(model: nn.Module) -> dict[str, list[str]]:
    """Group → names of its weight matrices, as declared by ``model``.

    A model that declares none has the groups ``embedding`` and ``default``, with all other weight matrices.
    """
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
    """Number of entries of all matrices together."""
    return sum(math.prod(shape) for shape in shapes.values())


def not_training() -> Length:
    """The length of a training that has not begun.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError("the scheme needs the length of training; call before_training() first")
