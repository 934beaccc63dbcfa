"""The encoder-decoder transformer (Vaswani et al. 2017), as in "Introducing Evolutionary Sparsity in the Transformer".

The defaults are those of the report (Brouns 2019), a small transformer based on a Keras implementation. As there,
matrices start Glorot-uniform, biases at zero, and embeddings uniform in ±0.05. Three further properties are settings:
layer normalisation adds ε to the standard deviation, attention divides by √d_model, and the decoder's embeddings have
no dropout.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from sparse_bench.batch.translation import TranslationBatch, TranslationSizes
from sparse_bench.errors import ConfigError
from sparse_bench.limits import Few, Rate, Width, checked, one_of
from sparse_bench.models.attention import ATTENTION_WAYS, Past, causal_bias, mixed_padding_bias, padding_bias
from sparse_bench.models.base import Model
from sparse_bench.models.decoding import beam_search, check_search, greedy
from sparse_bench.models.dropout import Dropout
from sparse_bench.models.encoder_decoder import NORM_EPS_ON, NORMS, BlockSettings, DecoderLayer, EncoderLayer
from sparse_bench.models.full_precision import lowered
from sparse_bench.models.layers import dense, sinusoids
from sparse_bench.models.packing import take

#: Divisors of the attention logits.
ATTENTION_SCALES = ("sqrt_model", "sqrt_head")
#: Which of source embedding, target embedding and vocabulary projection share one matrix.
TIES = ("none", "target", "all")
PADDINGS = ("own", "mixed")

_DEFAULT_SIZE = 512
_DEFAULT_INNER = 512
_DEFAULT_HEADS = 8
#: Keras draws embeddings uniformly from ± this range.
_EMBEDDING_RANGE = 0.05


class Transformer(Model):
    """Source tokens → encoder; earlier target tokens and the encoder's output → decoder → the next target token.

    Args:
        sizes: sizes of the vocabularies.
        d_model: U, width of the residual stream; a multiple of ``heads``.
        d_inner: width of the feed-forward blocks' hidden layer.
        encoder_layers: blocks of self-attention and feed-forward.
        decoder_layers: blocks of self-attention, attention to the source, and feed-forward.
        heads: attention heads, each U / ``heads`` wide.
        norm: ``post``: normalise after each addition; ``pre``: before each block, and once at the end of each stack.
        norm_eps_on: whether the normalisation's ε = 1e-6 is added to the ``std`` (report) or to the ``variance``.
        attention_scale: divide attention logits by √U (``sqrt_model``, report) or √(U / heads) (``sqrt_head``).
        tie: ``none``: three matrices (report); ``target``: the target embedding is also the vocabulary projection;
            ``all``: one matrix for all three, for a vocabulary that both languages share.
        scale_embeddings: multiply embeddings by √U before positions are added (Vaswani et al., not the report).
        dropout: dropout of every block's output before it is added.
        attention_dropout: share of attention weights dropped.
        source_dropout: dropout of the sum of source embedding and position.
        target_dropout: dropout of the sum of target embedding and position.
        attention: how attention is computed: ``auto``, ``sdpa`` or ``explicit``, see
            :mod:`sparse_bench.models.attention`.
        padding: ``own``: attention masks a sentence's own padding; ``mixed``: it masks other sentences' padding, a bug
            of the report's program (:func:`sparse_bench.models.attention.mixed_padding_bias`). Then the result for a
            sentence depends on its batch. As in that program, padding then gets no position.

    Raises:
        ConfigError: a setting outside its range.
    """

    tasks: ClassVar[tuple[str, ...]] = ("translation",)
    groups: ClassVar[tuple[str, ...]] = (
        "default",
        "encoder_self_attention_qkv",
        "encoder_self_attention",
        "decoder_self_attention",
        "cross_attention",
        "attention_qkv",
        "attention",
        "feed_forward",
        "everything",
        "embedding",
        "vocabulary",
    )

    @checked
    def __init__(
        self,
        sizes: TranslationSizes,
        *,
        d_model: Width = _DEFAULT_SIZE,
        d_inner: Width = _DEFAULT_INNER,
        encoder_layers: Few = 2,
        decoder_layers: Few = 2,
        heads: Few = _DEFAULT_HEADS,
        norm: Annotated[str, one_of(*NORMS)] = "post",
        norm_eps_on: Annotated[str, one_of(*NORM_EPS_ON)] = "std",
        attention_scale: Annotated[str, one_of(*ATTENTION_SCALES)] = "sqrt_model",
        tie: Annotated[str, one_of(*TIES)] = "none",
        scale_embeddings: bool = False,
        dropout: Rate = 0.1,
        attention_dropout: Rate = 0.1,
        source_dropout: Rate = 0.1,
        target_dropout: Rate = 0.0,
        attention: Annotated[str, one_of(*ATTENTION_WAYS)] = "auto",
        padding: Annotated[str, one_of(*PADDINGS)] = "own",
    ) -> None:
        super().__init__()
        if tie == "all" and sizes.source_vocabulary != sizes.target_vocabulary:
            raise ConfigError(
                f"tie=all needs one vocabulary for both languages, and these have {sizes.source_vocabulary} and "
                f"{sizes.target_vocabulary} tokens. Valid choices: none, target; or a dataset with a joint vocabulary."
            )
        settings = BlockSettings(
            size=d_model,
            inner=d_inner,
            heads=heads,
            scale=(d_model if attention_scale == "sqrt_model" else d_model / heads) ** -0.5,
            dropout=dropout,
            attention_dropout=attention_dropout,
            norm=norm,
            norm_eps_on=norm_eps_on,
            attention=attention,
        )
        self.size, self.heads, self.padding = d_model, heads, padding
        self.embedding_scale = math.sqrt(d_model) if scale_embeddings else 1.0
        self.source_embedding = _embedding(sizes.source_vocabulary, d_model)
        self.target_embedding = self.source_embedding if tie == "all" else _embedding(sizes.target_vocabulary, d_model)
        self.source_dropout = Dropout(source_dropout)
        self.target_dropout = Dropout(target_dropout)
        self.encoder = nn.ModuleList(EncoderLayer(settings) for _ in range(encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(settings) for _ in range(decoder_layers))
        self.encoder_norm = settings.new_norm() if norm == "pre" else nn.Identity()
        self.decoder_norm = settings.new_norm() if norm == "pre" else nn.Identity()
        #: Occurrences of every token in the training data, by the name of the embedding.
        self.word_frequencies = _frequencies(sizes, shared=tie == "all")
        self.vocabulary = dense(d_model, sizes.target_vocabulary, bias=False)
        if tie != "none":
            self.vocabulary.weight = self.target_embedding.weight

    def forward(self, batch: TranslationBatch) -> Tensor:
        """Logits of the next token at the N real target positions [N, target vocabulary]."""
        padding = self.hide_padding(batch.source_mask)
        memory = lowered(self.encode(batch.source, batch.source_mask, padding))
        length = batch.target_input.shape[1]
        causal = causal_bias(length, memory.device)
        real = torch.arange(length, device=memory.device) < batch.target_lengths[:, None]
        if self.padding == "mixed":  # otherwise the causal mask already hides the padding, which comes last
            causal = torch.minimum(causal, self.hide_padding(real))
        x = self.target_dropout(self._embed(self.target_embedding, batch.target_input, self._positions(real)))
        for layer in self.decoder:
            assert isinstance(layer, DecoderLayer)
            x = layer(x, layer.cross_attention.keys_values(memory), padding, causal)
        return self._predict(take(x.flatten(0, 1), batch.target_rows))

    def hide_padding(self, mask: Tensor) -> Tensor:
        """Bias that masks padding, from ``mask`` [B, S], True at real positions."""
        return padding_bias(mask) if self.padding == "own" else mixed_padding_bias(mask, self.heads)

    @torch.no_grad()
    def translate(
        self, source: Tensor, source_mask: Tensor, beam: int, longest: int, length_penalty: float = 0.6
    ) -> Tensor:
        """Translate B sentences, in evaluation mode.

        Args:
            source: token numbers [B, S], int64.
            source_mask: True at real source positions [B, S].
            beam: hypotheses kept for each sentence; 1 is greedy decoding.
            longest: largest number of tokens of a translation, EOS included.
            length_penalty: see :func:`beam_search`; without effect on greedy decoding.

        Returns:
            Tokens of each translation [B, at most ``longest``], int64, without BOS. The last token is EOS, unless the
            translation was cut off at ``longest``. PAD follows it.

        Raises:
            ConfigError: a setting outside its range.
        """
        check_search(beam, longest, length_penalty)
        stepper = _Stepper(self, source, source_mask, longest)
        if beam == 1:
            return greedy(stepper, source.shape[0], longest, source.device)
        return beam_search(stepper, source.shape[0], beam, longest, source.device, length_penalty)

    def encode(self, source: Tensor, source_mask: Tensor, padding: Tensor) -> Tensor:
        """The encoder's output [B, S, U].

        Args:
            source: token numbers [B, S].
            source_mask: True at real source positions [B, S].
            padding: the bias of :meth:`hide_padding` for this mask.
        """
        x = self.source_dropout(self._embed(self.source_embedding, source, self._positions(source_mask)))
        for layer in self.encoder:
            x = layer(x, padding)
        encoded: Tensor = self.encoder_norm(x)
        return encoded

    def _positions(self, real: Tensor) -> Tensor:
        """Sinusoids [T, U]; with mixed padding [B, T, U], zero where ``real`` [B, T] is False.

        With mixed padding, attention reads some padding, which must then be the same as in the report's program.
        """
        positions = sinusoids(real.shape[1], self.size, real.device)
        return positions if self.padding == "own" else positions * real[..., None]

    def _embed(self, embedding: nn.Embedding, tokens: Tensor, positions: Tensor) -> Tensor:
        """Embeddings of ``tokens`` [..., T] plus ``positions`` ([T, U] or [..., T, U]) → [..., T, U]."""
        return torch.add(positions, embedding(tokens), alpha=self.embedding_scale)

    def _predict(self, x: Tensor) -> Tensor:
        """Logits [..., target vocabulary] from the last decoder layer's output [..., U]."""
        logits: Tensor = self.vocabulary(self.decoder_norm(x))
        return logits

    def layer_groups(self) -> dict[str, list[str]]:
        encoder = [f"encoder.{number}." for number in range(len(self.encoder))]
        decoder = [f"decoder.{number}." for number in range(len(self.decoder))]
        encoder_self = _attention([f"{layer}self_attention" for layer in encoder])
        decoder_self = _attention([f"{layer}self_attention" for layer in decoder])
        cross = _attention([f"{layer}cross_attention" for layer in decoder])
        attention = encoder_self + decoder_self + cross
        feed_forward = [f"{x}feed_forward.{name}.weight" for x in encoder + decoder for name in ("hidden", "output")]
        # A tied matrix has one name, that of its first owner.
        names = {id(parameter): name for name, parameter in self.named_parameters()}
        embeddings = [names[id(table.weight)] for table in (self.source_embedding, self.target_embedding)]
        return {
            "default": _without_output(encoder_self),
            "encoder_self_attention_qkv": _without_output(encoder_self),
            "encoder_self_attention": encoder_self,
            "decoder_self_attention": decoder_self,
            "cross_attention": cross,
            "attention_qkv": _without_output(attention),
            "attention": attention,
            "feed_forward": feed_forward,
            "everything": attention + feed_forward,
            "embedding": list(dict.fromkeys(embeddings)),
            "vocabulary": [names[id(self.vocabulary.weight)]],
        }

    @classmethod
    def widths(cls, settings: dict[str, Any]) -> list[dict[str, Any]]:
        """Settings with every smaller d_model that the heads divide, and d_inner in proportion."""
        size, inner = settings.get("d_model", _DEFAULT_SIZE), settings.get("d_inner", _DEFAULT_INNER)
        heads = settings.get("heads", _DEFAULT_HEADS)
        return [
            {"d_model": width, "d_inner": max(1, round(inner * width / size))}
            for width in range(heads, size + 1, heads)
        ]


