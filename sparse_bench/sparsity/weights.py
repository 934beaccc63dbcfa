"""Sparse weights: a weight matrix together with the topology that says which of its entries exist.

An entry outside the topology is exactly zero, always, and so are its gradient and its optimizer moments.
How the product with a sparse weight is computed (its execution) is decided here and nowhere else: a scheme hands over
a mask, and reads and changes it through :class:`SparseWeight`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparse_bench.errors import ConfigError, unknown_choice
from sparse_bench.kernels import EXECUTIONS, SparseStructure, places_of
from sparse_bench.kernels.structure import UNSEEN, continues, stamp
from sparse_bench.sparsity.layers.linear import SparseLinear
from sparse_bench.sparsity.layers.lstm import STRUCTURES, SparseLSTM

MASK_SUFFIX = "_mask"
#: Optimizers of torch whose step of one entry depends on the gradients of others.
_MIXING = tuple(getattr(torch.optim, name) for name in ("LBFGS", "Muon") if hasattr(torch.optim, name))


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

    @abstractmethod
    def dense_gradient(self) -> Tensor | None:
        """Gradient [out, in] of the full matrix, entries outside the topology included.

        It is the sum over the backward passes whose gradients make up the coming step, before any clipping. None if it
        is not kept, or if the weight took no part in the loss.
        """

    def after_backward(self) -> None:
        """Take the entries outside the topology out of a gradient that was written by hand, and by no backward pass."""

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


class MaskedWeight(SparseWeight):
    """Masked execution: the full matrix with zeros in it, multiplied as if it were dense.

    The mask is a buffer of the owning module (``weight`` → ``weight_mask``), so it is checkpointed and moves with the
    model. Each backward pass masks the gradient, and the entries start at zero with zero moments. So they stay exactly
    zero under every element-wise optimizer, and the forward pass needs no multiplication by the mask. After a step of
    an optimizer that mixes the entries of a matrix, they are set to zero again.
    """

    def __init__(self, name: str, owner: nn.Module, mask: Tensor) -> None:
        self._attribute = name.rpartition(".")[2]
        parameter = self._parameter_of(owner)
        if mask.dtype != torch.bool or mask.shape != parameter.shape:
            raise ValueError(
                f"the mask of '{name}' must be boolean and of shape {tuple(parameter.shape)}, "
                f"not {mask.dtype} of shape {tuple(mask.shape)}"
            )
        super().__init__(name, owner, size=mask.numel(), active=int(mask.sum()))
        own = mask.to(parameter.device, copy=True, memory_format=torch.contiguous_format)
        owner.register_buffer(self._attribute + MASK_SUFFIX, own)
        with torch.no_grad():
            parameter.mul_(self.mask)
        self._kept, self._seen = False, UNSEEN
        self._dense_gradient: Tensor | None = None
        self._watch(parameter)
        owner.register_load_state_dict_pre_hook(self._expand_saved)

    def _watch(self, parameter: nn.Parameter) -> None:
        """Mask its gradients, also where it is frozen now and trained later."""
        trained = parameter.requires_grad
        parameter.requires_grad_(True).register_post_accumulate_grad_hook(self._mask_gradient)
        parameter.requires_grad_(trained)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_dense_gradient": None, "parameter": self.parameter}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copied or unpickled model is sparse too; hooks are not copied with a parameter."""
        parameter = state.pop("parameter")
        self.__dict__.update(state)
        self._seen = UNSEEN
        self._watch(parameter)

    def _parameter_of(self, owner: nn.Module) -> nn.Parameter:
        parameter = getattr(owner, self._attribute)
        assert isinstance(parameter, nn.Parameter)
        return parameter

    def _expand_saved(self, owner: nn.Module, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take what a layer of another execution saved: the existing weights [entries] and their structure."""
        structure = f"{prefix}{STRUCTURES.get(self._attribute, 'structure')}."
        row_start = state_dict.pop(f"{structure}row_start", None)
        if row_start is not None:
            column, values = state_dict.pop(f"{structure}column"), state_dict[prefix + self._attribute]
            found = SparseStructure.from_csr(row_start, column, self.shape[1])
            state_dict[prefix + self._attribute] = found.scatter(values)
            state_dict[prefix + self._attribute + MASK_SUFFIX] = found.mask()
        saved = state_dict.get(prefix + self._attribute)
        if prefix + self._attribute + MASK_SUFFIX not in state_dict and saved is not None and saved.shape == self.shape:
            state_dict[prefix + self._attribute] = saved * self.mask.to(saved.device)  # of a dense model, not strictly

    @property
    def parameter(self) -> nn.Parameter:
        """The full-size parameter."""
        return self._parameter_of(self.owner)

    @property
    def mask(self) -> Tensor:
        mask = getattr(self.owner, self._attribute + MASK_SUFFIX)
        assert isinstance(mask, Tensor)
        return mask

    @property
    def trained(self) -> bool:
        return self.parameter.requires_grad

    def dense(self) -> Tensor:
        return self.parameter.detach()

    def entries(self) -> tuple[Tensor, Tensor]:
        places = places_of(self.mask)
        return places, self.parameter.detach().view(-1).index_select(0, places)

    def keep_dense_gradient(self, wanted: bool) -> None:
        if wanted != self._kept:
            self._kept, self._dense_gradient = wanted, None

    def dense_gradient(self) -> Tensor | None:
        gradient = self.parameter.grad
        if self._kept and self._dense_gradient is None and gradient is not None:  # written by hand
            self._dense_gradient = gradient.to_dense().clone()
        return self._dense_gradient

    @torch.no_grad()
    def _mask_gradient(self, parameter: Tensor) -> None:
        """Take the entries outside the topology out of the gradient, after each backward pass has added to it."""
        gradient = parameter.grad
        assert gradient is not None
        if self._kept:
            earlier = self._dense_gradient if continues(gradient, self._seen) else None
            # Inside the topology the gradient holds the sum of the earlier passes already.
            outside = None if earlier is None else earlier.masked_fill(self.mask, 0)
            whole = gradient.to_dense()
            self._dense_gradient = whole.clone() if outside is None else whole + outside
        self._mask(gradient)

    def after_backward(self) -> None:
        gradient = self.parameter.grad
        if gradient is not None and (gradient.is_sparse or stamp(gradient) != self._seen):
            self._mask(gradient)

    def _mask(self, gradient: Tensor) -> None:
        if gradient.is_sparse:  # row-sparse
            gradient._values().mul_(self.mask.index_select(0, gradient._indices()[0]))
        else:
            gradient.mul_(self.mask)
        self._seen = stamp(gradient)

    @torch.no_grad()
    def after_step(self, optimizer: Optimizer) -> None:
        if isinstance(optimizer, _MIXING) or not type(optimizer).__module__.startswith("torch.optim."):
            self.parameter.mul_(self.mask)

    @torch.no_grad()
    def rewire(self, removed: Tensor, grown: Tensor, values: Tensor, optimizer: Optimizer | None) -> None:
        parameter = self.parameter
        state = optimizer.state.get(parameter, {}) if optimizer is not None else {}
        for moment in state.values():
            if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                # Where no weight was, a moment is zero already, but a counter of steps is not.
                moment.view(-1).index_fill_(0, removed, 0).index_fill_(0, grown, 0)
        self.mask.view(-1).index_fill_(0, removed, False).index_fill_(0, grown, True)
        parameter.view(-1).index_fill_(0, removed, 0).index_copy_(0, grown, values.to(parameter))
        self.active += grown.numel() - removed.numel()


class CompressedWeight(SparseWeight):
    """True sparse execution: the owning sparse layer holds the existing weights alone."""

    def __init__(self, name: str, owner: nn.Module, structure: SparseStructure) -> None:
        super().__init__(name, owner, structure.out_features * structure.in_features, structure.entries)
        self._attribute = name.rpartition(".")[2]
        self.structure = structure
        structure.follow(self.values)

    @property
    def values(self) -> nn.Parameter:
        """The weights that exist [entries]."""
        values = getattr(self.owner, self._attribute)
        assert isinstance(values, nn.Parameter)
        return values

    @property
    def mask(self) -> Tensor:
        return self.structure.mask()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.structure.out_features, self.structure.in_features

    @property
    def trained(self) -> bool:
        return self.values.requires_grad

    def dense(self) -> Tensor:
        return self.structure.scatter(self.values.detach())

    def entries(self) -> tuple[Tensor, Tensor]:
        return self.structure.positions(), self.values.detach()

    def set_values(self, values: Tensor) -> None:
        self.values.detach().copy_(values)

    def keep_dense_gradient(self, wanted: bool) -> None:
        self._kept = wanted
        self.structure.keep_dense_gradient(wanted)

    def dense_gradient(self) -> Tensor | None:
        return self.structure.dense_gradient

    def after_step(self, optimizer: Optimizer) -> None:
        """There are no other entries."""

    @torch.no_grad()
    def rewire(self, removed: Tensor, grown: Tensor, values: Tensor, optimizer: Optimizer | None) -> None:
        parameter, structure = self.values, self.structure
        before, mask = structure.positions(), structure.mask()
        mask.view(-1).index_fill_(0, removed, False).index_fill_(0, grown, True)
        structure.rewire(mask)
        after = structure.positions()
        self.active = structure.entries

        def moved(old: Tensor, new: Tensor) -> Tensor:
            full = old.new_zeros(self.size).index_copy_(0, before, old)
            return full.index_fill_(0, removed, 0).index_copy_(0, grown, new.to(old)).index_select(0, after)

        state = optimizer.state.get(parameter, {}) if optimizer is not None else {}
        for key, moment in state.items():
            if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                state[key] = moved(moment, torch.zeros_like(values))
        weights = moved(parameter, values)
        if weights.shape == parameter.shape:
            parameter.copy_(weights)
        else:
            self._replace(parameter, nn.Parameter(weights, parameter.requires_grad), optimizer)

    def _replace(self, parameter: nn.Parameter, renewed: nn.Parameter, optimizer: Optimizer | None) -> None:
        """Autograd remembers the size of a parameter, so another number of weights takes another parameter."""
        setattr(self.owner, self._attribute, renewed)
        self.structure.follow(renewed)
        if optimizer is None:
            return
        if parameter in optimizer.state:
            optimizer.state[renewed] = optimizer.state.pop(parameter)
        for group in optimizer.param_groups:
            group["params"] = [renewed if entry is parameter else entry for entry in group["params"]]


def sparsify(model: nn.Module, masks: Mapping[str, Tensor], execution: str) -> dict[str, SparseWeight]:
    """Give each weight matrix of ``model`` that ``masks`` names its topology.

    Under ``csr`` and ``kernel`` the owning layer is replaced by a :class:`SparseLinear` or :class:`SparseLSTM` of the
    same name, whose parameters keep their names too. Under ``auto`` as well, but a layer of another kind is masked.

    Raises:
        ConfigError: ``execution`` is not one of :data:`EXECUTIONS`, is not possible for a weight, or a weight
            already has a topology.
    """
    if execution not in EXECUTIONS:
        raise ConfigError(unknown_choice("execution", execution, EXECUTIONS))
    owners: dict[str, list[str]] = {}
    for name in masks:
        owners.setdefault(name.rpartition(".")[0], []).append(name)
    compressed = set[str]()
    for module, names in owners.items():  # all are judged before any is changed
        owner = model.get_submodule(module)
        if execution != "masked" and _can_be_compressed(module, owner, names):
            compressed.add(module)
        for name in names:
            if isinstance(owner, SparseLinear | SparseLSTM) or hasattr(owner, name.rpartition(".")[2] + MASK_SUFFIX):
                raise ConfigError(f"The weight '{name}' already has a topology; only one scheme can own it.")
        if module not in compressed and execution not in ("masked", "auto"):
            raise ConfigError(
                f"execution={execution} computes linear layers, and LSTM layers of one layer and one direction without "
                f"projection whose two weight matrices are both selected. {' and '.join(names)} of a "
                f"{type(owner).__name__} cannot be computed so: use execution=masked or auto, or select other layers."
            )
    weights: dict[str, SparseWeight] = {}
    for module, names in owners.items():
        owner = model.get_submodule(module)
        if module in compressed:
            weights |= _compress(model, module, owner, {name: masks[name] for name in names}, execution)
        else:
            weights |= {name: MaskedWeight(name, owner, masks[name]) for name in names}
    return {name: weights[name] for name in masks}


def _can_be_compressed(module: str, owner: nn.Module, names: Sequence[str]) -> bool:
    """Whether a layer with these sparse weights has a form that computes with the existing ones alone."""
    if not module:  # the model itself, which nothing can replace
        return False
    if type(owner) is nn.LSTM:
        whole = {name.rpartition(".")[2] for name in names} == set(STRUCTURES)
        return whole and owner.num_layers == 1 and not owner.bidirectional and not owner.proj_size
    return type(owner) is nn.Linear


def _compress(
    model: nn.Module, module: str, owner: nn.Module, masks: Mapping[str, Tensor], execution: str
) -> dict[str, SparseWeight]:
    """Replace the layer ``module`` by one that computes with the existing weights alone."""
    by_attribute = {name.rpartition(".")[2]: mask for name, mask in masks.items()}
    replacement: nn.Module
    if isinstance(owner, nn.Linear):
        replacement = SparseLinear(owner, by_attribute["weight"], execution)
        structures = {"weight": replacement.structure}
    else:
        assert isinstance(owner, nn.LSTM)
        replacement = SparseLSTM(owner, by_attribute, execution)
        structures = {name: getattr(replacement, structure) for name, structure in STRUCTURES.items()}
    parent, _, child = module.rpartition(".")
    setattr(model.get_submodule(parent), child, replacement)
    return {name: CompressedWeight(name, replacement, structures[name.rpartition(".")[2]]) for name in masks}
