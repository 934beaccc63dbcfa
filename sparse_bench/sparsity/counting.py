"""How many weights exist and how many multiply-accumulates an example costs, dense and sparse."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from sparse_bench.kernels import auto
from sparse_bench.sparsity.layers.block_diagonal import BlockDiagonalLayer
from sparse_bench.sparsity.layers.linear import SparseLinear
from sparse_bench.sparsity.layers.lstm import SparseLSTM
from sparse_bench.sparsity.scheme import Scheme, layer_groups


@dataclass(frozen=True)
class Count:
    """Weights of some layers: how many exist, and how many the full matrices would hold."""

    active: int
    size: int


@dataclass(frozen=True)
class Counts:
    """Exact numbers of weights.

    Attributes:
        sparse_layers: weights that exist in the layers that the scheme selected (matrices only, no biases).
        sparse_layers_size: entries of those layers' full matrices.
        sparse_layers_frozen: of the first, those that are not trained: a model may keep layers at their first weights.
        density: the first over the second: the realised density.
        of_full: of a model that was built smaller, the first over what these layers hold in the full model: what the
            density that was asked for is about. None for all others, where it is ``density``.
        rewirings: how often training changed the topology, where a scheme does.
        trainable: all trainable weights of the model that exist, biases included.
        groups: the same for every group of layers that the model declares; groups may overlap.
    """

    sparse_layers: int
    sparse_layers_size: int
    sparse_layers_frozen: int
    density: float
    trainable: int
    groups: dict[str, Count]
    of_full: float | None = None
    rewirings: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a result file; those that do not apply are left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def count(model: nn.Module, scheme: Scheme) -> Counts:
    """Count ``model`` under an attached ``scheme``."""

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
    )


@dataclass(frozen=True)
class MultiplyAccumulates:
    """Multiply-accumulates in the matrix products of one example's forward pass.

    Attributes:
        dense: as if every layer were dense.
        sparse: with the entries that do not exist left out.
    """

    dense: float
    sparse: float


@torch.no_grad()
def multiply_accumulates(model: nn.Module, scheme: Scheme, forward: Callable[[], int]) -> MultiplyAccumulates:
    """Count the products of one ``forward()`` call, which says over how many examples it went.

    Dense products are counted by torch's own flop counter (matrix products and attention; look-ups and element-wise
    operations are not products); a sparse layer saves its missing entries once for each row that it multiplies.
    """
    saved = unseen = 0.0
    counter = FlopCounterMode(display=False)

    def saver(missing: int, in_parts: bool) -> Callable[[nn.Module, tuple[Tensor], Any], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor], output: Any) -> None:
            nonlocal saved, unseen
            entries = _rows(inputs[0]) * missing
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

    # Look-ups are no products, so there is none to save. The parts of a layer in parts are all that the counter sees.
    hooks = [
        weight.owner.register_forward_hook(
            saver(weight.size - weight.active, in_parts=isinstance(weight.owner, BlockDiagonalLayer))
        )
        for weight in scheme.weights.values()
        if isinstance(weight.owner, nn.Linear | SparseLinear | nn.RNNBase | SparseLSTM | BlockDiagonalLayer)
    ]
    # Of a layer with a product of its own the counter may see nothing or something; its matrices' sizes count instead.
    for owner in {weight.owner for weight in scheme.weights.values()}:
        if isinstance(owner, SparseLinear | SparseLSTM):
            size = sum(weight.size for weight in scheme.weights.values() if weight.owner is owner)
            hooks += by_size(owner, size)
    try:
        # Recurrent layers of oneDNN and cuDNN are a single operation to the counter; without them they are products.
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
    return MultiplyAccumulates(dense=dense / examples, sparse=(dense - saved) / examples)


def _rows(x: Tensor) -> int:
    """Rows that a layer multiplies; of a packed sequence too."""
    data = x.data
    return data.numel() // data.shape[-1]


@contextmanager
def _without_onednn() -> Iterator[None]:
    """(``torch.backends.mkldnn.flags`` sets more than is asked for, and warns about it.)"""
    before = torch.backends.mkldnn.set_flags(False, None, None, None)[0]
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(before, None, None, None)