class _Stepper:
    """The decoder, one position at a time. It caches keys and values of the source and of earlier positions."""

    def __init__(self, model: Transformer, source: Tensor, source_mask: Tensor, longest: int) -> None:
        self._model = model
        self._padding = model.hide_padding(source_mask)
        memory = lowered(model.encode(source, source_mask, self._padding))
        self._layers = [layer for layer in model.decoder if isinstance(layer, DecoderLayer)]
        self._memories = [layer.cross_attention.keys_values(memory) for layer in self._layers]
        self._pasts = [Past(longest) for _ in self._layers]
        self._positions = sinusoids(longest, model.size, source.device)
        self._read = 0

    def __call__(self, tokens: Tensor) -> Tensor:
        model, position = self._model, self._positions[self._read : self._read + 1]
        x = model.target_dropout(model._embed(model.target_embedding, tokens[:, None], position))
        for layer, memory, past in zip(self._layers, self._memories, self._pasts, strict=True):
            x = layer(x, memory, self._padding, past=past)
        self._read += 1
        return model._predict(x[:, 0])

    def reorder(self, rows: Tensor) -> None:
        for past in self._pasts:
            past.reorder(rows)


def _embedding(vocabulary: int, size: int) -> nn.Embedding:
    embedding = nn.Embedding(vocabulary, size)
    nn.init.uniform_(embedding.weight, -_EMBEDDING_RANGE, _EMBEDDING_RANGE)
    return embedding


def _frequencies(sizes: TranslationSizes, shared: bool) -> dict[str, tuple[int, ...]]:
    """Counts of the tokens by the name of their embedding, as far as they are known; summed for a shared embedding."""
    source, target = sizes.source_frequencies, sizes.target_frequencies
    if shared:
        source, target = tuple(map(sum, zip(source, target, strict=True))), ()
    given = {"source_embedding.weight": source, "target_embedding.weight": target}
    return {name: counts for name, counts in given.items() if counts}


def _attention(blocks: list[str]) -> list[str]:
    """Names of the weight matrices of these attention blocks."""
    return [f"{block}.{name}.weight" for block in blocks for name in ("query", "key", "value", "output")]


def _without_output(names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".output.weight")]
