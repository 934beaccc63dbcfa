"""Greedy and beam search over any next-token model, in batches of fixed shape.

Waiting for the device at every step would be slow. So only every few steps is it checked whether all sentences have
ended. Tokens decoded after a sentence's end are discarded.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from sparse_bench.batch.translation import BOS, EOS, PAD
from sparse_bench.errors import ConfigError

#: Steps between two checks whether all sentences have ended. Each check waits for the device.
CHECK_EVERY = 4


class NextToken(Protocol):
    """A model that reads R hypotheses token by token and predicts the next token of each."""

    def __call__(self, tokens: Tensor) -> Tensor:
        """Read one token of every hypothesis [R], and return the logits of the next one [R, V]."""
        ...

    def reorder(self, rows: Tensor) -> None:
        """Replace each hypothesis by the one with the number in ``rows`` [R]."""
        ...


def _log_probabilities(logits: Tensor) -> Tensor:
    """Log-probabilities [R, V] in full precision. Padding and the start symbol get probability 0."""
    log_probabilities = logits.float().log_softmax(-1)
    log_probabilities[:, PAD] = -torch.inf
    log_probabilities[:, BOS] = -torch.inf
    return log_probabilities


@torch.no_grad()
def greedy(model: NextToken, batch: int, longest: int, device: torch.device) -> Tensor:
    """Greedy search: take the most probable next token at every step.

    Args:
        model: reads B hypotheses.
        batch: B, number of sentences.
        longest: largest number of tokens to decode.
        device: device of the model.

    Returns:
        Tokens of each sentence [B, at most ``longest``], int64. The last token is EOS, unless the sentence was cut off
        at ``longest``. PAD follows it.
    """
    tokens = torch.full((batch,), BOS, device=device)
    done = torch.zeros(batch, dtype=torch.bool, device=device)
    decoded = torch.full((batch, longest), PAD, device=device)
    steps = 0
    while steps < longest:
        tokens = torch.where(done, PAD, _log_probabilities(model(tokens)).argmax(1))
        decoded[:, steps] = tokens
        done |= tokens == EOS
        steps += 1
        if steps % CHECK_EVERY == 0 and bool(done.all()):
            break
    return decoded[:, :steps]


@torch.no_grad()
def beam_search(
    model: NextToken, batch: int, beam: int, longest: int, device: torch.device, length_penalty: float = 0.6
) -> Tensor:
    """Beam search by log-probability / ((5 + length) / 6)^length_penalty (Wu et al. 2016, equation 14).

    The beam of a sentence holds hypotheses that have not ended. A hypothesis that ends counts if it is among the
    ``beam`` best continuations. It leaves the beam, and another one takes its place. A sentence is done when ``beam``
    hypotheses have ended, or when none in the beam can become better than the best ended one. With ``beam`` = 1 this is
    :func:`greedy`.

    Args:
        model: reads B · ``beam`` hypotheses; those of a sentence are adjacent.
        batch: B, number of sentences.
        beam: hypotheses kept for each sentence.
        longest: largest number of tokens to decode; the length includes EOS.
        device: device of the model.
        length_penalty: at least 0. 0 finds the most probable translation, which tends to be short.

    Returns:
        Tokens as :func:`greedy` returns them. If no hypothesis of a sentence ended, the best one in its beam.
    """
    first_row = torch.arange(batch, device=device)[:, None] * beam
    tokens = torch.full((batch * beam,), BOS, device=device)
    histories = torch.full((batch, beam, longest), PAD, device=device)
    # At first all hypotheses of a sentence are the same, so only one may count.
    scores = torch.full((batch, beam), -torch.inf, device=device)
    scores[:, 0] = 0.0
    best = torch.full((batch,), -torch.inf, device=device)
    best_history = torch.full((batch, longest), PAD, device=device)
    ended = torch.zeros(batch, dtype=torch.int64, device=device)
    among_the_best = torch.arange(2 * beam, device=device) < beam

    steps = 0
    while steps < longest:
        log_probabilities = _log_probabilities(model(tokens))
        vocabulary = log_probabilities.shape[1]
        extended = (scores.view(-1, 1) + log_probabilities).view(batch, beam * vocabulary)
        # At most `beam` of these candidates end, one per parent. So at least `beam` remain.
        candidates, places = extended.topk(2 * beam, dim=1)
        parents, words = places // vocabulary, places % vocabulary
        ends = words == EOS

        # Keep the best hypothesis that ended, now or before.
        closed = torch.where(ends & among_the_best & (ended < beam)[:, None], candidates, -torch.inf)
        value, which = (closed / _penalty(steps + 1, length_penalty)).max(1)
        closed_history = _pick(histories, parents.gather(1, which[:, None]))[:, 0]
        closed_history[:, steps] = EOS
        better = value > best
        best = torch.where(better, value, best)
        best_history = torch.where(better[:, None], closed_history, best_history)
        ended += closed.isfinite().sum(1)

        # The others form the new beam.
        scores, order = candidates.masked_fill(ends, -torch.inf).topk(beam, dim=1)
        parents, words = parents.gather(1, order), words.gather(1, order)
        histories = _pick(histories, parents)
        histories[:, :, steps] = words
        tokens = words.flatten()
        steps += 1
        if steps == longest:
            break
        if steps % CHECK_EVERY == 0:
            beaten = best >= scores[:, 0] / _penalty(longest, length_penalty)
            if bool(((ended >= beam) | beaten).all()):
                break
        if beam > 1:
            model.reorder((first_row + parents).flatten())
    return torch.where(best.isfinite()[:, None], best_history, histories[:, 0])[:, :steps]


def check_search(beam: int, longest: int, length_penalty: float) -> None:
    """Check the settings of a search.

    Raises:
        ConfigError: a setting outside its range.
    """
    if beam < 1 or longest < 1:
        raise ConfigError(f"A search needs a beam ({beam}) and a longest length ({longest}) of at least 1.")
    if length_penalty < 0:
        raise ConfigError(f"length_penalty is {length_penalty}; it must not be negative.")


def _penalty(length: int, exponent: float) -> float:
    return float(((5 + length) / 6) ** exponent)


def _pick(histories: Tensor, parents: Tensor) -> Tensor:
    """Rows ``parents`` [B, k] of each sentence's ``histories`` [B, beam, L] → [B, k, L]."""
    return histories.gather(1, parents[:, :, None].expand(-1, -1, histories.shape[2]))
