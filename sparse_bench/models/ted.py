"""TED, the transformer embedding dialogue policy (Vlasov et al. 2019), as in "Why Rasa uses Sparse Layers in
Transformers".

Where the post gives no detail, this follows the released Rasa 2.6. Rasa's handling of texts (end-to-end stories,
entities) is left out.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.batch import Attribute, DialogueBatch, DialogueSizes
from sparse_bench.limits import Few, NotNegative, Rate, Width, checked
from sparse_bench.models.base import Model
from sparse_bench.models.dropout import Dropout
from sparse_bench.models.layers import dense
from sparse_bench.models.rasa_transformer import TransformerEncoder
from sparse_bench.models.regularization import Penalty, call
from sparse_bench.models.similarity import draw_negatives, similarity_loss

_DEFAULT_SIZE = 128
_DEFAULT_HEADS = 4
#: Attributes of turns whose projection is followed by an encoding layer.
_ENCODED = ("intent", "previous_action")


class EncodingLayer(nn.Module):
    """A dense layer, GELU, dropout."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.linear = dense(inputs, outputs)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, chosen: Tensor | None = None, penalty: Penalty | None = None) -> Tensor:
        """Encode ``x`` [n, inputs] → [n, outputs].

        With row numbers ``chosen`` [m], the result is these rows [m, outputs], each with its own dropout. The number n
        means a row of zeros.
        """
        encoded = F.gelu(call(penalty, self.linear, x))
        return self.dropout(encoded if chosen is None else look_up(encoded, chosen))


def look_up(table: Tensor, chosen: Tensor) -> Tensor:
    """Rows of a table [n, size] by their numbers ``chosen`` [m] → [m, size]. The number n gives exact zeros."""
    return F.embedding(chosen, torch.cat([table, table.new_zeros(1, table.shape[1])]))


class AttributeEncoder(nn.Module):
    """Encoder of one attribute of turns: features → dense layer → encoding layer, if there is one.

    Everything that depends only on the attribute's value is computed once per value, however many turns have it.
    Dropout is drawn for each turn.
    """

    values: Tensor

    def __init__(self, attribute: Attribute, dense_dim: int, encoding_dim: int | None, dropout: float) -> None:
        super().__init__()
        self.projection = dense(attribute.values.shape[1], dense_dim)
        self.encoding = None if encoding_dim is None else EncodingLayer(dense_dim, encoding_dim, dropout)
        self.size = dense_dim if encoding_dim is None else encoding_dim
        # These features belong to the data, not to the model's state. They go to the weights' device, perhaps meta.
        self.register_buffer("values", attribute.values.to(self.projection.weight.device), persistent=False)

    def forward(self, chosen: Tensor, penalty: Penalty | None = None) -> Tensor:
        """Encode the turns' values, numbered ``chosen`` [M] → [M, size]. Turns without a value get exact zeros."""
        projected = call(penalty, self.projection, self.values)
        if self.encoding is None:
            return look_up(projected, chosen)
        encoded: Tensor = self.encoding(projected, chosen, penalty)
        return encoded


