"""An LSTM layer that stores only the weights that exist, and computes with them alone."""

import torch
from torch import Tensor, nn

from sparse_bench.errors import ConfigError
from sparse_bench.kernels.lstm import State, full_lstm, sparse_lstm
from sparse_bench.kernels.structure import SparseStructure
from sparse_bench.sparsity.layers.compressed import CompressedLayer, compressed

#: The two matrices of an LSTM layer: name of the parameter → name of its structure.
STRUCTURES = {"weight_ih_l0": "structure_ih", "weight_hh_l0": "structure_hh"}


class SparseLSTM(CompressedLayer):
    """Replaces an :class:`torch.nn.LSTM` of one layer and one direction; parameters keep their names.

    Args:
        lstm: the layer to replace.
        masks: name of each weight matrix → which of its weights exist, boolean [4H, in] and [4H, H].
        execution: see :func:`sparse_bench.kernels.linear.sparse_linear`.

    Attributes:
        weight_ih_l0, weight_hh_l0: the weights that exist [entries], row by row; frozen if they were in ``lstm``.
        bias_ih_l0, bias_hh_l0: [4H] or None, the parameters of ``lstm``.
        structure_ih, structure_hh: the places of the weights.

    Raises:
        ConfigError: ``lstm`` has several layers, two directions, or a projection.
    """

    structures = STRUCTURES
    structure_ih: SparseStructure
    structure_hh: SparseStructure
    weight_ih_l0: nn.Parameter
    weight_hh_l0: nn.Parameter
    bias_ih_l0: nn.Parameter | None
    bias_hh_l0: nn.Parameter | None

    def __init__(self, lstm: nn.LSTM, masks: dict[str, Tensor], execution: str) -> None:
        super().__init__()
        if lstm.num_layers != 1 or lstm.bidirectional or lstm.proj_size:
            raise ConfigError(
                f"execution={execution} needs an LSTM of one layer and one direction without projection, not {lstm}. "
                "Use execution=masked for it."
            )
        self.input_size, self.hidden_size, self.batch_first = lstm.input_size, lstm.hidden_size, lstm.batch_first
        self.execution = execution
        for name, structure in STRUCTURES.items():
            whole = getattr(lstm, name)
            sparse, values = compressed(whole, masks[name])
            setattr(self, structure, sparse)
            setattr(self, name, nn.Parameter(values, whole.requires_grad))
        for name in ("bias_ih_l0", "bias_hh_l0"):
            self.register_parameter(name, getattr(lstm, name) if lstm.bias else None)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Like :class:`torch.nn.LSTM`: x [T, B, in], or [B, T, in] if ``batch_first``, and states [1, B, H].

        Raises:
            TypeError: ``x`` is packed or unbatched.
            ConfigError: see :class:`CompressedLayer`.
        """
        self.check_copy()
        if not isinstance(x, Tensor) or x.dim() != 3:
            raise TypeError(f"a sparse LSTM takes [T, B, {self.input_size}], not {type(x).__name__}")
        if self.batch_first:
            x = x.transpose(0, 1)
        if state is None:
            zeros = x.new_zeros(x.shape[1], self.hidden_size)
            hidden, cell = zeros, zeros
        else:
            hidden, cell = state[0].squeeze(0), state[1].squeeze(0)
        bias = None
        if self.bias_ih_l0 is not None and self.bias_hh_l0 is not None:
            bias = self.bias_ih_l0 + self.bias_hh_l0
        inputs, recurrent = (self.structure_ih, self.weight_ih_l0), (self.structure_hh, self.weight_hh_l0)
        if torch.is_grad_enabled() and any(part.dense_gradient is not None for part, _ in (inputs, recurrent)):
            weight_ih, weight_hh = (part.full(values) for part, values in (inputs, recurrent))
            y, (hidden, cell) = full_lstm(x, (hidden, cell), weight_ih, weight_hh, bias)
        else:
            y, (hidden, cell) = sparse_lstm(x, (hidden, cell), inputs, recurrent, bias, self.execution)
        return (y.transpose(0, 1) if self.batch_first else y), (hidden.unsqueeze(0), cell.unsqueeze(0))

    def flatten_parameters(self) -> None:
        """Do nothing; models call this on any LSTM."""

    def extra_repr(self) -> str:
        """Sizes and execution."""
        return f"{self.input_size}, {self.hidden_size}, execution={self.execution}"
