"""Layers of independent components, equal to layers with block-diagonal weights; only the blocks are computed."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.layers.structured_module import StructuredModule
from sparse_bench.sparsity.segments import Blocks, Segment, channel_shuffle, equal_blocks

#: Number of gates whose weights a recurrent layer stacks. LSTM: input, forget, cell, output. GRU: reset, update, new.
GATES: dict[type[nn.RNNBase], int] = {nn.RNN: 1, nn.GRU: 3, nn.LSTM: 4}
#: (h, c) for an LSTM, h for GRU and RNN.
State = Tensor | tuple[Tensor, Tensor]


class BlockDiagonalLayer(StructuredModule):
    """Replaces a one-layer :class:`torch.nn.LSTM`, ``GRU`` or ``RNN``, with the same calls, outputs and states.

    It equals the replaced layer with weights that are zero outside of blocks. W_hh is block-diagonal in every gate. In
    W_ih, the rows of a component's outputs are zero outside the columns that it reads (Demeester et al. 2018). Biases
    are complete.

    Args:
        layer: the layer to replace. Its weights are not copied. Each component draws its own weights, as torch does for
            a layer of its size: within 1/√(its outputs) instead of 1/√(all outputs).
        blocks: the components' segments of inputs and outputs.
        permute: deal the inputs over the components in turn, by :func:`channel_shuffle`, before segments are cut.

    Attributes:
        components: one layer per component, of ``layer``'s type. Parameters that are frozen in ``layer`` are frozen
            here too.

    Raises:
        ConfigError: ``layer`` has several layers or projections.
    """

    order: Tensor

    def __init__(self, layer: nn.RNNBase, blocks: Blocks, permute: bool = False) -> None:
        super().__init__()
        if type(layer) not in GATES or layer.num_layers != 1 or layer.proj_size:
            raise ConfigError(
                f"{type(layer).__name__}({layer.input_size}, {layer.hidden_size}, num_layers={layer.num_layers}, "
                f"proj_size={layer.proj_size}) cannot be made block-diagonal. Valid choices: a one-layer LSTM, GRU or "
                "RNN without projection; stack such layers instead."
            )
        self.input_size, self.hidden_size = layer.input_size, layer.hidden_size
        self.bidirectional, self.batch_first = layer.bidirectional, layer.batch_first
        self.blocks, self.permute = blocks, permute
        order = channel_shuffle(layer.input_size, blocks.count if permute else 1)
        self.register_buffer("order", order.to(next(layer.parameters()).device), persistent=False)
        self._gates = GATES[type(layer)]
        settings: dict[str, Any] = {
            "bias": layer.bias,
            "batch_first": layer.batch_first,
            "bidirectional": layer.bidirectional,
            "device": layer.weight_hh_l0.device,
            "dtype": layer.weight_hh_l0.dtype,
        }
        if isinstance(layer, nn.RNN):
            settings["nonlinearity"] = layer.nonlinearity
        kind: Any = type(layer)
        self.components = nn.ModuleList(
            kind(after - before, end - begin, **settings)
            for (before, after), (begin, end) in zip(blocks.inputs, blocks.outputs, strict=True)
        )
        for name, parameter in layer.named_parameters():
            for part in self.parts(name):
                part.requires_grad_(parameter.requires_grad)

    def forward(self, x: Tensor | PackedSequence, state: State | None = None) -> tuple[Tensor | PackedSequence, State]:
        """Like the replaced layer: takes [T, B, inputs], batch first, packed or without B, and the first state."""
        if self.permute:
            if isinstance(x, PackedSequence):
                x = x._replace(data=x.data.index_select(-1, self.order))
            else:
                x = x.index_select(-1, self.order)
        outputs: list[Any] = []
        states: list[State] = []
        for component, inputs, segment in zip(self.components, self.blocks.inputs, self.blocks.outputs, strict=True):
            y, last = component(self._read(x, inputs), self._own(state, segment))
            outputs.append(y)
            states.append(last)
        if isinstance(x, PackedSequence):
            joined: Tensor | PackedSequence = outputs[0]._replace(data=self._join([y.data for y in outputs]))
        else:
            joined = self._join(outputs)
        if isinstance(states[0], Tensor):
            return joined, torch.cat([h for h in states if isinstance(h, Tensor)], dim=-1)
        h, c = (torch.cat(parts, dim=-1) for parts in zip(*states, strict=True))
        return joined, (h, c)

    def _read(self, x: Tensor | PackedSequence, segment: Segment) -> Tensor | PackedSequence:
        begin, end = segment
        if end - begin == self.input_size:
            return x
        return x._replace(data=x.data[..., begin:end]) if isinstance(x, PackedSequence) else x[..., begin:end]

    @staticmethod
    def _own(state: State | None, segment: Segment) -> State | None:
        """A component's part of the state, contiguous because cuDNN needs that."""
        if state is None:
            return None
        begin, end = segment
        if isinstance(state, Tensor):
            return state[..., begin:end].contiguous()
        h, c = state
        return h[..., begin:end].contiguous(), c[..., begin:end].contiguous()

    def _join(self, outputs: list[Tensor]) -> Tensor:
        if not self.bidirectional:
            return torch.cat(outputs, dim=-1)
        directions = [y.chunk(2, dim=-1) for y in outputs]
        return torch.cat([forth for forth, _ in directions] + [back for _, back in directions], dim=-1)

    def parts(self, attribute: str) -> list[Tensor]:
        return [getattr(component, attribute) for component in self.components]

    def full(self, attribute: str) -> Tensor:
        parts = self.parts(attribute)
        if parts[0].dim() == 1:  # biases are whole
            return torch.cat([part.view(self._gates, -1) for part in parts], dim=1).flatten()
        full = parts[0].new_zeros(self._gates, self.hidden_size, self._columns(attribute))
        for part, (rows, columns) in zip(parts, self._places(attribute), strict=True):
            full[:, slice(*rows), slice(*columns)] = part.view(self._gates, -1, part.shape[1])
        return self._in_order(attribute, full.flatten(0, 1))  # row g · hidden + o: output o of gate g

    def topology(self, attribute: str) -> Tensor:
        shape = self._gates, self.hidden_size, self._columns(attribute)
        mask = torch.zeros(shape, dtype=torch.bool, device=self.parts(attribute)[0].device)
        for rows, columns in self._places(attribute):
            mask[:, slice(*rows), slice(*columns)] = True
        return self._in_order(attribute, mask.flatten(0, 1))

    def _in_order(self, attribute: str, matrix: Tensor) -> Tensor:
        """Put the columns of a matrix for permuted inputs in the order of the inputs."""
        reads_inputs = self.permute and attribute.startswith("weight_ih")
        return matrix.index_select(1, self.order.argsort()) if reads_inputs else matrix

    def _columns(self, attribute: str) -> int:
        return self.hidden_size if attribute.startswith("weight_hh") else self.input_size

    def _places(self, attribute: str) -> list[tuple[Segment, Segment]]:
        """Segments of rows, within a gate, and of columns of every component's part."""
        columns = self.blocks.outputs if attribute.startswith("weight_hh") else self.blocks.inputs
        return list(zip(self.blocks.outputs, columns, strict=True))

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.input_size}, {self.hidden_size}, components={self.blocks.count}"


