"""Translation data: turn a parallel corpus into words, subwords and numbers, and gather padded batches from them."""

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
    """Token numbers of many sentences, one sentence after the other, each between BOS and EOS.

    Attributes:
        tokens: all numbers [positions], int64.
        starts: position of each sentence's BOS [sentences], int64.
        lengths: positions of each sentence, BOS and EOS included [sentences], int64.
    """

    tokens: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, sentences: Sequence[np.ndarray]) -> Self:
        """Join the token numbers of each sentence, without BOS and EOS."""
        lengths = np.array([len(numbers) + 2 for numbers in sentences], dtype=np.int64)
        starts = np.cumsum(lengths) - lengths
        tokens = np.empty(int(lengths.sum()), dtype=np.int64)
        inside = np.ones(len(tokens), dtype=bool)
        inside[starts] = inside[starts + lengths - 1] = False
        tokens[starts], tokens[starts + lengths - 1] = BOS, EOS
        tokens[inside] = np.concatenate(sentences)
        return cls(tokens, starts, lengths)

    def counts(self, vocabulary: int) -> tuple[int, ...]:
        """How often each number below ``vocabulary`` occurs [vocabulary]."""
        return tuple(np.bincount(self.tokens, minlength=vocabulary).tolist())

    def grid(self, rows: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices in ``tokens`` of the first ``lengths`` positions of the sentences ``rows``, as a padded grid.

        Returns:
            The indices, and whether a cell is real, both [rows, longest]. Padding cells hold the index of the
            sentence's BOS.
        """
        column = np.arange(int(lengths.max()))
        mask = column < lengths[:, None]
        return self.starts[rows][:, None] + np.where(mask, column, 0), mask


@dataclass(frozen=True)
class PairArrays:
    """The encoded sentence pairs of a split. Batches are gathered from them without a loop over sentences."""

    source: Sentences
    target: Sentences

    def __len__(self) -> int:
        return len(self.source.lengths)

    @property
    def target_lengths(self) -> np.ndarray:
        """Number of target positions of each pair: its tokens and EOS [pairs]."""
        return self.target.lengths - 1

    @property
    def unknown_tokens(self) -> float:
        """Share of UNK among the tokens, not counting BOS and EOS, on the side where it is larger."""
        return max(float((side.tokens == UNK).sum() / (side.lengths - 2).sum()) for side in (self.source, self.target))

    def batch(self, pairs: np.ndarray) -> TranslationBatch:
        """A padded batch of the pairs with these numbers, in this order."""
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
    """One language: lines ↔ words ↔ tokens ↔ numbers. Tokens are words, or pieces of words if there are subwords."""

    words: Words
    subwords: Subwords | None
    vocabulary: Any

    def translation(self, numbers: np.ndarray) -> list[str]:
        """The words of a model's output [longest]."""
        tokens = decode(numbers, self.vocabulary)
        return self.subwords.join(tokens) if self.subwords else tokens


@dataclass(frozen=True)
class EncodedCorpus:
    """A corpus as numbers, with the vocabularies to decode them.

    Attributes:
        train, valid, test: the pairs.
        source, target: the two languages. They share subwords and vocabulary if these are joint.
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
            source_frequencies=self.train.source.counts(len(self.source.vocabulary)),
            target_frequencies=self.train.target.counts(len(self.target.vocabulary)),
        )


def encode_corpus(
    corpus: ParallelCorpus, tokenizer: str, bpe: int | None, min_count: int, joint: bool
) -> EncodedCorpus:
    """Encode a whole corpus. Subwords and vocabularies are learned from the training pairs only.

    Args:
        corpus: the text.
        tokenizer: how lines become words (:func:`sparse_bench.data.moses.words_of`).
        bpe: number of byte-pair-encoding pieces for each language, or for both together if ``joint``; None: words are
            tokens.
        min_count: least number of occurrences in the training data of a known token.
        joint: one vocabulary, and one byte-pair encoding, for both languages.

    Raises:
        ConfigError: an unknown tokenizer, or a ``bpe`` that does not fit the data.
        DataError: a training sentence contains a special token.
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
    """Call ``learn`` for each side, or once for both together if ``joint``."""
    if joint:
        learned = learn([*both[0], *both[1]])
        return learned, learned
    return learn(both[0]), learn(both[1])
