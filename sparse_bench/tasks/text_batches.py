"""Batches of running text for language models: chunks of parallel streams, or sentences."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sparse_bench.batch.language import IGNORED, LanguageBatch
from sparse_bench.data.text import NumberedText

#: Variable length (AWD-LSTM): probability of the full nominal length instead of half; standard deviation; minimum.
_FULL_LENGTH_PROBABILITY = 0.95
_LENGTH_DEVIATION = 5.0
SHORTEST = 5
#: Number of batches whose sentences are sorted by length together.
_POOL_BATCHES = 50


@dataclass(frozen=True)
class Chunk:
    """A piece of the streams.

    Attributes:
        start: first input position.
        drawn: drawn length, which sets the step's learning rate.
        length: actual length, shorter at the end of the streams.
    """

    start: int
    drawn: int
    length: int


def columnise(tokens: np.ndarray, streams: int) -> Tensor:
    """Cut a text into parallel streams of equal length N [N, streams]. A remainder is dropped.

    Stream b holds the tokens from b·N to (b + 1)·N − 1.
    """
    rows = len(tokens) // streams
    return torch.from_numpy(tokens[: rows * streams].reshape(streams, rows).T.copy())


def line_starts(text: NumberedText) -> np.ndarray:
    """Whether each token [N] is the first of its line."""
    first = np.zeros(len(text.tokens), dtype=bool)
    first[(np.cumsum(text.lengths) - text.lengths)[text.lengths > 0]] = True
    return first


def variable_length(base: int, longest: int, draw: np.random.Generator) -> int:
    """Draw a chunk length max(5, int(N(b, 5))), at most ``longest``. b is ``base`` with probability 0.95, else half."""
    nominal = base if draw.random() < _FULL_LENGTH_PROBABILITY else base / 2
    return min(max(SHORTEST, int(draw.normal(nominal, _LENGTH_DEVIATION))), longest)


def training_chunks(rows: int, base: int, longest: int, draw: np.random.Generator | None) -> list[Chunk]:
    """Cut streams of ``rows`` tokens into chunks, of variable length if there is a ``draw``, else of length ``base``.

    As in AWD-LSTM's code, a single target left at the end is dropped.
    """
    chunks, start = [], 0
    while start < rows - 2:
        drawn = base if draw is None else variable_length(base, longest, draw)
        chunks.append(Chunk(start, drawn, min(drawn, rows - 1 - start)))
        start += drawn
    return chunks


def training_batches(columns: Tensor, chunks: Sequence[Chunk], base: int) -> Iterator[LanguageBatch]:
    """Batches of an epoch over streams ``columns`` [N, B]. The learning rate is scaled by drawn length / ``base``."""
    mean_length = sum(chunk.length for chunk in chunks) / len(chunks)
    for chunk in chunks:
        yield _piece(
            columns,
            chunk.start,
            chunk.length,
            learning_rate_factor=chunk.drawn / base,
            weight=chunk.length / mean_length,
        )


def evaluation_batches(columns: Tensor, base: int, left_out: Tensor | None = None) -> list[LanguageBatch]:
    """All targets of streams ``columns`` [N, B], in chunks of ``base``.

    Args:
        columns: token numbers, from :func:`columnise`.
        base: length of a chunk.
        left_out: bool [N, B], true at the tokens that are no targets; None: all are.
    """
    last = columns.shape[0] - 1
    batches = [_piece(columns, start, min(base, last - start)) for start in range(0, last, base)]
    if left_out is None:
        return batches
    targets = columns.masked_fill(left_out, IGNORED)[1:].split(base)
    return [replace(b, targets=t, tokens=int((t != IGNORED).sum())) for b, t in zip(batches, targets, strict=True)]


def beginning(batch: LanguageBatch, length: int) -> LanguageBatch:
    """The first ``length`` positions of every stream of a batch."""
    targets = batch.targets[:length]
    tokens = int((targets != IGNORED).sum())
    return replace(batch, inputs=batch.inputs[:length], targets=targets, tokens=tokens)


def _piece(
    columns: Tensor, start: int, length: int, learning_rate_factor: float = 1.0, weight: float = 1.0
) -> LanguageBatch:
    inputs = columns[start : start + length]
    return LanguageBatch(
        inputs=inputs,
        targets=columns[start + 1 : start + 1 + length],
        tokens=inputs.numel(),
        learning_rate_factor=learning_rate_factor,
        weight=weight,
        starts=start == 0,
    )


class Sentences:
    """The lines of a text as independent samples. Lines of fewer than two tokens are left out."""

    def __init__(self, text: NumberedText) -> None:
        starts = np.cumsum(text.lengths) - text.lengths
        usable = text.lengths > 1
        self._tokens = text.tokens
        self._starts = starts[usable]
        self._lengths = text.lengths[usable]

    def shuffled(self, batch_size: int, draw: np.random.Generator) -> list[np.ndarray]:
        """Sentence numbers of each batch of an epoch: random, but with similar lengths within a batch."""
        order = draw.permutation(len(self._starts))
        pool = batch_size * _POOL_BATCHES
        batches = [
            batch
            for start in range(0, len(order), pool)
            for batch in self._cut(self._by_length(order[start : start + pool]), batch_size)
        ]
        return [batches[number] for number in draw.permutation(len(batches))]

    def ordered(self, batch_size: int) -> list[np.ndarray]:
        """Sentence numbers of each batch, from the shortest sentence to the longest."""
        return self._cut(self._by_length(np.arange(len(self._starts))), batch_size)

    def batches(self, numbers: Sequence[np.ndarray]) -> Iterator[LanguageBatch]:
        """One batch for each entry of ``numbers``. Sentences are padded to the longest of their batch."""
        mean_tokens = sum(int((self._lengths[rows] - 1).sum()) for rows in numbers) / max(len(numbers), 1)
        for rows in numbers:
            lengths = self._lengths[rows] - 1
            position = np.arange(lengths.max())[:, None]
            real = position < lengths
            index = np.where(real, self._starts[rows] + position, self._starts[rows])
            tokens = int(lengths.sum())
            yield LanguageBatch(
                inputs=torch.from_numpy(self._tokens[index]),
                targets=torch.from_numpy(np.where(real, self._tokens[index + 1], IGNORED)),
                tokens=tokens,
                weight=tokens / mean_tokens,
                starts=True,
            )

    def _by_length(self, numbers: np.ndarray) -> np.ndarray:
        return numbers[np.argsort(self._lengths[numbers], kind="stable")]

    @staticmethod
    def _cut(numbers: np.ndarray, size: int) -> list[np.ndarray]:
        return [numbers[start : start + size] for start in range(0, len(numbers), size)]
