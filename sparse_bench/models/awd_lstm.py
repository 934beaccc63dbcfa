"""AWD-LSTM, the regularised LSTM language model of Merity et al. 2018 (ICLR), as Demeester et al. 2018 use it.

Where the paper leaves a choice, this follows the released code.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.batch.language import HiddenState, LanguageOutput, LanguageSizes
from sparse_bench.limits import Few, NotNegative, Rate, Width, checked
from sparse_bench.models.base import Model
from sparse_bench.models.recurrent_dropout import LockedDropout, WeightDrop, WordDropout

_DEFAULT_HIDDEN = 1150
_INITIAL_RANGE = 0.1


class AWDLSTM(Model):
    """Embedding → LSTM layers E→H→…→H→E → decoder that shares the embedding's weights.

    Args:
        sizes: size and word frequencies of the vocabulary.
        embedding_dim: E, width of the embedding and of the last layer.
        hidden: H, width of the other layers.
        layers: number of LSTM layers.
        dropout: locked dropout of the last layer's output.
        dropout_hidden: locked dropout of the other layers' outputs.
        dropout_input: locked dropout of the embedded words.
        dropout_words: dropout of whole words of the embedding.
        weight_drop: dropout of the recurrent weights.
        activation_penalty: α of α · mean(h²), h the last layer's output after dropout.
        temporal_penalty: β of β · mean((h(t+1) − h(t))²), h the last layer's output before dropout.

    Raises:
        ConfigError: a setting outside its range.
    """

    tasks: ClassVar[tuple[str, ...]] = ("language_modelling",)
    groups: ClassVar[tuple[str, ...]] = ("default", "recurrent", "recurrent_hidden", "recurrent_input", "embedding")
    multiplied: ClassVar[tuple[str, ...]] = ("embedding",)

    @checked
    def __init__(
        self,
        sizes: LanguageSizes,
        *,
        embedding_dim: Width = 400,
        hidden: Width = _DEFAULT_HIDDEN,
        layers: Few = 3,
        dropout: Rate = 0.4,
        dropout_hidden: Rate = 0.25,
        dropout_input: Rate = 0.4,
        dropout_words: Rate = 0.1,
        weight_drop: Rate = 0.5,
        activation_penalty: NotNegative = 2.0,
        temporal_penalty: NotNegative = 1.0,
    ) -> None:
        super().__init__()
        self.vocabulary = sizes.vocabulary
        #: Count of every word in the training data, by its number.
        self.word_frequencies = sizes.frequencies
        self.activation_penalty, self.temporal_penalty = activation_penalty, temporal_penalty
        self.embedding = nn.Embedding(sizes.vocabulary, embedding_dim)
        nn.init.uniform_(self.embedding.weight, -_INITIAL_RANGE, _INITIAL_RANGE)
        self.decoder_bias = nn.Parameter(torch.zeros(sizes.vocabulary))
        widths = [embedding_dim, *[hidden] * (layers - 1), embedding_dim]
        self.layers = nn.ModuleList(nn.LSTM(before, after) for before, after in pairwise(widths))
        self.word_dropout = WordDropout(dropout_words)
        self.input_dropout = LockedDropout(dropout_input)
        self.hidden_dropout = LockedDropout(dropout_hidden)
        self.output_dropout = LockedDropout(dropout)
        self.weight_drop = WeightDrop(weight_drop)

    def forward(self, inputs: Tensor, state: HiddenState | None) -> LanguageOutput:
        """Scores of the words that follow ``inputs`` [T, B]. ``state`` None means a zero state."""
        embedded = self.word_dropout(self.embedding(inputs), inputs, self.vocabulary)
        dropped = raw = self.input_dropout(embedded)
        states: list[tuple[Tensor, ...]] = []
        for number, layer in enumerate(self.layers):
            raw, carried = self.weight_drop(layer, dropped, None if state is None else state[number])
            states.append(carried)
            last = number == len(self.layers) - 1
            dropped = self.output_dropout(raw) if last else self.hidden_dropout(raw)
        return LanguageOutput(
            logits=F.linear(dropped, self._decoder_weight(), self.decoder_bias),
            penalties=self._penalties(raw, dropped) if self.training else {},
            state=tuple(states),
        )

    def _penalties(self, raw: Tensor, dropped: Tensor) -> dict[str, Tensor]:
        """Activation regularisation and temporal activation regularisation (Merity et al. 2018, section 4.6)."""
        penalties = {}
        if self.activation_penalty:
            penalties["activation"] = self.activation_penalty * dropped.pow(2).mean()
        if self.temporal_penalty and raw.shape[0] > 1:
            penalties["temporal"] = self.temporal_penalty * (raw[1:] - raw[:-1]).pow(2).mean()
        return penalties

    def _decoder_weight(self) -> Tensor:
        """The embedding's matrix [vocabulary, E]. An embedding stored otherwise has a method for its matrix."""
        dense_weight = getattr(self.embedding, "dense_weight", None)
        weight = self.embedding.weight if dense_weight is None else dense_weight()
        assert isinstance(weight, Tensor)
        return weight

    def layer_groups(self) -> dict[str, list[str]]:
        hidden = [f"layers.{number}.weight_hh_l0" for number in range(len(self.layers))]
        inputs = [f"layers.{number}.weight_ih_l0" for number in range(len(self.layers))]
        return {
            "default": inputs + hidden,
            "recurrent": inputs + hidden,
            "recurrent_hidden": hidden,
            "recurrent_input": inputs,
            "embedding": ["embedding.weight"],
        }

    @classmethod
    def widths(cls, settings: dict[str, Any]) -> list[dict[str, Any]]:
        """Settings with fewer units in the inner layers. The embedding keeps its width."""
        return [{"hidden": width} for width in range(1, settings.get("hidden", _DEFAULT_HIDDEN) + 1)]
