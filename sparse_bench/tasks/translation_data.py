"""From a parallel corpus to padded batches: words, subwords, numbers, and the arrays that batches are gathered from."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
import torch

from sparse_bench.batch.translation import BOS, EOS, PAD, UNK, TranslationBatch, TranslationSizes
from sparse_bench.data.moses import Words, words_of
from sparse_bench.data.parallel import ParallelCorpus
from sparse_bench.data.subwords import Subwords, train_subwords
from sparse_bench.data.translation_vocabulary import build_vocabulary, decode, encode

Learned = TypeVar("Learned")
#: Tokens of the source and of the target sentences of a split.
_Both = tuple[list[list[str]], list[list[str]]]


@dataclass(frozen=True)
class Sentences:
    """Token numbers of many sentences, one behind the other, each between BOS and EOS.

    Attributes:
        tokens: all numbers [positions], int64.
        starts: where each sentence's BOS stands [sentences], int64.
        lengths: positions of each sentence, BOS and EOS included [sentences], int64.
    """

    tokens: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, sentences: Sequence[np.ndarray]) -> Self:
        """From the numbers of each sentence, without BOS and EOS."""
        lengths = np.array([len(numbers) + 2 for numbers in sentences], dtype=np.int64)
        starts = np.cumsum(lengths) - lengths
        tokens = np.empty(int(lengths.sum()), dtype=np.int64)
        inside = np.ones(len(tokens), dtype=bool)
        inside[starts] = inside[starts + lengths - 1] = False
        tokens[starts], tokens[starts + lengths - 1] = BOS, EOS
        tokens[inside] = np.concatenate(sentences)
        return cls(tokens, starts, lengths)

    def grid(self, rows: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the first ``lengths`` positions of the sentences ``rows`` stand in ``tokens``, side by side.

        Returns:
            Indices and whether a cell is real, both [rows, longest]; cells that are not point at the sentence's BOS.
        """
        column = np.arange(int(lengths.max()))
        mask = column < lengths[:, None]
        return self.starts[rows][:, None] + np.where(mask, column, 0), mask


@dataclass(frozen=True)
class PairArrays:
    """All sentence pairs of a split, encoded once; a batch is gathered from them without a loop over sentences."""

    source: Sentences
    target: Sentences

    def __len__(self) -> int:
        return len(self.source.lengths)

    @property
    def target_lengths(self) -> np.ndarray:
        """Positions that a decoder has to say for each pair: its tokens and EOS [pairs]."""
        return self.target.lengths - 1

    @property
    def unknown_tokens(self) -> float:
        """The share of UNK among the tokens of a side, BOS and EOS aside; of the side that has more of it."""
        return max(float((side.tokens == UNK).sum() / (side.lengths - 2).sum()) for side in (self.source, self.target))

    def batch(self, pairs: np.ndarray) -> TranslationBatch:
        """The pairs with these numbers, in this order, padded."""
        source_cells, source_mask = self.source.grid(pairs, self.source.lengths[pairs])
        lengths = self.target_lengths[pairs]
        target_cells, target_mask = self.target.grid(pairs, lengths)
        rows = np.flatnonzero(target_mask)
        return TranslationBatch(
            source=torch.from_numpy(np.where(source_mask, self.source.tokens[source_cells], PAD)),
            source_mask=torch.from_numpy(source_mask),
            target_input=torch.from_numpy(np.where(target_mask, self.target.tokens[target_cells], PAD)),
            target_output=torch.from_numpy(self.target.tokens[target_cells.ravel()[rows] + 1]),
            target_rows=torch.from_numpy(rows),
            target_sentence=torch.from_numpy(np.repeat(np.arange(len(pairs)), lengths)),
            target_lengths=torch.from_numpy(lengths),
        )


@dataclass(frozen=True)
class Side:
    """One language: lines ↔ words ↔ tokens ↔ numbers. Tokens are words, or pieces of them where there are subwords."""

    words: Words
    subwords: Subwords | None
    vocabulary: Any

    def translation(self, numbers: np.ndarray) -> list[str]:
        """The words that a model's output [longest] stands for."""
        tokens = decode(numbers, self.vocabulary)
        return self.subwords.join(tokens) if self.subwords else tokens


@dataclass(frozen=True)
class EncodedCorpus:
    """A corpus as numbers, and what they mean.

    Attributes:
        train, valid, test: the pairs.
        source, target: the two languages; they share subwords and vocabulary where these are joint.
        test_words: target words of each test sentence.
    """

    train: PairArrays
    valid: PairArrays
    test: PairArrays
    source: Side
    target: Side
    test_words: list[list[str]]

    @property
    def sizes(self) -> TranslationSizes:
        """What a model is built from."""
        sentences = [side for split in (self.train, self.valid, self.test) for side in (split.source, split.target)]
        return TranslationSizes(
            source_vocabulary=len(self.source.vocabulary),
            target_vocabulary=len(self.target.vocabulary),
            longest=max(int(side.lengths.max()) for side in sentences),
        )


def encode_corpus(
    corpus: ParallelCorpus, tokenizer: str, bpe: int | None, min_count: int, joint: bool
) -> EncodedCorpus:
    """Words, subwords and numbers of a whole corpus; what is learned is learned from the training pairs alone.

    Args:
        corpus: the text.
        tokenizer: how lines become words (:func:`sparse_bench.data.moses.words_of`).
        bpe: number of byte-pair-encoding pieces of a language, of both together where ``joint``; None: words.
        min_count: how often a token has to occur in the training data to be known.
        joint: one vocabulary, and one byte-pair encoding, for both languages.
    """
    splits = {"train": corpus.train, "valid": corpus.valid, "test": corpus.test}
    words = tuple(words_of(tokenizer, language) for language in corpus.languages)
    tokens: dict[str, _Both] = {
        name: ([words[0].split(line) for line in text.source], [words[1].split(line) for line in text.target])
        for name, text in splits.items()
    }
    test_words = tokens["test"][1]
    subwords: tuple[Subwords | None, Subwords | None] = None, None
    if bpe is not None:
        pieces = _learn(tokens["train"], joint, lambda sentences: train_subwords(sentences, bpe))
        tokens = {name: (pieces[0].split(both[0]), pieces[1].split(both[1])) for name, both in tokens.items()}
        subwords = pieces
    vocabularies = _learn(tokens["train"], joint, lambda sentences: build_vocabulary(sentences, min_count))
    arrays = {
        name: PairArrays(*(Sentences.of(encode(side, known)) for side, known in zip(both, vocabularies, strict=True)))
        for name, both in tokens.items()
    }
    return EncodedCorpus(
        **arrays,
        source=Side(words[0], subwords[0], vocabularies[0]),
        target=Side(words[1], subwords[1], vocabularies[1]),
        test_words=test_words,
    )


def _learn(both: _Both, joint: bool, learn: Callable[[Iterable[Sequence[str]]], Learned]) -> tuple[Learned, Learned]:
    """What is learned from each side, or from both together."""
    if joint:
        learned = learn([*both[0], *both[1]])
        return learned, learned
    return learn(both[0]), learn(both[1])
