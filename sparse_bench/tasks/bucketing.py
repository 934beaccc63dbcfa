"""Grouping of sentence pairs into the batches of an epoch."""

import numpy as np


def random_batches(count: int, batch_size: int, generator: np.random.Generator) -> list[np.ndarray]:
    """A random permutation of 0 … count - 1, cut into batches; the last one may be smaller."""
    return np.split(generator.permutation(count), range(batch_size, count, batch_size))


def bucketed_batches(
    source_lengths: np.ndarray,
    target_lengths: np.ndarray,
    batch_size: int,
    generator: np.random.Generator,
    pool: int | None = None,
) -> list[np.ndarray]:
    """Batches of pairs with similar lengths on both sides, in random order. Every pair is in exactly one batch.

    Pairs are sorted by target length, and for equal target lengths by source length. The source order alternates
    between ascending and descending, so that both lengths change little from one pair to the next. Pairs with the same
    two lengths are shuffled.

    If ``batch_size`` does not divide the number of pairs, one batch is smaller. Its place in the order of lengths is
    random. Otherwise the longest pairs would always form it, and count for more in a mean over batches.

    Args:
        source_lengths: source positions of each pair [n].
        target_lengths: target positions of each pair [n].
        batch_size: pairs in a batch.
        generator: the only source of randomness.
        pool: number of batches whose randomly drawn pairs are sorted together. A smaller pool gives more random batches
            and more padding. None: all pairs of the epoch are sorted together.

    Returns:
        Numbers of the pairs of each batch, int64.
    """
    count = len(source_lengths)
    shuffled = generator.permutation(count)
    drawn = count if pool is None else pool * batch_size
    ordered = np.concatenate(
        [_by_length(part, source_lengths, target_lengths) for part in np.split(shuffled, range(drawn, count, drawn))]
    )
    whole, rest = divmod(count, batch_size)
    sizes = np.full(whole, batch_size)
    if rest:
        sizes = np.insert(sizes, generator.integers(whole + 1), rest)
    batches = np.split(ordered, np.cumsum(sizes)[:-1])
    return [batches[index] for index in generator.permutation(len(batches))]


def _by_length(pairs: np.ndarray, source_lengths: np.ndarray, target_lengths: np.ndarray) -> np.ndarray:
    target = target_lengths[pairs]
    source = np.where(target % 2 == 0, 1, -1) * source_lengths[pairs]
    return pairs[np.lexsort((source, target))]  # stable: pairs with equal lengths stay shuffled
