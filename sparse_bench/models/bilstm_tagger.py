"""The part-of-speech tagger of Demeester et al. 2018, "Predefined Sparseness in Recurrent Sequence Models".

Where the paper leaves a choice, this follows the released code.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.batch.base import Layout
from sparse_bench.batch.tagging import TaggingBatch, TaggingSizes
from sparse_bench.limits import Rate, Width, checked
from sparse_bench.models.base import Model
from sparse_bench.models.dropout import Dropout
from sparse_bench.models.packing import spread, take
from sparse_bench.models.recurrent_dropout import LockedDropout, WeightDrop, WordDropout

_DEFAULT_DIM = 20
_INITIAL_RANGE = 0.1


class BiLSTMTagger(Model):
    """Embedding → LSTM in both directions → linear, tanh → linear. It gives a tag for each word.

    Args:
        sizes: sizes of the vocabulary and of the tag set.
        embedding_dim: width of the embedding.
        hidden: width of the LSTM in each direction, and of the layer after it.
        dropout_input: locked dropout of the embedded words, one mask per sentence.
        dropout_words: dropout of whole words of the embedding.
        dropout_hidden: dropout of the LSTM's outputs and of the layer after it.
        weight_drop: dropout of the recurrent weights of the forward direction. As in the released code, the backward
            direction has none.

    Raises:
        ConfigError: a setting outside its range.
    """

    tasks: ClassVar[tuple[str, ...]] = ("tagging",)
    groups: ClassVar[tuple[str, ...]] = ("default", "embedding", "recurrent", "intermediate", "output")

    @checked
    def __init__(
        self,
        sizes: TaggingSizes,
        *,
        embedding_dim: Width = _DEFAULT_DIM,
        hidden: Width = 10,
        dropout_input: Rate = 0.0,
        dropout_words: Rate = 0.0,
        dropout_hidden: Rate = 0.0,
        weight_drop: Rate = 0.0,
    ) -> None:
        super().__init__()
        #: Occurrences of every word in the training data.
        self.word_frequencies = sizes.frequencies
        self.vocabulary = sizes.vocabulary
        self.embedding = nn.Embedding(sizes.vocabulary, embedding_dim)
        nn.init.uniform_(self.embedding.weight, -_INITIAL_RANGE, _INITIAL_RANGE)
        # Two LSTMs of one direction compute the same as one with two directions. On a CPU they are several times as
        # fast for sentences of different lengths, because torch has no fused kernel for packed sequences.
        self.forward_lstm = nn.LSTM(embedding_dim, hidden)
        self.backward_lstm = nn.LSTM(embedding_dim, hidden)
        self.intermediate = nn.Linear(2 * hidden, hidden)
        self.output = nn.Linear(hidden, sizes.tags)
        self.word_dropout = WordDropout(dropout_words)
        self.input_dropout = LockedDropout(dropout_input)
        self.hidden_dropout = Dropout(dropout_hidden)
        self.weight_drop = WeightDrop(weight_drop)

    def forward(self, batch: TaggingBatch) -> dict[str, Tensor]:
        """``cross_entropy``: mean over the tokens."""
        return {"cross_entropy": F.cross_entropy(self.scores(batch), batch.tags)}

    @torch.no_grad()
    def predict(self, batch: TaggingBatch) -> Tensor:
        """The best tag of each token [N]."""
        return self.scores(batch).argmax(dim=1)

    def scores(self, batch: TaggingBatch) -> Tensor:
        """Scores of the tags of each token [N, tags]."""
        layout = batch.layout
        sentences, longest = layout.mask.shape
        sentence = layout.cell.div(longest, rounding_mode="floor")
        embedded = self.word_dropout(self.embedding(batch.words), batch.words, self.vocabulary)
        # In both directions every sentence starts at the first time step. So padding comes only after a sentence, and
        # the LSTM's output there is never read.
        ahead = layout.position * sentences + sentence
        behind = (layout.lengths[sentence] - 1 - layout.position) * sentences + sentence
        x = self._on_grid(embedded, ahead, layout)
        locked = self.input_dropout(torch.ones_like(x[:1]))  # one mask for both directions
        forth, _ = self.weight_drop(self.forward_lstm, x * locked, None)
        back, _ = self.backward_lstm(self._on_grid(embedded, behind, layout) * locked)
        encoded = torch.cat([take(forth.flatten(0, 1), ahead), take(back.flatten(0, 1), behind)], dim=1)
        hidden = torch.tanh(self.intermediate(self.hidden_dropout(encoded)))
        scores: Tensor = self.output(self.hidden_dropout(hidden))
        return scores

    @staticmethod
    def _on_grid(x: Tensor, cells: Tensor, layout: Layout) -> Tensor:
        """Place rows [N, D] at their ``cells`` of the time-major grid [S, B, D]. Padding cells hold arbitrary rows."""
        sentences, longest = layout.mask.shape
        source = torch.zeros(sentences * longest, dtype=torch.int64, device=x.device)
        source = source.index_copy(0, cells, torch.arange(x.shape[0], device=x.device))
        return spread(x, source, cells).view(longest, sentences, -1)

    def layer_groups(self) -> dict[str, list[str]]:
        lstms = ("forward_lstm", "backward_lstm")
        return {
            "default": ["embedding.weight"],
            "embedding": ["embedding.weight"],
            "recurrent": [f"{lstm}.{weight}" for lstm in lstms for weight in ("weight_ih_l0", "weight_hh_l0")],
            "intermediate": ["intermediate.weight"],
            "output": ["output.weight"],
        }

    def recurrent_stacks(self) -> list[list[str]]:
        """Two stacks of one layer, since the two directions are parallel."""
        return [["forward_lstm"], ["backward_lstm"]]

    @classmethod
    def widths(cls, settings: dict[str, Any]) -> list[dict[str, Any]]:
        """Settings with a narrower embedding. The layers after it keep their widths."""
        return [{"embedding_dim": dim} for dim in range(1, settings.get("embedding_dim", _DEFAULT_DIM) + 1)]
