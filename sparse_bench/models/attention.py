"""Multi-head attention over padded sequences, and the cache of past keys and values that decoding needs.

Three implementations compute the same numbers. ``sdpa`` is :func:`torch.nn.functional.scaled_dot_product_attention`;
``explicit`` writes the softmax out. ``auto`` is ``sdpa``, except in the cases where that is slow on a CPU. In half
precision its gradient takes several times as long; for short sequences in bfloat16 ``auto`` is compiled code. With
attention dropout it cannot use its fused kernel, and draws one Bernoulli number per weight.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.errors import ConfigError, unknown_choice
from sparse_bench.kernels.attention import Rows, attends, short_attention
from sparse_bench.kernels.softmax import softmax
from sparse_bench.models.dropout import Dropout, keep_mask, keep_probability
from sparse_bench.models.layers import dense

ATTENTION_WAYS = ("auto", "sdpa", "explicit")

#: Added to the logits of masked keys. Their attention weights are then exactly 0 in every precision.
_NEVER = -1e9


def padding_bias(mask: Tensor) -> Tensor:
    """Bias on the logits that masks padding: ``mask`` [B, S], True at real keys → [B, 1, 1, S]."""
    return torch.where(mask, 0.0, _NEVER)[:, None, None, :]


def mixed_padding_bias(mask: Tensor, heads: int) -> Tensor:
    """:func:`padding_bias` with a bug that some code has: it masks other sentences' padding → [B, H, 1, S].

    Head h of sentence b gets the padding of sentence ⌊(h · B + b) / H⌋. This happens if the mask is repeated sentence
    by sentence, while queries, keys and values are stacked head by head.
    """
    batch = mask.shape[0]
    place = torch.arange(heads, device=mask.device) * batch + torch.arange(batch, device=mask.device)[:, None]
    return torch.where(mask, 0.0, _NEVER)[place // heads][:, :, None, :]


def causal_bias(length: int, device: torch.device) -> Tensor:
    """Bias on the logits that masks all later positions [1, 1, length, length]."""
    return torch.full((length, length), _NEVER, device=device).triu(1)[None, None]


class MultiHeadAttention(nn.Module):
    """Multi-head attention: softmax(scale · QKᵀ + bias) V for each head (Vaswani et al. 2017, section 3.2).

    The projections to queries, keys and values have no bias. :meth:`keys_values` is a separate call, because decoding
    reuses its result.

    Args:
        size: U, width of inputs and outputs; a multiple of ``heads``.
        heads: H, number of heads; each is U/H wide.
        scale: factor on the logits.
        dropout: share of the attention weights dropped.
        way: the implementation, one of :data:`ATTENTION_WAYS`.

    Raises:
        ConfigError: a setting outside its range.
    """

    #: Layers whose rows belong to one head after another.
    per_head: ClassVar[tuple[str, ...]] = ("query", "key", "value")

    def __init__(self, size: int, heads: int, *, scale: float, dropout: float = 0.0, way: str = "auto") -> None:
        super().__init__()
        if way not in ATTENTION_WAYS:
            raise ConfigError(unknown_choice("way to compute attention", way, ATTENTION_WAYS))
        if size % heads:
            raise ConfigError(
                f"A width of {size} cannot be divided among {heads} attention heads. "
                f"Nearest valid widths: {size // heads * heads or heads}, {(size // heads + 1) * heads}."
            )
        self.heads, self.scale, self.way, self.rate = heads, scale, way, dropout
        self.query = dense(size, size, bias=False)
        self.key = dense(size, size, bias=False)
        self.value = dense(size, size, bias=False)
        self.output = dense(size, size)
        self.dropout = Dropout(dropout)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of ``memory`` [B, S, U]: two tensors [B, H, S, U/H]."""
        return self._split(self.key(memory)), self._split(self.value(memory))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend from ``x`` [B, T, U] to ``keys`` and ``values`` [B, H, S, U/H] → [B, T, U].

        ``bias`` is added to the logits and broadcasts to [B, H, T, S]: its first dimensions are [1, 1], [B, 1] or
        [B, H].
        """
        query = self._split(self.query(x))
        if self.way == "auto" and attends(query, query.shape[3], max(query.shape[2], keys.shape[2])):
            return self.output(self._compiled(query, keys, values, bias).view(x.shape))
        attended = (self._explicit if self._is_explicit(query) else self._sdpa)(query, keys, values, bias)
        return self.output(attended.transpose(1, 2).reshape(x.shape))

    def _split(self, x: Tensor) -> Tensor:
        """[B, T, U] → [B, H, T, U/H]."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _is_explicit(self, query: Tensor) -> bool:
        if self.way != "auto":
            return self.way == "explicit"
        drops = self.training and self.rate > 0
        return query.is_cpu and (drops or query.dtype != torch.float32)

    def _compiled(self, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """The result as rows [B · T, H, U/H]."""
        batch, heads, length, _ = query.shape
        keep = None
        if self.training and self.rate > 0:
            keep = keep_mask(torch.Size((batch * heads, length, keys.shape[2])), self.rate, query.device)
        return short_attention(
            query.transpose(1, 2).flatten(0, 1),
            keys.transpose(1, 2).flatten(0, 1),
            values.transpose(1, 2).flatten(0, 1),
            batch,
            Rows(length),
            Rows(keys.shape[2]),
            scale=self.scale,
            bias=bias,
            keep=keep,
            factor=1 / keep_probability(self.rate),
        )

    def _sdpa(self, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        rate = self.rate if self.training else 0.0
        if bias is not None:
            bias = bias.to(query.dtype).expand(-1, -1, query.shape[2], -1)
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=bias, dropout_p=rate, scale=self.scale)

    def _explicit(self, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        batch, heads, length, depth = query.shape
        query, keys, values = (x.reshape(batch * heads, -1, depth) for x in (query, keys, values))
        if bias is None:
            bias = query.new_zeros(())
        elif bias.shape[0] == 1:
            bias = bias[0]
        else:
            bias = bias.expand(batch, heads, -1, -1).flatten(0, 1)
        logits = torch.baddbmm(bias.to(query.dtype), query, keys.transpose(1, 2), alpha=self.scale)
        weights = self.dropout(softmax(logits))
        return torch.bmm(weights, values).view(batch, heads, length, depth)


class Past:
    """Cache of the keys and values of all decoded positions, in buffers for ``longest`` positions."""

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add one position's keys and values [R, H, 1, U/H], and return those of all t positions [R, H, t, U/H]."""
        if self._keys is None or self._values is None:
            rows, heads, _, depth = keys.shape
            self._keys, self._values = (x.new_zeros(rows, heads, self.longest, depth) for x in (keys, values))
        self._keys[:, :, self.length] = keys[:, :, 0]
        self._values[:, :, self.length] = values[:, :, 0]
        self.length += 1
        return self._keys[:, :, : self.length], self._values[:, :, : self.length]

    def reorder(self, rows: Tensor) -> None:
        """Replace each row's cache by that of the row with the number in ``rows`` [R]."""
        for buffer in (self._keys, self._values):
            if buffer is not None:
                filled = buffer[:, :, : self.length]
                filled.copy_(filled.index_select(0, rows))
