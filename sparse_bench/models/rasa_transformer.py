"""The transformer encoder of Rasa's DIET and TED: pre-norm, bidirectional, on packed sequences.

Source: "Why Rasa uses Sparse Layers in Transformers" and the released Rasa 2.6. Token-wise layers work on packed rows
[M, U] without padding. Only attention moves them to a padded grid [B, heads, S, U/heads].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.batch import Layout
from sparse_bench.errors import ConfigError
from sparse_bench.kernels.attention import Rows, attends, short_attention
from sparse_bench.kernels.softmax import softmax
from sparse_bench.models.dropout import Dropout, check_rate, keep_mask
from sparse_bench.models.full_precision import lowered
from sparse_bench.models.layers import dense, sinusoids
from sparse_bench.models.packing import spread, take

#: Added to the logits of masked positions.
_NEVER = -1e9


@dataclass
class HeadGrid:
    """Indices between the packed table of attention, rows (position, head), and its grid (sentence, head, position).

    Attributes:
        layout: layout of the sequences.
        source: row of the packed table [M·heads, U/heads] for each cell of the grid [B·heads·S].
        target: grid cell of each row of the packed table [M·heads].
        bias: bias on the logits of each key: 0, or −1e9 at padding [B·heads, 1, S].
        length: S, the longest length.
    """

    layout: Layout
    source: Tensor
    target: Tensor
    bias: Tensor
    length: int

    @classmethod
    def of(cls, layout: Layout, heads: int) -> Self:
        """Make the grid for ``heads`` heads. It is computed once for all layers."""
        batch, length = layout.grid.shape
        head = torch.arange(heads, device=layout.grid.device)
        source = layout.grid[:, None, :] * heads + head[:, None]
        first_cell = (layout.cell - layout.position) * heads
        target = (first_cell + layout.position)[:, None] + head * length
        bias = torch.where(layout.mask, 0.0, _NEVER)[:, None, None, :].expand(batch, heads, 1, length)
        return cls(layout, source.reshape(-1), target.reshape(-1), bias.reshape(batch * heads, 1, length), length)


class Attention(nn.Module):
    """Multi-head self-attention with logits QKᵀ / √(U/heads). Projections to queries, keys and values have no bias.

    As in the released code, attention dropout adds −1e9 to random logits instead of dropping attention weights. So the
    remaining weights still sum to 1.
    """

    #: Layers whose rows belong to one head after another.
    per_head: ClassVar[tuple[str, ...]] = ("query", "key", "value")

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = check_rate(dropout, "attention_dropout")
        self.query = dense(size, size, bias=False)
        self.key = dense(size, size, bias=False)
        self.value = dense(size, size, bias=False)
        self.output = dense(size, size)

    def forward(self, x: Tensor, grid: HeadGrid, wanted: Tensor | None = None) -> Tensor:
        """[M, U] → [M, U]. With ``wanted`` [B], one row number per sequence, only these rows are returned [B, U]."""
        x, size = lowered(x), x.shape[1]
        depth = size // self.heads

        drops = self.training and self.dropout > 0
        if not drops and attends(x, depth, grid.length):
            return self.output(self._compiled(x, grid, wanted))

        def on_grid(rows: Tensor) -> Tensor:
            return spread(rows.view(-1, depth), grid.source, grid.target).view(-1, grid.length, depth)

        query = on_grid(self.query(x)) if wanted is None else self.query(take(x, wanted)).view(-1, 1, depth)
        key, value = on_grid(self.key(x)), on_grid(self.value(x))
        bias = grid.bias
        if drops:
            shape = torch.Size((bias.shape[0], query.shape[1], grid.length))
            bias = bias + torch.where(keep_mask(shape, self.dropout, x.device) == 0, _NEVER, 0.0)
        logits = torch.baddbmm(bias.to(query.dtype), query, key.transpose(1, 2), alpha=1 / math.sqrt(depth))
        attended = torch.bmm(softmax(logits), value).view(-1, depth)
        packed = attended if wanted is not None else take(attended, grid.target)
        return self.output(packed.view(-1, size))

    def _compiled(self, x: Tensor, grid: HeadGrid, wanted: Tensor | None) -> Tensor:
        """What every row attends to, without the output projection."""
        layout = grid.layout
        keys = Rows(grid.length, layout.grid[:, 0].contiguous(), layout.lengths)
        query, key, value = self.query(x if wanted is None else take(x, wanted)), self.key(x), self.value(x)
        attended = short_attention(
            query.unflatten(1, (self.heads, -1)),
            key.unflatten(1, (self.heads, -1)),
            value.unflatten(1, (self.heads, -1)),
            layout.grid.shape[0],
            keys if wanted is None else Rows(1),
            keys,
            scale=1 / math.sqrt(x.shape[1] // self.heads),
        )
        return attended.flatten(1)


class FeedForward(nn.Module):
    """U → 4U, GELU, dropout, → U."""

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.hidden = dense(size, 4 * size)
        self.dropout = Dropout(dropout)
        self.output = dense(4 * size, size)

    def forward(self, x: Tensor) -> Tensor:
        """[M, U] → [M, U]."""
        return self.output(self.dropout(F.gelu(self.hidden(x))))


class EncoderLayer(nn.Module):
    """x + drop(attention(norm(x))), then the same with the feed-forward block."""

    def __init__(self, size: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(size, eps=1e-6)
        self.attention = Attention(size, heads, attention_dropout)
        self.feed_forward_norm = nn.LayerNorm(size, eps=1e-6)
        self.feed_forward = FeedForward(size, dropout)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, grid: HeadGrid, wanted: Tensor | None = None) -> Tensor:
        """[M, U] → [M, U]. With ``wanted`` [B], one row number per sequence, only these rows are returned [B, U]."""
        attended = self.dropout(self.attention(self.attention_norm(x), grid, wanted))
        x = (x if wanted is None else take(x, wanted)) + attended
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class TransformerEncoder(nn.Module):
    """Encoder: embedded inputs · √U plus sinusoids, dropout, encoder layers, and a final norm without a GELU after it.

    Args:
        inputs: F, width of the input vectors.
        size: U, width of the encoder; a multiple of ``heads``.
        layers: number of encoder layers.
        heads: attention heads.
        dropout: dropout of the embedded inputs, of both blocks' outputs and of the feed-forward block's hidden layer.
        attention_dropout: share of attention logits dropped.

    Raises:
        ConfigError: a size outside its range.
    """

    def __init__(
        self, inputs: int, size: int, *, layers: int, heads: int, dropout: float, attention_dropout: float = 0.0
    ) -> None:
        super().__init__()
        if min(inputs, size, layers, heads) < 1:
            raise ConfigError(
                f"An encoder needs at least one input ({inputs}), unit ({size}), layer ({layers}) and head ({heads})."
            )
        if size % heads:
            raise ConfigError(
                f"transformer_size = {size} is not a multiple of heads = {heads}. "
                f"Nearest valid choices: {size // heads * heads or heads}, {(size // heads + 1) * heads}."
            )
        self.size = size
        self.heads = heads
        self.input = dense(inputs, size)
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(EncoderLayer(size, heads, dropout, attention_dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(size, eps=1e-6)

    def forward(self, x: Tensor, layout: Layout, wanted: Tensor | None = None) -> Tensor:
        """Encode packed input vectors [M, F] → [M, U].

        Args:
            x: the input vectors.
            layout: layout of the sequences.
            wanted: one packed row of each sequence, in order [B]. Then only these rows are returned [B, U]. They are
                the same as in the full result, but the last layer computes no other rows.
        """
        grid = HeadGrid.of(layout, self.heads)
        position = sinusoids(grid.length, self.size, x.device).index_select(0, layout.position)
        x = self.dropout(torch.add(position, self.input(x), alpha=math.sqrt(self.size)))
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            x = layer(x, grid, wanted if number == last else None)
        return self.norm(x)

    def layer_groups(self, prefix: str) -> dict[str, list[str]]:
        """Names of the encoder's weight matrices by group. ``prefix`` is the encoder's own name and a dot."""
        layers = [f"{prefix}layers.{number}." for number in range(len(self.layers))]
        qkv = [f"{layer}attention.{name}.weight" for layer in layers for name in ("query", "key", "value")]
        output = [f"{layer}attention.output.weight" for layer in layers]
        return {
            "encoder_input": [f"{prefix}input.weight"],
            "attention_qkv": qkv,
            "attention_output": output,
            "attention": qkv + output,
            "feed_forward": [f"{layer}feed_forward.{name}.weight" for layer in layers for name in ("hidden", "output")],
        }
