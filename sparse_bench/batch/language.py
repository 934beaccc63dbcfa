"""What a language model is built from and trained on, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparse_bench.batch.base import Batch

#: A target that is no token: padding behind a shorter sentence. The number that torch's cross-entropy leaves out.
IGNORED = -100

#: What a recurrent model carries from one batch to the next: for each layer its tensors, as the layer gives them.
HiddenState = tuple[tuple[Tensor, ...], ...]


@dataclass
class LanguageBatch(Batch):
    """T consecutive tokens of B text streams and their successors.

    Attributes:
        inputs: token numbers [T, B], int64.
        targets: the token after each of them [T, B], int64; :data:`IGNORED` where there is none.
        tokens: targets that are tokens (host integer).
        learning_rate_factor: length drawn over the nominal length, where the task rescales the rate (host number).
        weight: ``tokens`` over their mean in the epoch's batches (host number); a batch's mean times this, averaged
            over the batches, is the mean over the epoch's tokens.
        starts: whether the streams begin here: the hidden state is zero (host boolean).
    """

    inputs: Tensor
    targets: Tensor
    tokens: int
    learning_rate_factor: float = 1.0
    weight: float = 1.0
    starts: bool = False


@dataclass(frozen=True)
class LanguageSizes:
    """What a language model must know of its data before it is built.

    Attributes:
        vocabulary: number of word types.
        frequencies: count of every word type in the training data, in the order of their numbers.
    """

    vocabulary: int
    frequencies: tuple[int, ...]


@dataclass
class LanguageOutput:
    """What a language model says about T tokens of B streams.

    Attributes:
        logits: scores of the next token [T, B, vocabulary].
        penalties: named scalars that are added to the loss; none outside training.
        state: what the next T tokens of the same streams go on from.
    """

    logits: Tensor
    penalties: dict[str, Tensor]
    state: HiddenState
