"""Sparse training for any model in any loop: one call, driven by the optimizer that the loop steps."""

import copy
import math
import warnings
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparse_bench.errors import ConfigError, unknown_choice
from sparse_bench.row_sparse import RowSparseUpdates
from sparse_bench.sparsity.driver import Driver
from sparse_bench.sparsity.dynamics.schedule import EveryEpoch
from sparse_bench.sparsity.dynamics.scheme import Dynamic
from sparse_bench.sparsity.dynamics.tiles import as_mask, in_tiles
from sparse_bench.sparsity.held import BUFFERS
from sparse_bench.sparsity.layers.compressed import CompressedLayer
from sparse_bench.sparsity.layers.structured_module import StructuredModule
from sparse_bench.sparsity.optimizer_parameters import replace_parameters
from sparse_bench.sparsity.rollback import unchanged_on_error
from sparse_bench.sparsity.scheme import Length, Scheme, layer_groups
from sparse_bench.sparsity.scores import Losses
from sparse_bench.sparsity.structured import StructuredWeight
from sparse_bench.sparsity.weights import MASK_SUFFIX, CompressedWeight, SparseWeight
from sparse_bench.streams import Streams

if TYPE_CHECKING:
    import pandas as pd

_WRAPPERS = {"DistributedDataParallel", "FullyShardedDataParallel", "OptimizedModule", "DataParallel"}


def sparsify(
    model: nn.Module,
    optimizer: Optimizer,
    scheme: Scheme,
    *,
    steps: int,
    steps_per_epoch: int | None = None,
    seed: int = 0,
    losses: Losses | None = None,
) -> "SparseTraining":
    """Make layers of ``model`` sparse, and keep them so in every step of ``optimizer``.

    The loop stays as it is. The scheme acts before and after each ``optimizer.step()``. A step that a gradient scaler
    leaves out changes no topology. Gradients of several backward passes are ranked as their sum. Weights that the loop
    initialises again keep their topology. For a running average of the weights (EMA) of a scheme that rewires, use
    ``execution="masked"``, or average exported models: the other executions move values as they rewire.

    Several calls may make different layers of one model sparse. Each owns its layers.

    Args:
        model: changed in place. Layers are replaced by sparse ones under all executions but ``masked``.
        optimizer: holds the parameters of ``model``. Parameters that are replaced are replaced in its groups and in
            its state, too.
        scheme: such as ``RigL(density=0.1, layers=["*mlp*"])``. ``layers`` are patterns on parameter names, groups that
            the model declares with ``layer_groups()``, or ``default``: all weight matrices but embeddings.
        steps: how many optimizer steps the whole training takes.
        steps_per_epoch: for schemes that rewire between epochs, such as SET.
        losses: for schemes that score the weights first, such as SNIP: ``losses(model)`` yields the losses of some
            training batches, one scalar after another, the same in each call. It gets a copy of the model.
        seed: of the topology. The same seed gives the same topology on every rank of a data-parallel training.

    Raises:
        ConfigError: the scheme, the layers or the optimizer do not fit. Model, optimizer and scheme are as before.
    """
    return SparseTraining(model, optimizer, scheme, steps, steps_per_epoch, Streams(seed), losses)


