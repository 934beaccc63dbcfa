"""Predefined sparseness: recurrent layers of independent components (Demeester et al. 2018)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import nn

from sparse_bench.errors import ConfigError
from sparse_bench.limits import Few, Fraction, one_of
from sparse_bench.sparsity.layers.block_diagonal import GATES, BlockDiagonalLayer
from sparse_bench.sparsity.scheme import Layers
from sparse_bench.sparsity.segments import MODES, Blocks, count_and_share, reductions
from sparse_bench.sparsity.structured import StructuredScheme, recurrent_stacks, replace
from sparse_bench.sparsity.weights import SparseWeight
from sparse_bench.streams import Streams

#: Mode in which the number of components is given, the same for every layer.
EXPLICIT = "blocks"


@dataclass
class BlockDiagonal(StructuredScheme):
    """Splits every selected LSTM, GRU or RNN layer into components with their own outputs and states.

    The number of components, and the share of the inputs that each reads, are either given (mode ``blocks``), or follow
    from a narrower dense stack with as many parameters (``mode`` and ``fraction``). A layer with one component does not
    change.

    Attributes:
        mode: sides of the stack of selected layers, in the model's order, that are reduced in the dense stack.
            ``sparse_hidden``: between layers. ``sparse_emb``: the stack's input and output. ``sparse_all``: all.
            ``blocks``: the number of components is given.
        fraction: size of the dense stack's reduced sides, relative to this stack. Not in mode ``blocks``.
        blocks: number of components of every layer. In mode ``blocks`` only.
        delta: share of a layer's inputs that a component reads, from 1/blocks to 1. In mode ``blocks`` only.
    """

    needs: ClassVar[tuple[str, ...]] = ("recurrent",)
    replaces: ClassVar[str] = "recurrent layers (LSTM, GRU, RNN)"
    remedy: ClassVar[str] = (
        "sparse_hidden acts between the layers of a stack, sparse_emb at its ends: for one layer use "
        "sparsity.mode=sparse_all, or blocks"
    )

    layers: Layers = ("recurrent",)
    mode: Annotated[str, one_of(*MODES, EXPLICIT)] = "sparse_hidden"
    fraction: Fraction | None = None
    blocks: Few | None = None
    delta: Fraction | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.density != 1.0:
            raise ConfigError("BlockDiagonal has no density: its size follows from its mode. Remove sparsity.density.")
        explicit = self.mode == EXPLICIT
        given = {name: getattr(self, name) is not None for name in ("fraction", "blocks", "delta")}
        if given != {"fraction": not explicit, "blocks": explicit, "delta": explicit}:
            wanted, unwanted = ("blocks and delta", "fraction") if explicit else ("fraction", "blocks and delta")
            raise ConfigError(f"sparsity.mode={self.mode} needs {wanted}, and does not use {unwanted}: set null.")
        if self.blocks is not None and self.delta is not None and not 1 / self.blocks <= self.delta <= 1:
            raise ConfigError(f"sparsity.delta must lie between 1/{self.blocks} (1/blocks) and 1, not {self.delta}.")

    def asked(self) -> str | None:
        if self.fraction == 1 or self.blocks == 1:
            return None
        return f"mode {self.mode}, " + (f"{self.blocks} blocks" if self.blocks else f"fraction {self.fraction:g}")

    def install(self, model: nn.Module, streams: Streams) -> dict[str, SparseWeight]:
        weights: dict[str, SparseWeight] = {}
        names = self.owners(model, tuple(GATES))
        for stack in recurrent_stacks(model, list(names)):
            for place, path in enumerate(stack):
                layer = model.get_submodule(path)
                assert isinstance(layer, nn.RNNBase)
                if self.fraction is None:
                    count, share = self.blocks or 1, self.delta or 1.0
                else:
                    reduction = reductions(self.mode, self.fraction, len(stack))[place]
                    count, share = count_and_share(layer.input_size, layer.hidden_size, reduction)
                if count > 1:
                    blocks = Blocks.of(layer.input_size, layer.hidden_size, count, share)
                    weights |= replace(model, path, names[path], BlockDiagonalLayer(layer, blocks))
        return weights
