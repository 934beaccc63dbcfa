"""Count the weights that exist, and the multiply-accumulates of one example, dense and sparse."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from sparse_bench.kernels import auto
from sparse_bench.sparsity.driver import Tally
from sparse_bench.sparsity.layers.block_diagonal import BlockDiagonalLayer, BlockDiagonalLinear
from sparse_bench.sparsity.layers.linear import SparseLinear
from sparse_bench.sparsity.layers.lstm import SparseLSTM
from sparse_bench.sparsity.scheme import Scheme, layer_groups
from sparse_bench.sparsity.weights import SparseWeight

#: Layers of which the counter of products sees only the blocks.
_IN_BLOCKS = BlockDiagonalLayer | BlockDiagonalLinear


@dataclass(frozen=True)
class Count:
    """Weights of some layers: ``active`` ones exist, and the full matrices would hold ``size``."""

    active: int
    size: int


@dataclass(frozen=True)
class Counts:
    """Exact numbers of weights.

    Attributes:
        sparse_layers: weights that exist in the layers that the scheme selected (matrices only, no biases).
        sparse_layers_size: entries of the full matrices of these layers.
        sparse_layers_frozen: the part of ``sparse_layers`` in layers that are not trained.
        density: the realised density, ``sparse_layers`` over ``sparse_layers_size``.
        trainable: all trainable weights of the model that exist, biases included.
        groups: group of layers → its weights, for every group that the model declares; groups may overlap.
        of_full: for a model built smaller, ``sparse_layers`` over the size of these layers in the full model, to
            compare with the nominal density. None for all other models, where this is ``density``.
        rewirings: how often training changed the topology; None if the scheme never does.
        held: weights that training kept for these layers, at its step that kept most.
        average_density: mean of the density over the steps of training.
    """

    sparse_layers: int
    sparse_layers_size: int
    sparse_layers_frozen: int
    density: float
    trainable: int
    groups: dict[str, Count]
    of_full: float | None = None
    rewirings: int | None = None
    held: int | None = None
    average_density: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a result file; those that do not apply are left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def count(model: nn.Module, scheme: Scheme, tally: Tally | None = None) -> Counts:
    """Count ``model`` under an attached ``scheme``; ``tally`` is of its training, if that has steps."""

    def of(names: list[str]) -> Count:
        size = active = 0
        for name in names:
            weight = scheme.weights.get(name)
            entries = weight.size if weight else math.prod(model.get_parameter(name).shape)
            size += entries
            active += weight.active if weight else entries
        return Count(active, size)

    def is_trained(name: str) -> bool:
        weight = scheme.weights.get(name)
        return weight.trained if weight else model.get_parameter(name).requires_grad

    selected = of(scheme.selected)
    sparse = of(list(scheme.weights))
    fixed = selected.size - sparse.size  # of selected layers that stay dense
    everything = of([name for name, parameter in model.named_parameters() if parameter.requires_grad])
    return Counts(
        sparse_layers=selected.active,
        sparse_layers_size=selected.size,
        sparse_layers_frozen=of([name for name in scheme.selected if not is_trained(name)]).active,
        density=selected.active / selected.size,
        trainable=everything.active,
        groups={group: of(names) for group, names in layer_groups(model).items()},
        of_full=selected.active / scheme.full_size if scheme.full_size else None,
        rewirings=scheme.rewirings(),
        held=fixed + tally.held if tally else None,
        average_density=(fixed + sum(tally.active.values()) / tally.steps) / selected.size if tally else None,
    )


@dataclass(frozen=True)
class MultiplyAccumulates:
    """Multiply-accumulates in the matrix products of one example's forward pass.

    Attributes:
        dense: the number if every layer were dense.
        sparse: the number without the entries that do not exist.
        rows: sparse weight → how often each of its entries is multiplied; weights of look-ups are left out.
        active: sparse weight → its number of existing entries when this was counted.
    """

    dense: float
    sparse: float
    rows: dict[str, float] = field(default_factory=dict)
    active: dict[str, int] = field(default_factory=dict)

    def with_entries(self, weights: Mapping[str, SparseWeight]) -> float:
        """``sparse`` with the entries that exist now, as training may have changed their number."""
        return self.sparse + sum(rows * (weights[name].active - self.active[name]) for name, rows in self.rows.items())

    def of_training(self, tally: Tally, sizes: Mapping[str, int], examples: int) -> dict[str, float]:
        """``forward`` and ``backward``: multiply-accumulates of a whole training with ``examples`` examples.

        The backward pass multiplies the gradient of each product's output twice: by the weights that exist, and by the
        inputs, for the entries whose gradient a step needs.

        Args:
            tally: of the training; it has steps.
            sizes: sparse weight → its number of entries.
            examples: how many examples training saw, each as often as it was seen.
        """
        rest = self.dense - sum(rows * sizes[name] for name, rows in self.rows.items())
        existing = sum(rows * tally.active[name] / tally.steps for name, rows in self.rows.items())
        updated = sum(rows * tally.updated[name] / tally.steps for name, rows in self.rows.items())
        return {"forward": examples * (rest + existing), "backward": examples * (2 * rest + existing + updated)}


@torch.no_grad()
def multiply_accumulates(model: nn.Module, scheme: Scheme, forward: Callable[[], int]) -> MultiplyAccumulates:
    """Count the products of one call of ``forward()``, which returns its number of examples.

    torch's flop counter counts the dense products: matrix products and attention, but no look-ups or element-wise
    operations. A sparse layer saves its missing entries once for each row that it multiplies.
    """
    saved = unseen = 0.0
    rows = dict[str, float]()
    counter = FlopCounterMode(display=False)

    def saver(name: str, missing: int, in_parts: bool) -> Callable[[nn.Module, tuple[Tensor], Any], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor], output: Any) -> None:
            nonlocal saved, unseen
            multiplied = _rows(inputs[0])
            rows[name] = rows.get(name, 0) + multiplied
            entries = multiplied * missing
            saved += entries
            unseen += entries if in_parts else 0

        return hook

    def by_size(owner: nn.Module, size: int) -> list[RemovableHandle]:
        before = 0.0

        def begin(module: nn.Module, inputs: tuple[Tensor]) -> None:
            nonlocal before
            before = counter.get_total_flops()

        def end(module: nn.Module, inputs: tuple[Tensor], output: Any) -> None:
            nonlocal unseen
            unseen += _rows(inputs[0]) * size - (counter.get_total_flops() - before) / 2

        return [owner.register_forward_pre_hook(begin), owner.register_forward_hook(end)]

    # Look-ups are not products, so they save nothing. Of a block-diagonal layer, the counter sees only the blocks, so
    # its missing entries are added to the dense count.
    hooks = [
        weight.owner.register_forward_hook(
            saver(name, weight.size - weight.active, in_parts=isinstance(weight.owner, _IN_BLOCKS))
        )
        for name, weight in scheme.weights.items()
        if isinstance(weight.owner, nn.Linear | SparseLinear | nn.RNNBase | SparseLSTM | _IN_BLOCKS)
    ]
    # The counter may miss the products of the project's sparse layers; the sizes of their matrices count instead.
    for owner in {weight.owner for weight in scheme.weights.values()}:
        if isinstance(owner, SparseLinear | SparseLSTM):
            size = sum(weight.size for weight in scheme.weights.values() if weight.owner is owner)
            hooks += by_size(owner, size)
    try:
        # To the counter, a recurrent layer of oneDNN or cuDNN is one unknown operation. Without them, it sees products.
        with (
            _without_onednn(),
            torch.backends.cudnn.flags(enabled=False),
            auto.paused(),
            counter,
        ):
            examples = forward()
    finally:
        for hook in hooks:
            hook.remove()
    dense = counter.get_total_flops() / 2 + unseen
    per_example = {name: multiplied / examples for name, multiplied in rows.items()}
    active = {name: weight.active for name, weight in scheme.weights.items()}
    return MultiplyAccumulates(dense / examples, (dense - saved) / examples, per_example, active)


def _rows(x: Tensor) -> int:
    """Number of rows that a layer multiplies, for a tensor or a packed sequence."""
    data = x.data
    return data.numel() // data.shape[-1]


@contextmanager
def _without_onednn() -> Iterator[None]:
    """Switch oneDNN off; ``torch.backends.mkldnn.flags`` would also set other flags and warn."""
    before = torch.backends.mkldnn.set_flags(False, None, None, None)[0]
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(before, None, None, None)
