"""Predefined sparseness: layers of independent components (Demeester et al. 2018), recurrent and linear."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import nn

from sparse_bench.errors import ConfigError
from sparse_bench.limits import Few, Fraction, one_of
from sparse_bench.sparsity.layers.block_diagonal import GATES, BlockDiagonalLayer, BlockDiagonalLinear
from sparse_bench.sparsity.scheme import Layers
from sparse_bench.sparsity.segments import EXPLICIT, MODES, components
from sparse_bench.sparsity.structured import StructuredScheme, recurrent_stacks, replace
from sparse_bench.sparsity.weights import SparseWeight
from sparse_bench.streams import Streams


@dataclass
class BlockDiagonal(StructuredScheme):
    """Splits every selected linear, LSTM, GRU or RNN layer into blocks with their own inputs, outputs and states.

    The number of blocks is either given (mode ``blocks``), or follows from a narrower dense stack of recurrent layers
    with as many parameters (``mode`` and ``fraction``). A layer with one block does not change.

    Attributes:
        mode: sides of the stack of selected layers, in the model's order, that are reduced in the dense stack.
            ``sparse_hidden``: between layers. ``sparse_emb``: the stack's input and output. ``sparse_all``: all.
            ``blocks``: the number of blocks is given; the only mode for linear layers.
        fraction: size of the dense stack's reduced sides, relative to this stack. Not in mode ``blocks``.
        blocks: number of blocks of every layer. In mode ``blocks`` only.
        delta: share of its inputs that a block of a recurrent layer reads, from 1/blocks to 1. None: 1/blocks, as in
            linear layers. In mode ``blocks`` only.
        permute: deal a layer's inputs over its blocks in turn, so that each block reads outputs of all blocks before.
    """

    replaces: ClassVar[str] = "linear and recurrent layers"
    remedy: ClassVar[str] = "sparse_hidden acts between layers: for one layer use sparsity.mode=sparse_all, or blocks"

    layers: Layers = ("recurrent",)
    mode: Annotated[str, one_of(*MODES, EXPLICIT)] = "sparse_hidden"
    fraction: Fraction | None = None
    blocks: Few | None = None
    delta: Fraction | None = None
    permute: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.density != 1.0:
            raise ConfigError("BlockDiagonal has no density: its size follows from its mode. Remove sparsity.density.")
        wanted, unwanted = ("blocks", ("fraction",)) if self.mode == EXPLICIT else ("fraction", ("blocks", "delta"))
        if getattr(self, wanted) is None or any(getattr(self, name) is not None for name in unwanted):
            unused = " and ".join(unwanted)
            raise ConfigError(f"sparsity.mode={self.mode} needs {wanted}, and does not use {unused}: set null.")
        if self.blocks is not None and self.delta is not None and not 1 / self.blocks <= self.delta <= 1:
            raise ConfigError(f"sparsity.delta must lie between 1/{self.blocks} (1/blocks) and 1, not {self.delta}.")

    def asked(self) -> str | None:
        if self.fraction == 1 or self.blocks == 1:
            return None
        return f"mode {self.mode}, " + (f"{self.blocks} blocks" if self.blocks else f"fraction {self.fraction:g}")

    def install(self, model: nn.Module, streams: Streams) -> dict[str, SparseWeight]:
        names = self.owners(model, (*GATES, nn.Linear))
        layers: dict[str, Any] = {path: model.get_submodule(path) for path in names}
        linear = [path for path, layer in layers.items() if isinstance(layer, nn.Linear)]
        if linear and (self.blocks is None or self.delta is not None):
            raise ConfigError(f"Linear layers ({', '.join(linear)}) need sparsity.mode=blocks and delta=null.")
        made: dict[str, BlockDiagonalLayer | BlockDiagonalLinear] = {}
        for stack in recurrent_stacks(model, [path for path in names if path not in linear]):
            sizes = [(layers[path].input_size, layers[path].hidden_size) for path in stack]
            cut = components(sizes, self.mode, self.fraction, self.blocks, self.delta)
            for path, blocks in zip(stack, cut, strict=True):
                if blocks.count > 1:
                    made[path] = BlockDiagonalLayer(layers[path], blocks, self.permute)
        if self.blocks is not None and self.blocks > 1:
            made |= {path: BlockDiagonalLinear(layers[path], self.blocks, self.permute) for path in linear}
        return replace(model, names, made)
