"""What a translation model is built from and trained on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparse_bench.batch.base import Batch

#: Special tokens of every translation vocabulary, on both sides.
PAD, UNK, BOS, EOS = 0, 1, 2, 3


@dataclass
class TranslationBatch(Batch):
    """B sentence pairs, padded to the longest of the batch; sentences of like length share a batch.

    Attributes:
        source: token numbers [B, S], int64; BOS and EOS included, PAD behind them.
        source_mask: True at real source positions [B, S].
        target_input: what the decoder reads [B, T], int64: BOS and the tokens.
        target_output: what it has to say, real positions alone, sentence after sentence [N], int64: tokens and EOS.
        target_rows: flat position (b · T + t) of each of them [N], int64.
        target_sentence: the sentence b of each of them [N], int64.
        target_lengths: real target positions of each sentence [B], int64.
    """

    source: Tensor
    source_mask: Tensor
    target_input: Tensor
    target_output: Tensor
    target_rows: Tensor
    target_sentence: Tensor
    target_lengths: Tensor


@dataclass(frozen=True)
class TranslationSizes:
    """What a translation model must know of its data before it is built.

    Attributes:
        source_vocabulary: tokens of the source language, specials included.
        target_vocabulary: tokens of the target language, specials included.
        longest: most positions of a sentence, on either side, specials included.
    """

    source_vocabulary: int
    target_vocabulary: int
    longest: int
