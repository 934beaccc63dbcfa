"""A recurrent layer of independent components, equal to a layer with block-diagonal recurrent weights."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.layers.structured import StructuredModule
from sparse_bench.sparsity.segments import Blocks, Segment

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

    Attributes:
        components: one layer per component, of ``layer``'s type. Parameters that are frozen in ``layer`` are frozen
            here too.

    Raises:
        ConfigError: ``layer`` has several layers or projections.
    """

    def __init__(self, layer: nn.RNNBase, blocks: Blocks) -> None:
        super().__init__()
        if type(layer) not in GATES or layer.num_layers != 1 or layer.proj_size:
            raise ConfigError(
                f"{type(layer).__name__}({layer.input_size}, {layer.hidden_size}, num_layers={layer.num_layers}, "
                f"proj_size={layer.proj_size}) cannot be made block-diagonal. Valid choices: a one-layer LSTM, GRU or "
                "RNN without projection; stack such layers instead."
            )
        self.input_size, self.hidden_size = layer.input_size, layer.hidden_size
        self.bidirectional, self.batch_first = layer.bidirectional, layer.batch_first
        self.blocks = blocks
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
        return full.flatten(0, 1)  # row g · hidden + o: output o of gate g

    def topology(self, attribute: str) -> Tensor:
        shape = self._gates, self.hidden_size, self._columns(attribute)
        mask = torch.zeros(shape, dtype=torch.bool, device=self.parts(attribute)[0].device)
        for rows, columns in self._places(attribute):
            mask[:, slice(*rows), slice(*columns)] = True
        return mask.flatten(0, 1)

    def _columns(self, attribute: str) -> int:
        return self.hidden_size if attribute.startswith("weight_hh") else self.input_size

    def _places(self, attribute: str) -> list[tuple[Segment, Segment]]:
        """Segments of rows, within a gate, and of columns of every component's part."""
        columns = self.blocks.outputs if attribute.startswith("weight_hh") else self.blocks.inputs
        return list(zip(self.blocks.outputs, columns, strict=True))

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.input_size}, {self.hidden_size}, components={self.blocks.count}"
