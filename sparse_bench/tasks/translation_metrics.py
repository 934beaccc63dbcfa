"""Metrics of translation models: next-token metrics with teacher forcing, and scores of translations."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sacrebleu.metrics import BLEU, CHRF, TER

from sparse_bench.tasks.meteor import STEMMERS, Meteor

logger = logging.getLogger(__name__)


def teacher_forced_metrics(nll: np.ndarray, right: np.ndarray, lengths: np.ndarray) -> dict[str, float]:
    """Accuracy and loss of the next token, given the correct tokens before it.

    Every target token counts, including EOS and UNK, but not BOS and padding. ``sentence_accuracy`` and ``loss`` are
    averaged over each sentence's tokens, then over sentences, as in the SET-Transformer report. So a token of a short
    sentence counts for more. ``token_accuracy``, and the mean loss whose exponential is ``perplexity``, are averaged
    over tokens.

    Args:
        nll: negative log-likelihood of each token, sentence after sentence [N].
        right: whether the most probable token was the correct one [N].
        lengths: tokens of each sentence, summing to N, each at least 1.
    """
    nll, right = nll.astype(np.float64), right.astype(np.float64)
    starts = np.cumsum(lengths) - lengths
    mean_nll = float(nll.mean())
    return {
        "sentence_accuracy": float((np.add.reduceat(right, starts) / lengths).mean()),
        "token_accuracy": float(right.mean()),
        "loss": float((np.add.reduceat(nll, starts) / lengths).mean()),
        # For a very bad model the exponential would overflow.
        "perplexity": math.exp(mean_nll) if mean_nll < 700 else math.inf,
    }


class TranslationScores:
    """BLEU, chrF and TER by sacrebleu, and METEOR (:mod:`sparse_bench.tasks.meteor`).

    Scores are from 0 to 100, except TER, which has no upper limit. METEOR is left out for a language without a stemmer,
    and the signatures then report that.

    Args:
        references: the reference translation of each test sentence.
        words: splits translations and references into words, for METEOR.
        language: code of the target language.
        tokenised: whether translations and references are tokenised words between spaces. BLEU then uses these words;
            otherwise it uses its own tokenizer (13a).
    """

    def __init__(
        self,
        references: Sequence[str],
        words: Callable[[str], list[str]],
        language: str,
        tokenised: bool,
    ) -> None:
        self._words = words
        self._reference_words = [words(reference) for reference in references]
        self._language = language
        self._meteor = Meteor(language) if language in STEMMERS else None
        given: dict[str, Any] = {"references": [list(references)]}
        self._metrics = {
            "bleu": BLEU(tokenize="none", force=True, **given) if tokenised else BLEU(**given),
            "chrf": CHRF(**given),
            "ter": TER(**given),
        }

    def score(self, translations: Sequence[str]) -> dict[str, float]:
        """The four scores of these translations, one for each reference."""
        lines = list(translations)
        scores = {name: float(metric.corpus_score(lines, None).score) for name, metric in self._metrics.items()}
        if self._meteor is None:
            logger.warning("METEOR is left out: %s", self._lacking())
            return scores
        words = [self._words(line) for line in lines]
        return scores | {"meteor": self._meteor.corpus_score(words, self._reference_words)}

    def _lacking(self) -> str:
        return f"it has no stemmer for the language '{self._language}', only for {', '.join(sorted(STEMMERS))}"

    def signatures(self) -> dict[str, str]:
        """What each score depends on, by its name."""
        found = {name: metric.get_signature().format() for name, metric in self._metrics.items()}
        return found | {"meteor": f"left out: {self._lacking()}" if self._meteor is None else self._meteor.signature()}
