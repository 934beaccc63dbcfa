"""DIET, the dual intent and entity transformer (Bunk et al. 2020), as in "Why Rasa uses Sparse Layers in Transformers".

Where the post gives no detail, this follows the released Rasa 2.6. Rasa's optional masked-token loss, which is off by
default, is left out.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.batch import IntentBatch, IntentSizes, SparseRows
from sparse_bench.limits import Few, NotNegative, Rate, Width, checked
from sparse_bench.models.base import Model
from sparse_bench.models.crf import crf_loss, viterbi
from sparse_bench.models.dropout import Dropout
from sparse_bench.models.layers import dense
from sparse_bench.models.packing import take
from sparse_bench.models.rasa_transformer import TransformerEncoder
from sparse_bench.models.regularization import Penalty, call
from sparse_bench.models.similarity import draw_negatives, similarity_loss
from sparse_bench.models.sparse_features import SparseProjection

_DEFAULT_SIZE = 256
_DEFAULT_HEADS = 4


class DIET(Model):
    """Sparse features of tokens and sentence → transformer → the message's intent and its tokens' tags.

    The sentence's vector is the last position of the sequence (CLS) and takes part in attention. The dot product of its
    encoding with each embedded intent name gives the intent's score. A CRF tags the tokens.

    Args:
        sizes: widths of the features, and the features of the intents' names.
        transformer_size: U, width of the transformer; a multiple of ``heads``.
        layers: encoder layers.
        heads: attention heads.
        dense_dim: width of the projected token and sentence features.
        label_dim: width of the projected features of intent names.
        embedding_dim: width of the space in which messages and intents are compared.
        dropout: dropout of projected features and inside the encoder.
        sparse_dropout: share of the stored values of sparse features dropped; the others are not rescaled.
        attention_dropout: share of attention logits dropped.
        negatives: number of labels, and number of inputs, sampled as negatives for each example.
        constrain_similarities: see :func:`similarity_loss`.
        regularization: λ of the penalty λ Σ w² on all weight matrices except those of attention and feed-forward
            blocks.
        regularize_rising_only: apply the penalty only where the gradient of the other losses is above 0, as the
            released code does by mistake. See :class:`Penalty`.
        entities: whether to tag tokens. With fewer than two tags, nothing is tagged.

    Raises:
        ConfigError: a setting outside its range.
    """

    tasks: ClassVar[tuple[str, ...]] = ("intent",)
    groups: ClassVar[tuple[str, ...]] = (
        "default",
        "encoder_input",
        "attention_qkv",
        "attention_output",
        "attention",
        "feed_forward",
        "feature_projections",
        "embedding",
        "embeds",
        "transitions",
    )
    multiplied: ClassVar[tuple[str, ...]] = ("embedding",)

    intent_indices: Tensor
    intent_offsets: Tensor
    intent_values: Tensor

    @checked
    def __init__(
        self,
        sizes: IntentSizes,
        *,
        transformer_size: Width = _DEFAULT_SIZE,
        layers: Few = 2,
        heads: Few = _DEFAULT_HEADS,
        dense_dim: Width = 128,
        label_dim: Width = 20,
        embedding_dim: Width = 20,
        dropout: Rate = 0.2,
        sparse_dropout: Rate = 0.2,
        attention_dropout: Rate = 0.0,
        negatives: Width = 20,
        constrain_similarities: bool = False,
        regularization: NotNegative = 0.002,
        regularize_rising_only: bool = False,
        entities: bool = True,
    ) -> None:
        super().__init__()
        self.negatives = negatives
        self.constrain_similarities = constrain_similarities
        #: Occurrences of every feature in the training data, by the name of the features' projection.
        self.word_frequencies = {f"{part}_projection.weight": counts for part, counts in sizes.frequencies.items()}
        self.regularization = regularization
        self.regularize_rising_only = regularize_rising_only

        self.token_projection = SparseProjection(sizes.token_features, dense_dim, sparse_dropout)
        self.sentence_projection = SparseProjection(sizes.sentence_features, dense_dim, sparse_dropout)
        self.input_dropout = Dropout(dropout)
        self.encoder = TransformerEncoder(
            dense_dim,
            transformer_size,
            layers=layers,
            heads=heads,
            dropout=dropout,
            attention_dropout=attention_dropout,
        )
        self.text_embed = dense(transformer_size, embedding_dim)
        self.label_projection = SparseProjection(sizes.intent_features, label_dim)
        self.label_embed = dense(label_dim, embedding_dim)
        self.tag_embed: nn.Linear | None = None
        if entities and sizes.tags > 1:
            self.tag_embed = dense(transformer_size, sizes.tags)
            self.transitions = nn.Parameter(torch.empty(sizes.tags, sizes.tags))
            nn.init.xavier_uniform_(self.transitions)

        # These features belong to the data, not to the model's state. They go to the weights' device, perhaps meta.
        intents = sizes.intents.to(self.label_projection.weight.device)
        for part in ("indices", "offsets", "values"):
            self.register_buffer(f"intent_{part}", getattr(intents, part), persistent=False)

    @property
    def intents(self) -> SparseRows:
        """Features of the intents' names, on the model's device."""
        return SparseRows(self.intent_indices, self.intent_offsets, self.intent_values)

    def forward(self, batch: IntentBatch) -> dict[str, Tensor]:
        """The losses to add up, as scalars: ``intent``, ``entity`` (if tokens are tagged), and ``l2``."""
        penalty = Penalty(self.regularize_rising_only)
        messages, encoded = self._encode(batch, penalty)
        intents = self._embed_intents(penalty)
        losses = {
            "intent": similarity_loss(
                messages,
                intents,
                batch.intents,
                draw_negatives(messages.shape[0], self.negatives, intents.shape[0], messages.device),
                draw_negatives(messages.shape[0], self.negatives, messages.shape[0], messages.device),
                constrain_similarities=self.constrain_similarities,
            )
        }
        if self.tag_embed is not None:
            emissions = take(penalty.call(self.tag_embed, encoded), batch.token_rows)
            losses["entity"] = crf_loss(emissions, penalty.weight(self.transitions), batch.tags, batch.token_layout)
        losses["l2"] = self.regularization * penalty.sum()
        return losses

    @torch.no_grad()
    def predict(self, batch: IntentBatch) -> tuple[Tensor, Tensor]:
        """Similarity of each message to each intent [B, C], and the best tag of each token [N] (0 without tagging).

        The tags are the CRF's best sequence. It may be invalid, because no transition is forbidden.
        """
        messages, encoded = self._encode(batch)
        scores = messages @ self._embed_intents().t()
        if self.tag_embed is None:
            return scores, torch.zeros_like(batch.token_rows)
        emissions = self.tag_embed(encoded).index_select(0, batch.token_rows)
        return scores, viterbi(emissions, self.transitions, batch.token_layout)

    def _encode(self, batch: IntentBatch, penalty: Penalty | None = None) -> tuple[Tensor, Tensor]:
        """Embedded messages [B, embedding_dim], and the encodings of all positions [M, U]."""
        projected = torch.cat(
            [self.token_projection(batch.tokens, penalty), self.sentence_projection(batch.sentences, penalty)]
        )
        rows = torch.cat([batch.token_rows, batch.sentence_rows])
        packed = torch.empty_like(projected).index_copy(0, rows, self.input_dropout(projected))
        encoded = F.gelu(call(penalty, self.encoder, packed, batch.layout, name="input.weight"))
        return call(penalty, self.text_embed, take(encoded, batch.sentence_rows)), encoded

    def _embed_intents(self, penalty: Penalty | None = None) -> Tensor:
        """Embedded names of all intents [C, embedding_dim]. No dropout."""
        return call(penalty, self.label_embed, self.label_projection(self.intents, penalty))

    def layer_groups(self) -> dict[str, list[str]]:
        encoder = self.encoder.layer_groups("encoder.")
        embeds = ["text_embed.weight", "label_embed.weight"]
        projections = [f"{part}_projection.weight" for part in ("token", "sentence", "label")]
        tagging = self.tag_embed is not None
        return {
            "default": encoder["encoder_input"] + encoder["attention"] + encoder["feed_forward"],
            **encoder,
            "feature_projections": projections,
            "embedding": projections,  # a vector for each feature
            "embeds": [*embeds, "tag_embed.weight"] if tagging else embeds,
            "transitions": ["transitions"] if tagging else [],
        }

    @classmethod
    def widths(cls, settings: dict[str, Any]) -> list[dict[str, Any]]:
        size, heads = settings.get("transformer_size", _DEFAULT_SIZE), settings.get("heads", _DEFAULT_HEADS)
        return [{"transformer_size": width} for width in range(heads, size + 1, heads)]
