"""Statistics of an NLU corpus, by which Sara-like is compared with Sara."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from sparse_bench.data.messages import NluCorpus
from sparse_bench.data.splits import split_messages
from sparse_bench.errors import ConfigError, unknown_choice

#: Kind of counts → settings of scikit-learn's CountVectorizer. Both lower-case the text.
COUNTS: dict[str, dict[str, Any]] = {
    "words": {"token_pattern": r"(?u)\b\w+\b"},
    "char_wb": {"analyzer": "char_wb", "ngram_range": (1, 4)},
}


@dataclass(frozen=True)
class Figures:
    """Statistics of an NLU corpus. Tokens are separated by whitespace; shares are of all messages.

    Attributes:
        examples: number of messages.
        unique: number of different pairs of text and intent.
        class_sizes: messages of each intent, sorted, largest first.
        spans: entities of each type, sorted, largest first.
        annotated: messages with at least one entity.
        mean_tokens: mean length of a message, in tokens.
        longest: length of the longest message, in tokens.
        words: size of the word vocabulary.
        words_once: number of its words that occur only once.
        char_ngrams: size of the vocabulary of character n-grams.
        ambiguous: number of different texts with two or more intents, ignoring capitals and punctuation.
        repeated: messages that differ from an earlier one with their intent only in capitals and punctuation.
        questions: share of messages with a question mark.
        capitals: share of messages that begin with a capital.
        split_spans: entities that begin or end inside a token, ignoring punctuation at its ends.
    """

    examples: int
    unique: int
    class_sizes: tuple[int, ...]
    spans: tuple[int, ...]
    annotated: int
    mean_tokens: float
    longest: int
    words: int
    words_once: int
    char_ngrams: int
    ambiguous: int
    repeated: int
    questions: float
    capitals: float
    split_spans: int


def figures(corpus: NluCorpus) -> Figures:
    """Compute the statistics of a corpus."""
    messages = corpus.messages
    texts = [message.text for message in messages]
    lengths = [len(text.split()) for text in texts]
    occurrences = np.asarray(CountVectorizer(**COUNTS["words"]).fit_transform(texts).sum(axis=0)).ravel()
    intents_of: dict[str, set[str]] = defaultdict(set)
    for message in messages:
        intents_of[_plain(message.text)].add(message.intent)
    plain = {(_plain(message.text), message.intent) for message in messages}
    sizes = Counter(message.intent for message in messages)
    types = Counter(entity.type for message in messages for entity in message.entities)
    return Figures(
        examples=len(messages),
        unique=len({(message.text, message.intent) for message in messages}),
        class_sizes=tuple(sorted(sizes.values(), reverse=True)),
        spans=tuple(sorted(types.values(), reverse=True)),
        annotated=sum(bool(message.entities) for message in messages),
        mean_tokens=sum(lengths) / len(lengths),
        longest=max(lengths),
        words=len(occurrences),
        words_once=int((occurrences == 1).sum()),
        char_ngrams=len(CountVectorizer(**COUNTS["char_wb"]).fit(texts).vocabulary_),
        ambiguous=sum(len(intents) > 1 for intents in intents_of.values()),
        repeated=len(messages) - len(plain),
        questions=sum("?" in text for text in texts) / len(texts),
        capitals=sum(text[0].isupper() for text in texts) / len(texts),
        split_spans=sum(
            _inside_token(message.text, entity.start, entity.end) for message in messages for entity in message.entities
        ),
    )


def _plain(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()


def _inside_token(text: str, start: int, end: int) -> bool:
    before, after = text[:start], text[end:]
    return bool(re.search(r"\w\S*$", before) or re.match(r"\S*\w", after))


def logistic_regression_f1(
    corpus: NluCorpus, counts: str, split_seeds: Iterable[int], tolerance: float = 1e-4
) -> list[float]:
    """Weighted test F1 of multinomial logistic regression on raw counts, for each split seed.

    Messages are split 80/20 without duplicates (:func:`split_messages` by features). The vocabulary is that of the
    training part. The classifier is ``LogisticRegression(C=1, max_iter=1000, tol=tolerance)``.

    Raises:
        ConfigError: ``counts`` is not a key of :data:`COUNTS`.
    """
    if counts not in COUNTS:
        raise ConfigError(unknown_choice("kind of counts", counts, COUNTS))
    scores = []
    for seed in split_seeds:
        train, test = split_messages(corpus.messages, 0.2, seed, "features")
        vectorizer = CountVectorizer(**COUNTS[counts], dtype=np.float64)
        classifier = LogisticRegression(C=1.0, max_iter=1000, tol=tolerance)
        classifier.fit(vectorizer.fit_transform([one.text for one in train]), [one.intent for one in train])
        predicted = classifier.predict(vectorizer.transform([one.text for one in test]))
        gold = [one.intent for one in test]
        scores.append(float(f1_score(gold, predicted, average="weighted", zero_division=0)))
    return scores
