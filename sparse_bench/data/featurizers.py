"""Sparse features of tokens and of sentences, as the Rasa 2.6 assistants compute them.

As in Rasa, words and word borders inside tokens are those of the standard library, whose ``\\w`` excludes combining
marks. So the words of the token "क्या" are "क" and "य", while its character n-grams are complete. A phrase of a lookup
that ends in a combining mark does not end at a word border.

Each featurizer is fitted on training texts only. It returns two CSR matrices for a whole split: one with a row per
token (the tokens of all texts, one text after the other), one with a row per text. They are computed once, before
training.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from scipy import sparse
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import CountVectorizer

from sparse_bench.data.tokenizer import Token, TokenizedText
from sparse_bench.errors import DataError

NUMBER_TOKEN = "__number__"
_NUMBER = re.compile(r"\b[0-9]+\b")


class Features(NamedTuple):
    """Feature matrices of some texts, float32.

    Attributes:
        tokens: [tokens of all texts, token features].
        sentences: [texts, sentence features].
    """

    tokens: sparse.csr_array
    sentences: sparse.csr_array


class Featurizer(ABC):
    """Turns tokenized texts into sparse feature rows."""

    @abstractmethod
    def fit(self, texts: Sequence[TokenizedText]) -> Self:
        """Learn the vocabulary from training texts (at least one)."""

    @abstractmethod
    def transform(self, texts: Sequence[TokenizedText]) -> Features:
        """Features of texts outside the training data. Unknown values have no column."""

    def fit_transform(self, texts: Sequence[TokenizedText]) -> Features:
        """Learn from training texts and return their features."""
        return self.fit(texts).transform(texts)


class RegexFeaturizer(Featurizer):
    """Matches of patterns: a token has a 1 if a match overlaps it, a sentence if any of its tokens has a 1.

    Args:
        regexes: name → regular expressions; each becomes one pattern.
        lookups: name → phrases; each table becomes one pattern that matches any of its phrases between word borders.

    Raises:
        DataError: an invalid regular expression.
    """

    def __init__(self, regexes: Mapping[str, Iterable[str]], lookups: Mapping[str, Iterable[str]]) -> None:
        expressions = [(name, expression) for name, several in regexes.items() for expression in several]
        expressions += [
            (name, "|".join(rf"\b{re.escape(phrase)}\b" for phrase in phrases))
            for name, phrases in ((name, tuple(phrases)) for name, phrases in lookups.items())
            if phrases
        ]
        self.patterns: list[re.Pattern[str]] = []
        for name, expression in expressions:
            try:
                self.patterns.append(re.compile(expression))
            except re.error as error:
                raise DataError(f"The pattern '{name}' is invalid: {error} in {expression!r}.") from error

    def fit(self, texts: Sequence[TokenizedText]) -> Self:
        return self

    def transform(self, texts: Sequence[TokenizedText]) -> Features:
        token_cells: list[tuple[int, int]] = []
        sentence_cells: list[tuple[int, int]] = []
        first = 0
        for row, text in enumerate(texts):
            for column, pattern in enumerate(self.patterns):
                spans = [match.span() for match in pattern.finditer(text.text)]
                hits = [
                    (first + index, column)
                    for index, token in enumerate(text.tokens)
                    if any(token.start < end and start < token.end for start, end in spans)
                ]
                token_cells += hits
                if hits:
                    sentence_cells.append((row, column))
            first += len(text.tokens)
        width = len(self.patterns)
        return Features(_ones(token_cells, (first, width)), _ones(sentence_cells, (len(texts), width)))


class LexicalFeaturizer(Featurizer):
    """The shape of a token and of its neighbours, one-hot over the values seen in training. Sentences have no features.

    For the token and both neighbours: whether it is lower-case, title-case, upper-case. For the token also: whether it
    is the first or the last of its sentence, and whether it is all digits. A missing neighbour has no features.
    """

    def __init__(self) -> None:
        self._one_hot = DictVectorizer(dtype=np.float32)

    def fit(self, texts: Sequence[TokenizedText]) -> Self:
        self._one_hot.fit([features for text in texts for features in self._describe(text.tokens)])
        return self

    def transform(self, texts: Sequence[TokenizedText]) -> Features:
        described = [features for text in texts for features in self._describe(text.tokens)]
        return Features(_csr(self._one_hot.transform(described)), _ones([], (len(texts), 0)))

    @staticmethod
    def _describe(tokens: Sequence[Token]) -> list[dict[str, str]]:
        looks = [
            {"low": str(token.text.islower()), "title": str(token.text.istitle()), "upper": str(token.text.isupper())}
            for token in tokens
        ]
        described = []
        for index, token in enumerate(tokens):
            features = {
                "BOS": str(index == 0),
                "EOS": str(index == len(tokens) - 1),
                "digit": str(token.text.isdigit()),
                **looks[index],
            }
            if index > 0:
                features |= {f"previous {name}": value for name, value in looks[index - 1].items()}
            if index + 1 < len(tokens):
                features |= {f"next {name}": value for name, value in looks[index + 1].items()}
            described.append(features)
        return described


class CountFeaturizer(Featurizer):
    """Counts of words, or of character n-grams inside words padded with a space on either side.

    Words are lower-cased, and all words of digits become one number word. A token's row counts within the token; a
    sentence's row counts within its tokens joined by spaces. So Sara has 10,755 n-grams of one to four characters; with
    the punctuation of the raw text it would have 12,297.

    Args:
        analyzer: ``word`` or ``char_wb``, as in scikit-learn's ``CountVectorizer``.
        ngrams: lengths of the shortest and the longest n-gram.
        oov_token: used with words only. If this word occurs in training, :meth:`transform` replaces every token outside
            the training vocabulary by it. A token is compared as a whole: "e-mail" is outside, because the vocabulary
            holds "e" and "mail". :meth:`fit_transform` replaces nothing, as no training word is unknown.
    """

    def __init__(
        self,
        analyzer: Literal["word", "char_wb"] = "word",
        ngrams: tuple[int, int] = (1, 1),
        oov_token: str | None = None,
    ) -> None:
        self._counts = CountVectorizer(
            analyzer=analyzer,
            ngram_range=tuple(ngrams),
            token_pattern=r"(?u)\b\w+\b" if analyzer == "word" else None,
            dtype=np.float32,
        )
        self._oov_token = oov_token.lower() if oov_token is not None and analyzer == "word" else None

    def fit(self, texts: Sequence[TokenizedText]) -> Self:
        self._counts.fit([" ".join(words) for words in _words(texts)])
        return self

    def transform(self, texts: Sequence[TokenizedText]) -> Features:
        vocabulary = self._counts.vocabulary_
        if self._oov_token is None or self._oov_token not in vocabulary:
            return self._count(_words(texts))
        return self._count(
            [[word if word in vocabulary else self._oov_token for word in words] for words in _words(texts)]
        )

    def fit_transform(self, texts: Sequence[TokenizedText]) -> Features:
        return self.fit(texts)._count(_words(texts))

    def _count(self, texts: Sequence[Sequence[str]]) -> Features:
        # Tokens repeat few different words, so each word is analysed once. A dict, not a NumPy array of strings, in
        # which every word would take as much memory as the longest.
        numbers: dict[str, int] = {}
        rows = [numbers.setdefault(word, len(numbers)) for words in texts for word in words]
        tokens = self._counts.transform(numbers)[rows]
        sentences = self._counts.transform([" ".join(words) for words in texts])
        return Features(_csr(tokens), _csr(sentences))


class CombinedFeaturizer(Featurizer):
    """Several featurizers, whose features are concatenated in the given order.

    Args:
        parts: at least one featurizer.
    """

    def __init__(self, parts: Sequence[Featurizer]) -> None:
        self.parts = list(parts)

    def fit(self, texts: Sequence[TokenizedText]) -> Self:
        for part in self.parts:
            part.fit(texts)
        return self

    def transform(self, texts: Sequence[TokenizedText]) -> Features:
        return _side_by_side([part.transform(texts) for part in self.parts])

    def fit_transform(self, texts: Sequence[TokenizedText]) -> Features:
        return _side_by_side([part.fit_transform(texts) for part in self.parts])


def counted_words(text: TokenizedText) -> tuple[str, ...]:
    """The words of ``text`` as the counts see them: in lower case, and with all numbers equal."""
    return tuple(_NUMBER.sub(NUMBER_TOKEN, word) for word in text.words)


def _words(texts: Sequence[TokenizedText]) -> list[tuple[str, ...]]:
    return [counted_words(text) for text in texts]


def _ones(cells: list[tuple[int, int]], shape: tuple[int, int]) -> sparse.csr_array:
    rows, columns = np.array(cells, dtype=np.int64).reshape(-1, 2).T
    return sparse.csr_array((np.ones(len(cells), dtype=np.float32), (rows, columns)), shape=shape)


def _csr(matrix: Any) -> sparse.csr_array:
    """Convert any sparse matrix of scikit-learn or SciPy to a CSR array with sorted indices."""
    rows = sparse.csr_array(matrix)
    rows.sort_indices()
    return rows


def _side_by_side(features: Sequence[Features]) -> Features:
    return Features(
        tokens=_csr(sparse.hstack([part.tokens for part in features])),
        sentences=_csr(sparse.hstack([part.sentences for part in features])),
    )
