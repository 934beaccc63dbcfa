"""The blocks of the encoder-decoder transformer (Vaswani et al. 2017, section 3.1), post-norm or pre-norm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from sparse_bench.errors import ConfigError, unknown_choice
from sparse_bench.models.attention import MultiHeadAttention, Past
from sparse_bench.models.dropout import Dropout
from sparse_bench.models.full_precision import lowered
from sparse_bench.models.layer_norm import StdLayerNorm
from sparse_bench.models.layers import dense

NORMS = ("post", "pre")
NORM_EPS_ON = ("std", "variance")

_EPS = 1e-6


@dataclass(frozen=True)
class BlockSettings:
    """Settings that all blocks of a transformer share.

    Attributes:
        size: U, width of the residual stream.
        inner: width of the feed-forward blocks' hidden layer.
        heads: attention heads.
        scale: factor on attention logits.
        dropout: dropout of every block's output before it is added.
        attention_dropout: share of attention weights dropped.
        norm: ``post``: normalise after each addition; ``pre``: normalise each block's input and each stack's output.
        norm_eps_on: whether ε = 1e-6 is added to the ``std`` or to the ``variance``.
        attention: how attention is computed, see :mod:`sparse_bench.models.attention`.

    Raises:
        ConfigError: an unknown ``norm`` or ``norm_eps_on``.
    """

    size: int
    inner: int
    heads: int
    scale: float
    dropout: float
    attention_dropout: float
    norm: str
    norm_eps_on: str
    attention: str

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ConfigError(unknown_choice("norm", self.norm, NORMS))
        if self.norm_eps_on not in NORM_EPS_ON:
            raise ConfigError(unknown_choice("norm_eps_on", self.norm_eps_on, NORM_EPS_ON))

    def new_norm(self) -> nn.Module:
        """A layer normalisation over U."""
        return StdLayerNorm(self.size, _EPS) if self.norm_eps_on == "std" else nn.LayerNorm(self.size, eps=_EPS)

    def new_attention(self) -> MultiHeadAttention:
        """An attention block."""
        return MultiHeadAttention(
            self.size, self.heads, scale=self.scale, dropout=self.attention_dropout, way=self.attention
        )


class Residual(nn.Module):
    """Residual connection around a block: norm(x + drop(block(x))), or x + drop(block(norm(x))) with pre-norm."""

    def __init__(self, settings: BlockSettings) -> None:
        super().__init__()
        self.pre = settings.norm == "pre"
        self.norm = settings.new_norm()
        self.dropout = Dropout(settings.dropout)

    def forward(self, x: Tensor, block: Callable[[Tensor], Tensor]) -> Tensor:
        """[..., U] → [..., U]."""
        if self.pre:
            return x + self.dropout(block(self.norm(x)))
        normalised: Tensor = self.norm(x + self.dropout(block(x)))
        return normalised


class FeedForward(nn.Module):
    """U → inner, ReLU, → U."""

    def __init__(self, settings: BlockSettings) -> None:
        super().__init__()
        self.hidden = dense(settings.size, settings.inner)
        self.output = dense(settings.inner, settings.size)

    def forward(self, x: Tensor) -> Tensor:
        """[..., U] → [..., U]."""
        return self.output(self.hidden(x).relu_())


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward block."""

    def __init__(self, settings: BlockSettings) -> None:
        super().__init__()
        self.self_attention = settings.new_attention()
        self.self_attention_residual = Residual(settings)
        self.feed_forward = FeedForward(settings)
        self.feed_forward_residual = Residual(settings)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """[B, S, U] → [B, S, U]; ``padding`` is the bias of :func:`padding_bias`."""

        def attend(y: Tensor) -> Tensor:
            y = lowered(y)
            attended: Tensor = self.self_attention(y, *self.self_attention.keys_values(y), padding)
            return attended

        x = self.self_attention_residual(x, attend)
        encoded: Tensor = self.feed_forward_residual(x, self.feed_forward)
        return encoded


class DecoderLayer(nn.Module):
    """Self-attention to earlier positions, attention to the encoder's output, and a feed-forward block."""

    def __init__(self, settings: BlockSettings) -> None:
        super().__init__()
        self.self_attention = settings.new_attention()
        self.self_attention_residual = Residual(settings)
        self.cross_attention = settings.new_attention()
        self.cross_attention_residual = Residual(settings)
        self.feed_forward = FeedForward(settings)
        self.feed_forward_residual = Residual(settings)

    def forward(
        self,
        x: Tensor,
        memory: tuple[Tensor, Tensor],
        padding: Tensor,
        causal: Tensor | None = None,
        past: Past | None = None,
    ) -> Tensor:
        """Decode all positions of B targets at once, or the next position of several targets of each source.

        Args:
            x: inputs [B, T, U]; or, with a ``past``, [B · k, 1, U] for k targets of each of the B sources.
            memory: keys and values of the encoder's output (``cross_attention.keys_values``), each [B, H, S, U/H].
            padding: bias that masks the source's padding [B, 1, 1, S].
            causal: bias that masks later positions [1, 1, T, T]; None if ``x`` is the last position.
            past: cache of earlier positions; this position is added to it.

        Returns:
            The shape of ``x``.
        """

        def attend(y: Tensor) -> Tensor:
            y = lowered(y)
            keys, values = self.self_attention.keys_values(y)
            if past is not None:
                keys, values = past.append(keys, values)
            attended: Tensor = self.self_attention(y, keys, values, causal)
            return attended

        def attend_to_source(y: Tensor) -> Tensor:
            # The k targets of a source share its keys, so these need not be repeated.
            grouped = y.reshape(memory[0].shape[0], -1, y.shape[2])
            attended: Tensor = self.cross_attention(grouped, *memory, padding)
            return attended.view(y.shape)

        x = self.self_attention_residual(x, attend)
        x = self.cross_attention_residual(x, attend_to_source)
        decoded: Tensor = self.feed_forward_residual(x, self.feed_forward)
        return decoded
