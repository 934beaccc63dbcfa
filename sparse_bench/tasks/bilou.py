"""BILOU tags of entities: Begin, Inside, Last, Outside, Unit-length.

Tag 0 is O; the tags of entity type k (from 0) are 4k+1 (B), 4k+2 (I), 4k+3 (L) and 4k+4 (U).
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sparse_bench.data.messages import Entity
from sparse_bench.data.tokenizer import Token

OUTSIDE = 0
BEGIN, INSIDE, LAST, UNIT = range(4)
PREFIXES = 4

#: A span of tokens with an entity type: (first token, last token + 1, type).
Span = tuple[int, int, int]


def tag_count(types: int) -> int:
    """Number of tags for this many entity types, O included."""
    return PREFIXES * types + 1


def tag(prefix: int, entity_type: int) -> int:
    """The tag of one of the four prefixes and an entity type."""
    return PREFIXES * entity_type + prefix + 1


def types_of(tags: np.ndarray) -> np.ndarray:
    """The tags without their prefix: 0 for O, k+1 for entity type k; same shape as ``tags``."""
    return (tags + PREFIXES - 1) // PREFIXES


def encode(
    tokens: Sequence[Token], entities: Iterable[Entity], types: Mapping[str, int]
) -> tuple[np.ndarray, list[Entity]]:
    """Encode entities as tags.

    An entity is left out unless it starts where a token starts and ends where a token ends, or if an earlier entity
    already covers one of its tokens.

    Args:
        tokens: the tokens of a text.
        entities: its entities.
        types: entity type → number from 0.

    Returns:
        The tag of each token [tokens], int64, and the entities that were left out.
    """
    left_out = []
    tags = np.full(len(tokens), OUTSIDE, dtype=np.int64)
    first_of = {token.start: index for index, token in enumerate(tokens)}
    last_of = {token.end: index for index, token in enumerate(tokens)}
    for entity in entities:
        first, last = first_of.get(entity.start), last_of.get(entity.end)
        if first is None or last is None or last < first or (tags[first : last + 1] != OUTSIDE).any():
            left_out.append(entity)
            continue
        kind = types[entity.type]
        if first == last:
            tags[first] = tag(UNIT, kind)
        else:
            tags[first : last + 1] = tag(INSIDE, kind)
            tags[first], tags[last] = tag(BEGIN, kind), tag(LAST, kind)
    return tags, left_out


def repair(tags: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Turn each B and the tags after it into a well-formed entity, as the decoder of the released Rasa 2.6 does.

    An entity starts at its B and continues through the following I. It ends with the first L, or before any other tag,
    or at the end of its message. All its tokens get the type of its B: ``B-a I-b L-a`` → ``B-a I-a L-a``, ``B-a I-a O``
    → ``B-a L-a O``, ``B-a O`` → ``U-a O``. An I or L without a B before it is not changed. Unlike here, the release
    weighs tags of different types inside one entity by their confidence; a Viterbi path has no confidences.

    Args:
        tags: tags of the tokens of all messages, one message after the other [N].
        lengths: tokens of each message, summing to N.

    Returns:
        The repaired tags [N]; the argument is not changed.
    """
    repaired = tags.copy()
    prefix = np.where(tags == OUTSIDE, -1, (tags - 1) % PREFIXES)
    end_of_message = np.repeat(np.cumsum(lengths), lengths)
    for first in np.flatnonzero(prefix == BEGIN):
        last = first
        while last + 1 < end_of_message[first]:
            if prefix[last + 1] not in (INSIDE, LAST):
                break
            last += 1
            if prefix[last] == LAST:
                break
        kind = (tags[first] - 1) // PREFIXES
        if last == first:
            repaired[first] = tag(UNIT, kind)
        else:
            repaired[first : last + 1] = tag(INSIDE, kind)
            repaired[first], repaired[last] = tag(BEGIN, kind), tag(LAST, kind)
    return repaired


def spans(tags: np.ndarray, lengths: np.ndarray) -> set[Span]:
    """Decode repaired tags to entities. Token numbers count over all messages.

    B and U start an entity. I and L continue the entity of the previous token if it has the same type, and otherwise
    start one. So no tagged token is lost.

    Args:
        tags: tags of the tokens of all messages, one message after the other [N].
        lengths: tokens of each message, summing to N.
    """
    kinds = types_of(tags)
    prefix = (tags - 1) % PREFIXES
    first_of_message = np.zeros(len(tags), dtype=bool)
    first_of_message[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
    same_as_before = np.concatenate([[False], kinds[1:] == kinds[:-1]]) & ~first_of_message
    goes_on = same_as_before & np.isin(prefix, (INSIDE, LAST)) & (kinds > 0)
    starts = np.flatnonzero((kinds > 0) & ~goes_on)
    # An entity ends before the next token that does not continue it.
    stops = np.append(np.flatnonzero(~goes_on), len(tags))
    ends = stops[np.searchsorted(stops, starts, side="right")]
    return {(int(start), int(end), int(kinds[start]) - 1) for start, end in zip(starts, ends, strict=True)}
