"""Batches, sizes and output of language models."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparse_bench.batch.base import Batch

#: The target at padding after a shorter sentence: the number that torch's cross-entropy ignores by default.
IGNORED = -100

#: The state that a recurrent model carries from one batch to the next: for each layer, the tensors that it returns.
HiddenState = tuple[tuple[Tensor, ...], ...]


@dataclass
class LanguageBatch(Batch):
    """T consecutive tokens of B text streams and their successors.

    Attributes:
        inputs: token numbers [T, B], int64.
        targets: the token after each of them [T, B], int64; :data:`IGNORED` where there is none.
        tokens: number of targets that are tokens (host integer).
        learning_rate_factor: drawn length / nominal length if the task rescales the learning rate, else 1 (host
            number).
        weight: ``tokens`` divided by their mean over the epoch's batches (host number). With this weight, the average
            of the batches' means is the mean over the epoch's tokens.
        starts: whether the streams begin here, with a hidden state of zero (host boolean).
    """

    inputs: Tensor
    targets: Tensor
    tokens: int
    learning_rate_factor: float = 1.0
    weight: float = 1.0
    starts: bool = False


@dataclass(frozen=True)
class LanguageSizes:
    """The sizes of the data from which a language model is built.

    Attributes:
        vocabulary: number of word types.
        frequencies: count of every word type in the training data, in the order of their numbers.
    """

    vocabulary: int
    frequencies: tuple[int, ...]


@dataclass
class LanguageOutput:
    """Output of a language model for T tokens of B streams.

    Attributes:
        logits: scores of the next token [T, B, vocabulary].
        penalties: named scalars to add to the loss; none outside training.
        state: the hidden state after these tokens, from which the same streams continue.
    """

    logits: Tensor
    penalties: dict[str, Tensor]
    state: HiddenState