class TED(Model):
    """The latest turns of a conversation → transformer → the assistant's next action.

    The encodings of a turn's attributes are concatenated, with zeros for missing attributes. The latest turn
    comes first, so the turn to be answered has position 0. The dot product of its encoding with each embedded action
    gives the action's score.

    Args:
        sizes: the attributes of turns, and the number of actions.
        transformer_size: U, width of the transformer; a multiple of ``heads``.
        layers: encoder layers.
        heads: attention heads.
        dense_dim: width of the projected attributes.
        encoding_dim: width of the encoded intents, previous actions, and actions to choose from.
        embedding_dim: width of the space in which conversations and actions are compared.
        dropout: dropout after encoding layers and inside the encoder.
        attention_dropout: share of attention logits dropped.
        negatives: number of actions, and number of conversations, sampled as negatives for each example.
        constrain_similarities: see :func:`similarity_loss`.
        scale_loss: give examples that are already learned less weight; see :func:`similarity_loss`.
        regularization: λ of the penalty λ Σ w² on all weight matrices except those of attention and feed-forward
            blocks.
        regularize_rising_only: apply the penalty only where the gradient of the other losses is above 0, as the
            released code does by mistake. See :class:`Penalty`.

    Raises:
        ConfigError: a setting outside its range.
    """

    tasks: ClassVar[tuple[str, ...]] = ("dialogue",)
    groups: ClassVar[tuple[str, ...]] = (
        "default",
        "transformer",
        "encoder_input",
        "attention_qkv",
        "attention_output",
        "attention",
        "feed_forward",
        "encoding_layers",
        "feature_projections",
        "embedding",
        "embeds",
    )
    multiplied: ClassVar[tuple[str, ...]] = ("embedding",)

    action_features: Tensor

    @checked
    def __init__(
        self,
        sizes: DialogueSizes,
        *,
        transformer_size: Width = _DEFAULT_SIZE,
        layers: Few = 1,
        heads: Few = _DEFAULT_HEADS,
        dense_dim: Width = 20,
        encoding_dim: Width = 50,
        embedding_dim: Width = 20,
        dropout: Rate = 0.1,
        attention_dropout: Rate = 0.0,
        negatives: Width = 20,
        constrain_similarities: bool = False,
        scale_loss: bool = True,
        regularization: NotNegative = 0.001,
        regularize_rising_only: bool = False,
    ) -> None:
        super().__init__()
        self.negatives = negatives
        self.constrain_similarities = constrain_similarities
        self.scale_loss = scale_loss
        #: Turns of the training data with every feature, by the name of the features' projection.
        self.word_frequencies = {
            f"attributes.{name}.projection.weight": attribute.frequencies
            for name, attribute in sizes.attributes.items()
            if attribute.frequencies
        }
        self.regularization = regularization
        self.regularize_rising_only = regularize_rising_only

        attributes = {
            name: AttributeEncoder(attribute, dense_dim, encoding_dim if name in _ENCODED else None, dropout)
            for name, attribute in sizes.attributes.items()
        }
        self.attributes = nn.ModuleDict(attributes)
        self.encoder = TransformerEncoder(
            sum(attribute.size for attribute in attributes.values()),
            transformer_size,
            layers=layers,
            heads=heads,
            dropout=dropout,
            attention_dropout=attention_dropout,
        )
        self.dialogue_embed = dense(transformer_size, embedding_dim)
        self.action_encoding = EncodingLayer(sizes.actions, encoding_dim, dropout)
        self.action_embed = dense(encoding_dim, embedding_dim)
        one_hot = torch.eye(sizes.actions, device=self.action_embed.weight.device)
        self.register_buffer("action_features", one_hot, persistent=False)

    def forward(self, batch: DialogueBatch) -> dict[str, Tensor]:
        """The losses to add up, as scalars: ``action`` and ``l2``."""
        penalty = Penalty(self.regularize_rising_only)
        dialogues = self._embed_dialogues(batch, penalty)
        actions = self._embed_actions(penalty)
        loss = similarity_loss(
            dialogues,
            actions,
            batch.actions,
            draw_negatives(dialogues.shape[0], self.negatives, actions.shape[0], dialogues.device),
            draw_negatives(dialogues.shape[0], self.negatives, dialogues.shape[0], dialogues.device),
            constrain_similarities=self.constrain_similarities,
            scale_loss=self.scale_loss,
        )
        return {"action": loss, "l2": self.regularization * penalty.sum()}

    @torch.no_grad()
    def predict(self, batch: DialogueBatch) -> Tensor:
        """Similarity of each conversation to each action [B, actions]."""
        return self._embed_dialogues(batch) @ self._embed_actions().t()

    def _embed_dialogues(self, batch: DialogueBatch, penalty: Penalty | None = None) -> Tensor:
        """Embedded conversations [B, embedding_dim]."""
        turns = torch.cat(
            [
                attribute(chosen, penalty)
                for attribute, chosen in zip(self.attributes.values(), batch.turns.unbind(1), strict=True)
            ],
            dim=1,
        )
        latest = F.gelu(call(penalty, self.encoder, turns, batch.layout, batch.latest_rows, name="input.weight"))
        return call(penalty, self.dialogue_embed, latest)

    def _embed_actions(self, penalty: Penalty | None = None) -> Tensor:
        """Embeddings of all actions [actions, embedding_dim]."""
        return call(penalty, self.action_embed, self.action_encoding(self.action_features, penalty=penalty))

    def layer_groups(self) -> dict[str, list[str]]:
        encoder = self.encoder.layer_groups("encoder.")
        transformer = encoder["encoder_input"] + encoder["attention"] + encoder["feed_forward"]
        projections = [f"attributes.{name}.projection.weight" for name in self.attributes]
        encoded = [f"attributes.{name}" for name in self.attributes if name in _ENCODED]
        encodings = [f"{name}.encoding.linear.weight" for name in encoded] + ["action_encoding.linear.weight"]
        return {
            "default": transformer + encodings,
            "transformer": transformer,
            **encoder,
            "encoding_layers": encodings,
            "feature_projections": projections,
            "embedding": projections,  # a vector for each feature
            "embeds": ["dialogue_embed.weight", "action_embed.weight"],
        }

    @classmethod
    def widths(cls, settings: dict[str, Any]) -> list[dict[str, Any]]:
        size, heads = settings.get("transformer_size", _DEFAULT_SIZE), settings.get("heads", _DEFAULT_HEADS)
        return [{"transformer_size": width} for width in range(heads, size + 1, heads)]
