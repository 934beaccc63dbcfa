"""Sparse weights: a weight matrix together with the topology that says which of its entries exist.

An entry outside the topology is exactly zero, always, and so are its gradient and its optimizer moments.
How the product with a sparse weight is computed (its execution) is decided here and nowhere else: a scheme hands over
a mask, and reads and changes it through :class:`SparseWeight`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from sparse_bench.errors import ConfigError, unknown_choice
from sparse_bench.kernels import EXECUTIONS, SparseStructure, places_of
from sparse_bench.kernels.structure import UNSEEN, carried, stamp
from sparse_bench.sparsity.layers.linear import SparseLinear
from sparse_bench.sparsity.layers.lstm import STRUCTURES, SparseLSTM
from sparse_bench.sparsity.sparse_weight import SparseWeight as SparseWeight

MASK_SUFFIX = "_mask"
#: Optimizers of torch whose step of one entry depends on the gradients of others.
_MIXING = tuple(getattr(torch.optim, name) for name in ("LBFGS", "Muon") if hasattr(torch.optim, name))


class MaskedWeight(SparseWeight):
    """Masked execution: the full matrix with zeros in it, multiplied as if it were dense.

    The mask is a buffer of the owning module (``weight`` → ``weight_mask``), so it is checkpointed and moves with the
    model. Each backward pass masks the gradient, and the entries start at zero with zero moments. So they stay exactly
    zero under every element-wise optimizer, and the forward pass needs no multiplication by the mask. After a step of
    an optimizer that mixes the entries of a matrix, they are set to zero again. So they are before each forward pass
    until the first step, and later before a step, where something else has written to the weight.
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
            parameter.mul_(self.factor)
        self._kept, self._seen = False, UNSEEN
        self._dense_gradient: Tensor | None = None
        self._passes: RemovableHandle | None = None
        self._watch(parameter)
        owner.register_load_state_dict_pre_hook(self._expand_saved)
        #: Watches forward passes until the first step.
        self._first: RemovableHandle | None = owner.register_forward_pre_hook(self._before_forward)
        self._version = -1

    def _watch(self, parameter: nn.Parameter) -> None:
        """Mask its gradients, also where it is frozen now and trained later."""
        trained = parameter.requires_grad
        parameter.requires_grad_(True).register_post_accumulate_grad_hook(self._mask_gradient)
        parameter.requires_grad_(trained)

    def __getstate__(self) -> dict[str, Any]:
        fresh = {"_dense_gradient": None, "_passes": None, "_first": None}  # a copy may hold averages: leave it alone
        return {**self.__dict__, **fresh, "parameter": self.parameter}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copied or unpickled model is sparse too; hooks are not copied with a parameter."""
        parameter = state.pop("parameter")
        self.__dict__.update(state)
        self._seen = UNSEEN
        self._watch(parameter)
        if self._kept and parameter.requires_grad:
            self._passes = parameter.register_hook(self._before_pass)

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
    def factor(self) -> Tensor:
        """The mask in the memory that it has, as numbers 1 and 0: a CPU multiplies by these three times as fast."""
        return self.mask.view(torch.uint8)

    @property
    def trained(self) -> bool:
        return self.parameter.requires_grad

    def dense(self) -> Tensor:
        return self.parameter.detach()

    def entries(self) -> tuple[Tensor, Tensor]:
        places = places_of(self.mask)
        return places, self.parameter.detach().view(-1).index_select(0, places)

    def keep_dense_gradient(self, wanted: bool) -> None:
        if wanted == self._kept:
            return
        self._kept, self._dense_gradient = wanted, None
        if self._passes is not None:
            self._passes.remove()
        self._passes = self.parameter.register_hook(self._before_pass) if wanted and self.trained else None

    def passed_gradient(self, wanted: bool = True) -> Tensor | None:
        if wanted and self._dense_gradient is None:
            self._dense_gradient = torch.zeros_like(self.parameter)
        return self._dense_gradient

    def dense_gradient(self) -> Tensor | None:
        gradient = self.parameter.grad
        if self._kept and self._dense_gradient is None and gradient is not None:  # written by hand
            self._dense_gradient = gradient.to_dense().clone()
        return self._dense_gradient

    @torch.no_grad()
    def _before_pass(self, gradient: Tensor) -> None:
        """Before a backward pass adds to the gradient: begin a new sum, or continue the one that the loop has left."""
        standing, earlier = self.parameter.grad, self._dense_gradient
        if standing is None or earlier is None:
            self._dense_gradient = None
        elif stamp(standing) != self._seen:
            self._dense_gradient = carried(earlier, earlier * self.factor, standing.to_dense())
            self._seen = stamp(standing)

    @torch.no_grad()
    def _mask_gradient(self, parameter: Tensor) -> None:
        """Take the entries outside the topology out of the gradient, after each backward pass has added to it."""
        gradient = parameter.grad
        assert gradient is not None
        if self._kept:
            earlier = self._dense_gradient
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
            gradient._values().mul_(self.factor.index_select(0, gradient._indices()[0]))
        else:
            gradient.mul_(self.factor)
        self._seen = stamp(gradient)

    @torch.no_grad()
    def after_step(self, optimizer: Optimizer) -> None:
        if isinstance(optimizer, _MIXING) or not type(optimizer).__module__.startswith("torch.optim."):
            self.parameter.mul_(self.factor)

    def _before_forward(self, *hook: Any) -> None:
        own = isinstance(getattr(self.owner, self._attribute), nn.Parameter)  # torch.func puts others in its place
        if own and self._first is not None and not torch.compiler.is_compiling():
            self.settle()

    @torch.no_grad()
    def settle(self) -> None:
        # Rows of a table with deferred steps change whenever they are read, and only where the step would.
        deferred = getattr(self.owner, "exact", None) is not None
        known = self._first is None and self.parameter._version == self._version
        if not (known or deferred or self.parameter.is_meta):
            self._restore()
            self._version = self.parameter._version

    def _restore(self) -> None:
        """Take back what is outside the topology; without need, no write may disturb a backward pass to come."""
        if bool(self.parameter.masked_fill(self.mask, 0).any()):
            self.parameter.mul_(self.factor)

    def note(self) -> None:
        self._version = self.parameter._version
        if self._first is not None:
            self._first.remove()
            self._first = None

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
                f"execution={execution} supports linear layers, and an LSTM with one layer, one direction and no "
                f"projection if both weight matrices are selected. It does not support {' and '.join(names)} of this "
                f"{type(owner).__name__}. Use execution=masked or auto, or select other layers."
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