class BlockDiagonalLinear(StructuredModule):
    """Replaces an :class:`torch.nn.Linear` by k independent ones: each computes a share of the outputs from its inputs.

    It equals the replaced layer with a weight that is zero outside of blocks. The blocks of one size are one batched
    product, so that a k-th of the multiplications remains.

    Args:
        linear: the layer to replace. Each block takes the layer's own first weights in its place, times √(inputs of the
            layer / inputs of the block). So their variance is in inverse proportion to the block's own fan-in, as
            initialisers choose it (He et al. 2015, section 2.2). It is that of a layer of the block's size.
        blocks: k, at most the smaller side of the layer. If it does not divide a side, the first blocks are larger by
            one.
        permute: deal the inputs over the blocks in turn, by :func:`channel_shuffle`. If false, each block reads
            adjacent inputs.

    Attributes:
        weight: the weights of all blocks [entries], block after block, each [outputs, inputs]; frozen if they were in
            ``linear``.
        bias: [out] or None, the parameter of ``linear``.

    Raises:
        ConfigError: there are more blocks than inputs or outputs.
    """

    def __init__(self, linear: nn.Linear, blocks: int, permute: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.blocks, self.permute = blocks, permute
        self._groups = equal_blocks(self.in_features, self.out_features, blocks)
        self._sizes = [group.count * group.outputs * group.inputs for group in self._groups]
        own = linear.weight.detach().flatten().index_select(0, self._places(linear.weight.device))
        scaled = [
            part * math.sqrt(self.in_features / group.inputs)
            for part, group in zip(own.split(self._sizes), self._groups, strict=True)
        ]
        self.weight = nn.Parameter(torch.cat(scaled), linear.weight.requires_grad)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Compute y [..., out] for ``x`` [..., in]."""
        weights = self.weight.split(self._sizes)
        products = [
            torch.einsum("...bi,boi->...bo", read, weight.view(group.count, group.outputs, group.inputs)).flatten(-2)
            for read, weight, group in zip(self._read(x), weights, self._groups, strict=True)
        ]
        y = products[0] if len(products) == 1 else torch.cat(products, dim=-1)
        return y if self.bias is None else y + self.bias.to(y.dtype)  # a product under autocast has another type

    def _read(self, x: Tensor) -> list[Tensor]:
        """What each group of blocks reads [..., blocks, inputs of a block]."""
        counts = [group.count for group in self._groups]
        if not self.permute:
            parts = x.split([group.count * group.inputs for group in self._groups], dim=-1)
            return [part.unflatten(-1, (count, -1)) for part, count in zip(parts, counts, strict=True)]
        # Block b reads the inputs b, b + k, b + 2k, …: a column of this table, without the padding of shorter ones. A
        # copy with the columns as rows takes half as long as products that read in strides.
        table = F.pad(x, (0, -self.in_features % self.blocks)).unflatten(-1, (-1, self.blocks))
        parts = table.transpose(-1, -2).contiguous().split(counts, dim=-2)
        return [part[..., : group.inputs] for part, group in zip(parts, self._groups, strict=True)]

    def _places(self, device: torch.device) -> Tensor:
        """Places of the weights [entries] in the flattened full matrix, int64."""
        found, row, column = [], 0, 0
        order = channel_shuffle(self.in_features, self.blocks if self.permute else 1)
        for group in self._groups:
            outputs, inputs = group.count * group.outputs, group.count * group.inputs
            rows = torch.arange(row, row + outputs).view(group.count, group.outputs, 1)
            columns = order[column : column + inputs].view(group.count, 1, group.inputs)
            found.append((rows * self.in_features + columns).flatten())
            row, column = row + outputs, column + inputs
        return torch.cat(found).to(device)

    def parts(self, attribute: str) -> list[Tensor]:
        return [getattr(self, attribute)]

    def full(self, attribute: str) -> Tensor:
        stored: Tensor = getattr(self, attribute)
        if attribute == "bias":
            return stored
        full = stored.new_zeros(self.out_features * self.in_features)
        return full.index_copy(0, self._places(stored.device), stored).view(self.out_features, self.in_features)

    def topology(self, attribute: str) -> Tensor:
        device = self.weight.device
        mask = torch.zeros(self.out_features * self.in_features, dtype=torch.bool, device=device)
        return mask.index_fill_(0, self._places(device), True).view(self.out_features, self.in_features)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.in_features}, {self.out_features}, blocks={self.blocks}, permute={self.permute}"
