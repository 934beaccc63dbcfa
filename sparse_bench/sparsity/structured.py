"""Weights that exist in dense parts of a predefined shape; only these parts are stored and computed with.

A scheme replaces an ordinary module by a :class:`StructuredModule` with the same calls. Its matrices are counted, and
can be read as full matrices, through :class:`StructuredWeight`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from sparse_bench.errors import ConfigError
from sparse_bench.kernels import places_of
from sparse_bench.sparsity.layers.structured_module import StructuredModule
from sparse_bench.sparsity.scheme import Scheme, layer_groups
from sparse_bench.sparsity.weights import SparseWeight
from sparse_bench.streams import Streams


class StructuredWeight(SparseWeight):
    """One weight matrix of a module that a :class:`StructuredModule` has replaced.

    Its parts are ordinary parameters, so gradients and optimizers work as usual. It cannot be rewired.
    """

    def __init__(self, name: str, owner: StructuredModule, size: int) -> None:
        self._module, self._attribute = owner, name.rpartition(".")[2]
        super().__init__(name, owner, size=size, active=sum(part.numel() for part in owner.parts(self._attribute)))

    @property
    def mask(self) -> Tensor:
        return self._module.topology(self._attribute)

    @property
    def trained(self) -> bool:
        return all(part.requires_grad for part in self._module.parts(self._attribute))

    def dense(self) -> Tensor:
        return self._module.full(self._attribute).detach()

    def entries(self) -> tuple[Tensor, Tensor]:
        places = places_of(self.mask)
        return places, self.dense().view(-1)[places]

    def keep_dense_gradient(self, wanted: bool) -> None:
        if wanted:
            raise ConfigError(f"The topology of '{self.name}' is predefined, so it has no gradient outside of it.")

    def dense_gradient(self) -> Tensor | None:
        return None

    def after_step(self, optimizer: Optimizer) -> None:
        """Do nothing, as there are no other entries to keep at zero."""

    def rewire(self, removed: Tensor, grown: Tensor, values: Tensor, optimizer: Optimizer | None) -> None:
        raise ConfigError(f"The topology of '{self.name}' is predefined and cannot be rewired.")


@dataclass
class StructuredScheme(Scheme, ABC):
    """Base of schemes that replace whole modules."""

    #: Name of the modules that the scheme replaces, for messages.
    replaces: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.execution != "masked":
            raise ConfigError(
                f"{type(self).__name__} computes with the dense parts of its layers; remove sparsity.execution."
            )

        if self.width_ratio is not None:
            raise ConfigError(
                f"{type(self).__name__} gives its layers rates and first weights of their own: set "
                "sparsity.width_ratio and sigma to null."
            )

    @abstractmethod
    def install(self, model: nn.Module, streams: Streams) -> dict[str, SparseWeight]:
        """Replace the modules of the selected matrices, with :meth:`owners` and :func:`replace`."""

    def owners(self, model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> dict[str, list[str]]:
        """Name of each module with selected matrices, in the model's order → names of these matrices.

        Raises:
            ConfigError: a matrix belongs to a module of another type or to several modules, or a module has matrices
                that are not selected.
        """
        found: dict[str, list[str]] = {}
        for name in self.selected:
            path = name.rpartition(".")[0]
            owner = model.get_submodule(path)
            if type(owner) not in kinds or not path:
                raise ConfigError(f"{self.misfit(name, owner)} {_others(model, kinds)}")
            if len(names := names_of(model, name)) > 1:
                raise ConfigError(
                    f"{type(self).__name__} cannot replace '{name}', which is also used as {', '.join(names[1:])}."
                )
            found.setdefault(path, []).append(name)
        # A module is replaced as a whole, so all of its matrices must be selected.
        for path, names in found.items():
            whole = [f"{path}.{n}" for n, p in model.get_submodule(path).named_parameters() if p.dim() == 2]
            if missing := set(whole).difference(names):
                raise ConfigError(
                    f"{type(self).__name__} replaces whole layers, and {', '.join(missing)} is not selected."
                )
        return found

    def misfit(self, name: str, owner: nn.Module) -> str:
        """Why the scheme cannot work on the weight ``name`` of the module ``owner``, for a message."""
        if isinstance(owner, StructuredModule):
            return f"The weight '{name}' already has a topology; only one scheme can own it."
        return (
            f"{type(self).__name__} replaces {self.replaces}, and '{name}' belongs to a {type(owner).__name__}. "
            "Select other layers (sparsity.layers)."
        )


def names_of(model: nn.Module, name: str) -> list[str]:
    """All names of the parameter ``name``; more than one if modules share it."""
    parameter = model.get_parameter(name)
    return [other for other, held in model.named_parameters(remove_duplicate=False) if held is parameter]


def _others(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> str:
    """What to select: the groups whose matrices all belong to modules of these types; else such matrices."""
    matrices = [name for name, parameter in model.named_parameters() if parameter.dim() == 2]
    fitting = {name for name in matrices if type(model.get_submodule(name.rpartition(".")[0])) in kinds}
    groups = [group for group, names in layer_groups(model).items() if names and fitting.issuperset(names)]
    if groups:
        return f"Groups that fit: {', '.join(groups)}."
    return f"Weight matrices that fit: {', '.join(filter(fitting.__contains__, matrices)) or '(none)'}."


def replace(
    model: nn.Module, names: Mapping[str, Sequence[str]], modules: Mapping[str, StructuredModule]
) -> dict[str, SparseWeight]:
    """Replace modules; returns their weights, by the names of the replaced modules' matrices.

    Args:
        model: the model.
        names: path of a module → names of its weight matrices.
        modules: path of a module → what takes its place.
    """
    weights: dict[str, SparseWeight] = {}
    for path, module in modules.items():
        sizes = {name: model.get_parameter(name).numel() for name in names[path]}
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, module)
        weights |= {name: StructuredWeight(name, module, size) for name, size in sizes.items()}
    return weights


def recurrent_stacks(model: nn.Module, paths: Sequence[str]) -> list[list[str]]:
    """Group the modules ``paths`` into stacks of recurrent layers, each from first layer to last.

    By default all are one stack, in the given order. A model can define other stacks in a method ``recurrent_stacks``,
    for instance because the two directions of a layer do not feed each other.
    """
    declared: list[list[str]] = getattr(model, "recurrent_stacks", lambda: [list(paths)])()
    stacks = [[path for path in stack if path in paths] for stack in declared]
    return [stack for stack in stacks if stack]
