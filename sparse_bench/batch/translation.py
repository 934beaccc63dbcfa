"""Batches and sizes for translation models."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparse_bench.batch.base import Batch

#: Special tokens of every translation vocabulary, on both sides.
PAD, UNK, BOS, EOS = 0, 1, 2, 3


@dataclass
class TranslationBatch(Batch):
    """B sentence pairs, padded to the longest of the batch.

    Attributes:
        source: token numbers [B, S], int64; BOS and EOS included, then PAD.
        source_mask: True at real source positions [B, S].
        target_input: the decoder's input [B, T], int64: BOS and the tokens.
        target_output: the decoder's targets at the N real positions, sentence after sentence [N], int64: the tokens
            and EOS.
        target_rows: flat position (b · T + t) of each target [N], int64.
        target_sentence: the sentence b of each target [N], int64.
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
    """The sizes of the data from which a translation model is built.

    Attributes:
        source_vocabulary: number of tokens of the source language, special tokens included.
        target_vocabulary: number of tokens of the target language, special tokens included.
        longest: number of positions of the longest sentence of either language, special tokens included.
        source_frequencies: count of every token of the source language in the training data, in the order of their
            numbers; empty if they were not counted.
        target_frequencies: the same of the target language.
    """

    source_vocabulary: int
    target_vocabulary: int
    longest: int
    source_frequencies: tuple[int, ...] = ()
    target_frequencies: tuple[int, ...] = ()
