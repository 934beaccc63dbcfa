"""The language model of SparseLang (Guo and Zhou 2018): an embedding, plain LSTM layers, and an output head."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from sparse_bench.batch.language import HiddenState, LanguageOutput, LanguageSizes
from sparse_bench.errors import ConfigError
from sparse_bench.limits import Few, Rate, Width, checked, one_of
from sparse_bench.models.base import Model
from sparse_bench.models.dropout import Dropout

HEADS = ("linear", "factored")
RECURRENCES = ("trained", "frozen", "none")
_DEFAULT_HIDDEN = 2500
#: Initial weights of embedding and head are uniform in ± this range; all biases are zero.
_INITIAL_RANGE = 0.04


class FactoredHead(nn.Module):
    """Linear layer on the row sums and column sums of the hidden state, which is seen as a square matrix.

    It has 2√H input features instead of H. The code of the SparseLang report uses it for the sparse models; the report
    does not mention it.

    Args:
        hidden: H, width of the hidden state; a square number.
        vocabulary: number of outputs.

    Raises:
        ConfigError: H is not a square number.
    """

    def __init__(self, hidden: int, vocabulary: int) -> None:
        super().__init__()
        self.side = math.isqrt(hidden)
        if self.side**2 != hidden:
            raise ConfigError(
                f"head=factored needs a square number of hidden units, not {hidden}. Nearest valid choices: "
                f"{self.side**2 or 1}, {(self.side + 1) ** 2}; or head=linear."
            )
        self.linear = nn.Linear(2 * self.side, vocabulary)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., H] → [..., vocabulary]."""
        square = hidden.unflatten(-1, (self.side, self.side))
        scores: Tensor = self.linear(torch.cat([square.sum(-1), square.sum(-2)], dim=-1))
        return scores


class LSTMLM(Model):
    """Embedding → LSTM layers → head.

    Args:
        sizes: size of the vocabulary.
        embedding_dim: width of the embedding.
        hidden: H, width of every LSTM layer.
        layers: number of LSTM layers.
        head: ``linear``, or ``factored`` (see :class:`FactoredHead`).
        recurrence: ``trained``; ``frozen`` keeps the LSTM layers at their random initial weights; ``none`` leaves them
            out, so that the head reads only the embedded word. The last two are ablations of the LSTM.
        dropout: dropout of the inputs of every LSTM layer and of the head, not of the recurrent connections.

    Raises:
        ConfigError: a setting outside its range.
    """

    tasks: ClassVar[tuple[str, ...]] = ("language_modelling",)
    groups: ClassVar[tuple[str, ...]] = ("default", "recurrent", "embedding", "head")

    @checked
    def __init__(
        self,
        sizes: LanguageSizes,
        *,
        embedding_dim: Width = 600,
        hidden: Width = _DEFAULT_HIDDEN,
        layers: Few = 2,
        head: Annotated[str, one_of(*HEADS)] = "linear",
        recurrence: Annotated[str, one_of(*RECURRENCES)] = "trained",
        dropout: Rate = 0.0,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sizes.vocabulary, embedding_dim)
        self.dropout = Dropout(dropout)
        widths = [embedding_dim] if recurrence == "none" else [embedding_dim, *[hidden] * layers]
        self.layers = nn.ModuleList(nn.LSTM(narrow, wide) for narrow, wide in pairwise(widths))
        self.head: nn.Linear | FactoredHead
        if head == "linear":
            self.head = nn.Linear(widths[-1], sizes.vocabulary)
        else:
            self.head = FactoredHead(widths[-1], sizes.vocabulary)
        self._initialise()
        for name, parameter in self.layers.named_parameters():
            # The report's gates have one bias; the second of torch's two stays zero.
            parameter.requires_grad_(recurrence == "trained" and "bias_hh" not in name)

    def _initialise(self) -> None:
        """Uniform weights within ±0.04, in LSTM layers within ±√(3 / fan-in of a gate unit); biases zero."""
        for name, parameter in self.named_parameters():
            if "bias" in name:
                nn.init.zeros_(parameter)
            elif name.startswith("layers."):
                layer = self.get_submodule(name.rpartition(".")[0])
                assert isinstance(layer, nn.LSTM)
                limit = math.sqrt(3 / (layer.input_size + layer.hidden_size))
                nn.init.uniform_(parameter, -limit, limit)
            else:
                nn.init.uniform_(parameter, -_INITIAL_RANGE, _INITIAL_RANGE)

    def forward(self, inputs: Tensor, state: HiddenState | None) -> LanguageOutput:
        """Scores of the words that follow ``inputs`` [T, B]. ``state`` None means a zero state."""
        x = self.embedding(inputs)
        states: list[tuple[Tensor, ...]] = []
        for number, layer in enumerate(self.layers):
            x, carried = layer(self.dropout(x), None if state is None else state[number])
            states.append(carried)
        return LanguageOutput(logits=self.head(self.dropout(x)), penalties={}, state=tuple(states))

    def layer_groups(self) -> dict[str, list[str]]:
        recurrent = [f"layers.{n}.weight_{kind}_l0" for n in range(len(self.layers)) for kind in ("ih", "hh")]
        head = "head.weight" if isinstance(self.head, nn.Linear) else "head.linear.weight"
        return {"default": recurrent, "recurrent": recurrent, "embedding": ["embedding.weight"], "head": [head]}

    @classmethod
    def widths(cls, settings: dict[str, Any]) -> list[dict[str, Any]]:
        hidden = settings.get("hidden", _DEFAULT_HIDDEN)
        if settings.get("head") == "factored":
            return [{"hidden": side**2} for side in range(1, math.isqrt(hidden) + 1)]
        return [{"hidden": width} for width in range(1, hidden + 1)]
