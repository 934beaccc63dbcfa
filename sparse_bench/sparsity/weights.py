"""Sparse weights: a weight matrix together with the topology that says which of its entries exist.

An entry outside the topology is exactly zero, always, and so are its gradient and its optimizer moments.
How the product with a sparse weight is computed (its execution) is decided here and nowhere else: a scheme hands over
a mask, and reads and changes it through :class:`SparseWeight`.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparse_bench.errors import ConfigError, unknown_choice
from sparse_bench.sparsity.linear import SparseLinear

MASK_SUFFIX = "_mask"
#: ``masked`` multiplies full matrices with zeros in them; ``csr`` (torch's sparse products) and ``kernel`` (the
#: project's own, on the CPU) hold and multiply only the weights that exist.
EXECUTIONS = ("masked", "csr", "kernel")
#: Optimizers whose step of one entry depends on the gradients of others.
_MIXING = tuple(getattr(torch.optim, name) for name in ("LBFGS", "Muon") if hasattr(torch.optim, name))


class SparseWeight(ABC):
    """One sparse weight matrix of shape [out, in] in a model, addressed by its parameter's name."""

    def __init__(self, name: str, owner: nn.Module, size: int, active: int) -> None:
        #: Name of the parameter in the model.
        self.name = name
        #: The module that holds it.
        self.owner = owner
        #: Entries of the full matrix.
        self.size = size
        #: Entries in the topology; a host integer, so that reading it never waits for a device.
        self.active = active

    @property
    @abstractmethod
    def mask(self) -> Tensor:
        """The topology, boolean, [out, in]."""

    @abstractmethod
    def dense(self) -> Tensor:
        """The full matrix [out, in], detached, zeros outside the topology."""

    @abstractmethod
    def after_backward(self) -> None:
        """Take the entries outside the topology out of the gradient that has just been computed."""

    @abstractmethod
    def after_step(self, optimizer: Optimizer) -> None:
        """Keep the entries outside the topology at zero where ``optimizer`` would not."""

    @abstractmethod
    def rewire(self, mask: Tensor, values: Tensor, optimizer: Optimizer | None) -> None:
        """Change the topology to ``mask`` and the weights to ``values`` (full matrix; entries outside are dropped).

        Optimizer moments survive where an entry was present before and after, and are zero everywhere else.
        """


class MaskedWeight(SparseWeight):
    """Masked execution: the full matrix with zeros in it, multiplied as if it were dense.

    The mask is a buffer of the owning module (``weight`` → ``weight_mask``), so it is checkpointed and moves with the
    model. Because the gradient is masked before every optimizer step and the entries start at zero with zero moments,
    they stay exactly zero under every element-wise optimizer, and the forward pass needs no multiplication by the mask.
    After a step of an optimizer that mixes the entries of a matrix, they are set to zero again.
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
        owner.register_buffer(self._attribute + MASK_SUFFIX, mask.to(parameter.device))
        with torch.no_grad():
            parameter.mul_(self.mask)

    def _parameter_of(self, owner: nn.Module) -> nn.Parameter:
        parameter = getattr(owner, self._attribute)
        assert isinstance(parameter, nn.Parameter)
        return parameter

    @property
    def parameter(self) -> nn.Parameter:
        """The full-size parameter."""
        return self._parameter_of(self.owner)

    @property
    def mask(self) -> Tensor:
        mask = getattr(self.owner, self._attribute + MASK_SUFFIX)
        assert isinstance(mask, Tensor)
        return mask

    def dense(self) -> Tensor:
        return self.parameter.detach()

    def after_backward(self) -> None:
        if self.parameter.grad is not None:
            self.parameter.grad.mul_(self.mask)

    @torch.no_grad()
    def after_step(self, optimizer: Optimizer) -> None:
        if isinstance(optimizer, _MIXING):
            self.parameter.mul_(self.mask)

    @torch.no_grad()
    def rewire(self, mask: Tensor, values: Tensor, optimizer: Optimizer | None) -> None:
        kept = self.mask & mask
        if optimizer is not None:
            for moment in optimizer.state.get(self.parameter, {}).values():
                if isinstance(moment, Tensor) and moment.shape == self.parameter.shape:
                    moment.mul_(kept)
        self.mask.copy_(mask)
        self.parameter.copy_(values * mask)
        self.active = int(mask.sum())


class CompressedWeight(SparseWeight):
    """True sparse execution: the owning :class:`SparseLinear` holds the existing weights alone."""

    def __init__(self, name: str, owner: SparseLinear) -> None:
        structure = owner.structure
        super().__init__(name, owner, structure.out_features * structure.in_features, structure.entries)
        self._layer = owner

    @property
    def mask(self) -> Tensor:
        return self._layer.structure.mask()

    def dense(self) -> Tensor:
        return self._layer.structure.scatter(self._layer.weight.detach())

    def after_backward(self) -> None:
        """The gradient is that of the existing weights alone."""

    def after_step(self, optimizer: Optimizer) -> None:
        """There are no other entries."""

    @torch.no_grad()
    def rewire(self, mask: Tensor, values: Tensor, optimizer: Optimizer | None) -> None:
        parameter, structure = self._layer.weight, self._layer.structure
        state = optimizer.state.get(parameter, {}) if optimizer is not None else {}
        moments = {
            key: structure.scatter(moment)
            for key, moment in state.items()
            if isinstance(moment, Tensor) and moment.shape == parameter.shape
        }
        structure.rewire(mask)
        # A new parameter, since autograd remembers the size of an old one; it takes the old one's place everywhere.
        renewed = self._layer.weight = nn.Parameter(structure.gather(values))
        self.active = structure.entries
        if optimizer is None:
            return
        for key, moment in moments.items():
            state[key] = structure.gather(moment)
        if parameter in optimizer.state:
            optimizer.state[renewed] = optimizer.state.pop(parameter)
        for group in optimizer.param_groups:
            group["params"] = [renewed if entry is parameter else entry for entry in group["params"]]


def sparsify(model: nn.Module, name: str, mask: Tensor, execution: str) -> SparseWeight:
    """Give the weight matrix ``name`` of ``model`` the topology ``mask``.

    Under ``csr`` and ``kernel`` the owning linear layer is replaced by a :class:`SparseLinear` of the same name, whose
    parameter keeps its name too.

    Raises:
        ConfigError: ``execution`` is not one of :data:`EXECUTIONS`, is not possible for this weight, or the weight
            already has a topology.
    """
    if execution not in EXECUTIONS:
        raise ConfigError(unknown_choice("execution", execution, EXECUTIONS))
    module, _, attribute = name.rpartition(".")
    owner = model.get_submodule(module)
    if isinstance(owner, SparseLinear) or hasattr(owner, attribute + MASK_SUFFIX):
        raise ConfigError(f"The weight '{name}' already has a topology; only one scheme can own it.")
    if execution == "masked":
        return MaskedWeight(name, owner, mask)
    if type(owner) is not nn.Linear or not module:
        raise ConfigError(
            f"execution={execution} computes linear layers, and '{name}' belongs to a {type(owner).__name__}. "
            "Use execution=masked for it, or select other layers."
        )
    replacement = SparseLinear(owner, mask, execution)
    parent, _, child = module.rpartition(".")
    setattr(model.get_submodule(parent), child, replacement)
    return CompressedWeight(name, replacement)
