"""How good a translation model is: word by word with the right words before it, and by its translations."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sacrebleu.metrics import BLEU, CHRF, TER

from sparse_bench.tasks.meteor import STEMMERS, Meteor

logger = logging.getLogger(__name__)


def teacher_forced_metrics(nll: np.ndarray, right: np.ndarray, lengths: np.ndarray) -> dict[str, float]:
    """Accuracy and loss of the next token, each given the right tokens before it.

    Every target token counts, EOS and UNK included, BOS and padding excluded. ``sentence_accuracy`` and ``loss`` are
    means over sentences of the means over their tokens, as in the SET-Transformer report: a token of a short sentence
    counts for more. ``token_accuracy`` and ``perplexity`` (the exponential of the mean) go by token.

    Args:
        nll: negative log-likelihood of each token, sentence after sentence [N].
        right: whether the most probable token was the right one [N].
        lengths: tokens of each sentence, summing to N, each at least 1.
    """
    nll, right = nll.astype(np.float64), right.astype(np.float64)
    starts = np.cumsum(lengths) - lengths
    mean_nll = float(nll.mean())
    return {
        "sentence_accuracy": float((np.add.reduceat(right, starts) / lengths).mean()),
        "token_accuracy": float(right.mean()),
        "loss": float((np.add.reduceat(nll, starts) / lengths).mean()),
        # Of a model that is worse than any use, the exponential may be too large for a number.
        "perplexity": math.exp(mean_nll) if mean_nll < 700 else math.inf,
    }


class TranslationScores:
    """BLEU, chrF and TER by sacrebleu, and METEOR (:mod:`sparse_bench.tasks.meteor`), each from 0 to 100 (TER: up).

    METEOR is left out, and the signatures say so, for a language that it has no stemmer for.

    Args:
        references: the right translation of each test sentence.
        words: how METEOR cuts translations and references into words.
        language: of the translations.
        tokenised: whether translations and references are words between spaces rather than sentences as people write
            them. BLEU then takes the words as they are; else it has its own tokenizer (13a).
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