class SparseTraining(Driver):
    """A model in sparse training; see :func:`sparsify`.

    Attributes:
        model: the model.
        scheme: attached to it.
        steps: how many optimizer steps have been taken.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        scheme: Scheme,
        steps: int,
        steps_per_epoch: int | None,
        streams: Streams,
        losses: Losses | None = None,
    ) -> None:
        self.model = model
        self._total, self._steps_per_epoch = steps, steps_per_epoch
        self._check(scheme, optimizer)
        with unchanged_on_error(model, optimizer, scheme, scheme.matrices(model)):
            self._attach(scheme, optimizer, streams, losses)
            epochs = math.ceil(steps / steps_per_epoch) if steps_per_epoch else 1
            super().__init__(scheme, optimizer, streams, lambda: Length(epochs, steps))
        for text in scheme.warnings():
            warnings.warn(text, stacklevel=3)

    def _attach(self, scheme: Scheme, optimizer: Optimizer, streams: Streams, losses: Losses | None) -> None:
        """Make the layers sparse, and put the optimizer right."""
        model = self.model
        before = dict(model.named_parameters())
        modules = dict(model.named_modules())
        scheme.losses = losses
        scheme.attach(model, streams)
        # What stood where a layer was replaced, without its numbers: export() puts such layers back.
        replaced = {path: old for path, old in modules.items() if path and model.get_submodule(path) is not old}
        self._originals = {path: copy.deepcopy(old).to("meta") for path, old in replaced.items()}
        replace_parameters(optimizer, before, model, scheme.weights)
        scheme.scale_rates(optimizer, model)
        _leave_fast_path(model)
        self._row_sparse = RowSparseUpdates(optimizer, model)

    def report(self) -> "pd.DataFrame":
        """The sparse layers, a row each.

        Columns: ``layer``, ``shape``, ``nominal_density`` (if the scheme has one), ``density`` (the realised one),
        ``weights`` (that exist), ``dead_inputs`` and ``dead_outputs`` (units without a weight), and ``rewirings`` (of
        all layers so far).
        """
        import pandas as pd  # takes half a second, which training does not need

        rows = []
        for name, weight in self.scheme.weights.items():
            mask = weight.mask
            rows.append(
                {
                    "layer": name,
                    "shape": "x".join(map(str, mask.shape)),
                    "nominal_density": self.scheme.density if self.scheme.density < 1 else None,
                    "density": weight.active / max(1, weight.size),
                    "weights": weight.active,
                    "dead_inputs": int((~mask.any(0)).sum()),
                    "dead_outputs": int((~mask.any(1)).sum()),
                    "rewirings": self.scheme.rewirings() or 0,
                }
            )
        return pd.DataFrame(rows)

    def export(self, form: Literal["dense", "csr"] = "dense", model: nn.Module | None = None) -> nn.Module:
        """A copy of the model in plain modules, for evaluation. Layers of other calls of ``sparsify`` stay sparse.

        Args:
            form: ``dense`` writes zeros where there is no weight. ``csr`` gives linear layers torch's sparse CSR
                weights, and leaves all others dense.
            model: a copy of the model to take instead, such as what another call of ``sparsify`` has exported.

        Raises:
            ConfigError: there is no such form.
        """
        if form not in ("dense", "csr"):
            raise ConfigError(unknown_choice("form", form, ("dense", "csr")))
        self._row_sparse.flush()
        plain = copy.deepcopy(self.model if model is None else model)
        for path, original in self._originals.items():
            parent, _, child = path.rpartition(".")
            setattr(plain.get_submodule(parent), child, _restored(plain.get_submodule(path), original))
        for name in self.scheme.weights:
            path, _, attribute = name.rpartition(".")
            owner = plain.get_submodule(path)
            for suffix in BUFFERS:
                owner._buffers.pop(attribute + suffix, None)
            _leave(owner, name)
            if (masked := getattr(owner, attribute, None)) is not None:  # a parameter without the gradient's hook
                setattr(owner, attribute, nn.Parameter(masked.detach(), masked.requires_grad))
            if form == "csr" and type(owner) is nn.Linear:
                owner.weight = nn.Parameter(owner.weight.detach().to_sparse_csr(), requires_grad=False)
        return plain

    def load_exported(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of an exported model's state dict; its entries other than zero are the topology.

        Tiles exist as a whole. Layers of a predefined shape keep it. The optimizer moments of the sparse weights begin
        at zero again.

        Raises:
            ConfigError: a layer of a predefined shape has weights outside of it.
            RuntimeError: names or shapes do not fit, as of :meth:`torch.nn.Module.load_state_dict`.
        """
        parameters = dict(self.model.named_parameters())
        loaded = self._with_parts(state)
        sparse = [name for name in self.scheme.weights if name in parameters]
        parts = [name for name in parameters if name in loaded and name not in state]
        shapes = {name: parameters[name].shape for name in (*sparse, *parts)}
        self.model.load_state_dict(loaded | self._masks_of(loaded))
        for name, shape in shapes.items():
            moments = self.optimizer.state.get(parameters[name], {})
            for key, moment in moments.items():
                if isinstance(moment, Tensor) and moment.shape == shape:
                    moments[key] = moment.new_zeros(parameters[name].shape)

    def _masks_of(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Name of each mask → where ``state`` has weights; of tiles, where a tile has any."""
        masks = {}
        for scheme in self.scheme.members():
            side = getattr(scheme, "block", 1)
            for name in scheme.weights.keys() & state.keys():
                if not isinstance(scheme.weights[name], StructuredWeight):
                    masks[name + MASK_SUFFIX] = as_mask(in_tiles(state[name] != 0, side) > 0, side)
        return masks

    def _with_parts(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The ``state``, with the stored parts of layers of a predefined shape instead of their matrices."""
        loaded = dict(state)
        for path, original in self._originals.items():
            module = self.model.get_submodule(path)
            names = [name for name, _ in original.named_parameters()]
            if not isinstance(module, StructuredModule) or any(f"{path}.{name}" not in state for name in names):
                continue
            twin = copy.deepcopy(module).requires_grad_(True)
            for name in names:
                full = loaded.pop(f"{path}.{name}").to(next(twin.parameters()))
                if full.dim() == 2 and full[~twin.topology(name)].any():
                    raise ConfigError(f"'{path}.{name}' has weights where the layer's predefined shape has none.")
                # The gradient of their product tells which entry of the full matrix each part is.
                product = (twin.full(name) * full).sum()
                found = torch.autograd.grad(product, list(twin.parameters()), allow_unused=True)
                for part, values in zip(twin.parameters(), found, strict=True):
                    part.data = part if values is None else values
            loaded |= {f"{path}.{name}": value for name, value in twin.state_dict().items()}
        return loaded

    @torch.no_grad()
    def _gradients_complete(self) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            self._check_ranks()
            self._average_dense_gradients()
        super()._gradients_complete()

    def _average_dense_gradients(self) -> None:
        """Let every rank rank the same gradients, also where a rank's own loss did not reach a weight."""
        kept = [weight for weight in self.scheme.weights.values() if weight.kept]
        if not kept:
            return
        device = self.optimizer.param_groups[0]["params"][0].device
        reached = torch.tensor([weight.passed_gradient(wanted=False) is not None for weight in kept], device=device)
        counts = reached.int()
        torch.distributed.all_reduce(counts)
        for weight, ranks in zip(kept, counts.tolist(), strict=True):
            if ranks and (gradient := weight.passed_gradient()) is not None:
                torch.distributed.all_reduce(gradient)
                gradient /= torch.distributed.get_world_size()

    def _check_ranks(self) -> None:
        for scheme in self.scheme.members() if torch.distributed.get_world_size() > 1 else ():
            compressed = any(isinstance(weight, CompressedWeight) for weight in scheme.weights.values())
            if compressed and isinstance(scheme, Dynamic) and scheme.resizes:
                raise ConfigError(
                    f"{type(scheme).__name__} under execution={scheme.execution} makes new parameters, whose "
                    "gradients a data-parallel training does not average. Use execution=masked."
                )

    def _after_step(self, *hook: Any) -> None:
        super()._after_step(*hook)
        if self._steps_per_epoch and self.steps % self._steps_per_epoch == 0 and self.steps <= self._total:
            self.end_epoch(self.steps // self._steps_per_epoch - 1, last=self.steps == self._total)

    def _check(self, scheme: Scheme, optimizer: Optimizer) -> None:
        """Refuse what cannot work, before anything is changed."""
        if self._total < 1:
            raise ConfigError(f"steps = {self._total}: a training has at least one optimizer step.")
        for path, module in self.model.named_modules():
            if type(module).__name__ in _WRAPPERS:
                raise ConfigError(
                    f"{path or 'The model'} is a {type(module).__name__}: call sparsify first, and wrap the model then."
                )
        for member in scheme.members():
            _check_free(self.model, member)
            self._check_member(member, optimizer)
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        names = dict[int, list[str]]()
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
        for name in scheme.matrices(self.model):
            parameter = self.model.get_parameter(name)
            if not parameter.is_floating_point() or type(parameter.data).__name__ == "DTensor":
                raise ConfigError(f"'{name}' is quantised or sharded. Make the model sparse before, or leave it out.")
            if len(found := names[id(parameter)]) > 1:
                raise ConfigError(f"'{name}' is tied to {', '.join(found[1:])}. Untie them, or select other layers.")
            if parameter.requires_grad and id(parameter) not in held:
                raise ConfigError(f"The optimizer does not hold '{name}'. Make it from model.parameters().")

    def _check_member(self, scheme: Scheme, optimizer: Optimizer) -> None:
        """Refuse what cannot work in one of the schemes."""
        kind = type(scheme).__name__
        if scheme.weights or scheme.selected:
            raise ConfigError(f"This {kind} is attached to a model already. Make another one.")
        if type(scheme).build is not Scheme.build:
            raise ConfigError(f"{kind} builds another model, and cannot make an existing one sparse.")
        if scheme.execution != "masked" and type(optimizer).__name__ == "Muon":
            raise ConfigError(f"Muon works on matrices, and execution={scheme.execution} trains vectors: use masked.")
        if scheme.holds_hidden and isinstance(optimizer, torch.optim.LBFGS):
            raise ConfigError(
                f"LBFGS computes the loss several times per step, and {kind} puts other weights into the model for "
                "the step. Use another optimizer."
            )
        if not isinstance(scheme, Dynamic):
            return
        if isinstance(scheme.dynamics.schedule, EveryEpoch) and not self._steps_per_epoch:
            raise ConfigError(f"{kind} rewires between epochs: give steps_per_epoch.")
        for name in scheme.matrices(self.model) if scheme.dynamics.grow is not None else ():
            if not self.model.get_parameter(name).requires_grad:
                raise ConfigError(f"'{name}' is frozen, and {kind} grows connections that must learn.")


def _check_free(model: nn.Module, scheme: Scheme) -> None:
    """Refuse layers that are sparse already, also those of which only the existing weights are stored."""
    taken = [
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name in (module.structures if isinstance(module, CompressedLayer) else ())
    ]
    taken += [name.removesuffix(MASK_SUFFIX) for name, _ in model.named_buffers() if name.endswith(MASK_SUFFIX)]
    groups = layer_groups(model)
    plain = not hasattr(model, "layer_groups")
    for selector in scheme.layers:
        named = groups.get(selector, ())
        for name in taken:
            rest = plain and selector == "default" and name not in groups["embedding"]
            if fnmatchcase(name, selector) or name in named or rest:
                raise ConfigError(
                    f"The weight '{name}' already has a topology; only one scheme can own it. Select other layers."
                )


def _restored(module: nn.Module, original: nn.Module) -> nn.Module:
    """The ``original`` layer with the numbers of the ``module`` that has replaced it."""
    like = next(module.parameters())
    plain = copy.deepcopy(original).to_empty(device=like.device).to(like.dtype)
    parts = module.parts() if isinstance(module, CompressedLayer) else {}
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if isinstance(module, StructuredModule):
                parameter.copy_(module.full(name))
            else:
                values, structure = parts.get(name, (module.get_parameter(name), None))
                parameter.copy_(values if structure is None else structure.scatter(values))
    return plain.train(module.training)


def _leave(owner: nn.Module, name: str) -> None:
    """Remove the hooks by which the sparse weight ``name`` watches its module."""
    for hooks in (owner._load_state_dict_pre_hooks, owner._load_state_dict_post_hooks, owner._forward_pre_hooks):
        for key, hook in list(hooks.items()):
            watcher = getattr(getattr(hook, "hook", hook), "__self__", None)
            if isinstance(watcher, SparseWeight) and watcher.name == name:
                del hooks[key]


def _leave_fast_path(model: nn.Module) -> None:
    """Keep torch's encoder layers from reading the weights of sparse layers as matrices in evaluations."""
    for layer in model.modules():
        sparse = any(isinstance(module, CompressedLayer | StructuredModule) for module in layer.modules())
        if sparse and isinstance(layer, nn.TransformerEncoderLayer):
            layer.activation_relu_or_gelu = 0
        if sparse and isinstance(layer, nn.TransformerEncoder):
            layer.use_nested_tensor = False
