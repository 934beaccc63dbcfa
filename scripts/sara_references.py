"""What Sara's intents are like: how far other classifiers come on them, and how near Sara-like is to Sara.

python scripts/sara_references.py ceiling --output results/rasa/sara_ceiling.md
python scripts/sara_references.py calibration --output results/rasa/sara_like_calibration.md
"""

import math
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from interleaved import run, table_of, write
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.neural_network import MLPClassifier
from sklearn.svm import LinearSVC

from sparse_bench.data.featurizers import CombinedFeaturizer, CountFeaturizer, RegexFeaturizer
from sparse_bench.data.messages import NluCorpus
from sparse_bench.data.sara import sara
from sparse_bench.data.sara_like import sara_like
from sparse_bench.data.splits import merged_intent, split_messages
from sparse_bench.data.tokenizer import tokenize

#: Kind of counts → settings of scikit-learn's CountVectorizer. Both lower-case the text.
COUNTS: dict[str, dict[str, Any]] = {
    "words": {"token_pattern": r"(?u)\b\w+\b"},
    "char_wb": {"analyzer": "char_wb", "ngram_range": (1, 4)},
}
FAMILIES = {
    "logistic regression": [lambda c=c: LogisticRegression(C=c, max_iter=300) for c in (1.0, 10.0)],
    "linear SVM": [lambda c=c: LinearSVC(C=c, max_iter=5000) for c in (0.03, 0.1)],
    "network, 256 hidden units": [
        lambda s=s: MLPClassifier((256,), max_iter=25, batch_size=64, random_state=s) for s in (0, 1)
    ],
}


def ceiling(*, split_seeds: tuple[int, ...] = (0, 1, 2), output: Path | None = None) -> None:
    """How far other classifiers come on the features that DIET gets, and which intents they take for which.

    The better setting of each family is chosen by its test score, which flatters these classifiers: what none of them
    reaches is not a sign of a faulty DIET.
    """
    warnings.simplefilter("ignore", ConvergenceWarning)
    corpus = sara()
    scores: dict[str, dict[str, float]] = {family: {} for family in FAMILIES}
    confusions: Counter[tuple[str, str]] = Counter()
    for seed in split_seeds:
        train, test = split_messages(corpus.messages, 0.2, seed, "features")
        gold_train, gold_test = (np.array([merged_intent(m.intent) for m in part]) for part in (train, test))
        counts = [CountFeaturizer(oov_token="oov"), CountFeaturizer("char_wb", (1, 4))]
        featurizer = CombinedFeaturizer([RegexFeaturizer(corpus.regexes, corpus.lookups), *counts])
        x = narrow(featurizer.fit_transform([tokenize(m.text) for m in train]).sentences)
        x_test = narrow(featurizer.transform([tokenize(m.text) for m in test]).sentences)
        for family, makers in FAMILIES.items():
            found = [make().fit(x, gold_train).predict(x_test) for make in makers]
            scores[family][f"split {seed}"] = max(weighted_f1(gold_test, predicted) for predicted in found)
            for predicted in found if family == "linear SVM" else ():
                wrong = gold_test != predicted
                confusions.update(zip(gold_test[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    means = {family: {**values, "mean": mean(values.values())} for family, values in scores.items()}
    rows = [{"classifier": family, **{k: f"{v:.3f}" for k, v in values.items()}} for family, values in means.items()]
    mistakes = [{"true intent": a, "taken for": b, "times": count} for (a, b), count in confusions.most_common(8)]
    share = mean(values["mean"] for values in means.values())
    parts = [
        "# What other classifiers make of Sara's intents",
        "Weighted F1 on the test messages of each split, from the sentence features that DIET gets (words, character "
        "n-grams, patterns). The better of two settings, chosen by this very score.",
        table_of(rows),
        f"A split has {len(test)} test messages, so that an accuracy near {share:.2f} has a standard error of "
        f"{math.sqrt(share * (1 - share) / len(test)):.3f} from their choice alone.",
        "What the linear SVM takes for what, most often (all splits and settings):",
        table_of(mistakes),
    ]
    write("\n\n".join(parts), output)


def narrow(rows: sparse.csr_array) -> sparse.csr_matrix:
    """The same with 32-bit indices, the only ones that all of scikit-learn takes."""
    return sparse.csr_matrix((rows.data, rows.indices.astype(np.int32), rows.indptr.astype(np.int32)), shape=rows.shape)


def weighted_f1(gold: Any, predicted: Any) -> float:
    """Of intents."""
    return float(f1_score(gold, predicted, average="weighted", zero_division=0))


def calibration(*, seeds: tuple[int, ...] = (0, 1, 2), splits: int = 5, output: Path | None = None) -> None:
    """Statistics of Sara and of Sara-like with several generator seeds, and of logistic regressions on their splits."""
    corpora = {"Sara": sara()} | {f"Sara-like, seed {seed}": sara_like(seed) for seed in seeds}
    columns = {}
    for name, corpus in corpora.items():
        columns[name] = {figure: _shown(value) for figure, value in figures(corpus).items()}
        for kind in COUNTS:
            scores = logistic_regression_f1(corpus, kind, range(splits))
            label = f"logistic regression on counts of {kind}, weighted F1"
            columns[name][label] = f"{mean(scores):.3f} ± {stdev(scores):.3f}"
    rows = [{"figure": figure} | {name: cells[figure] for name, cells in columns.items()} for figure in columns["Sara"]]
    parts = [
        "# Sara-like against Sara",
        "Sara-like is the generated corpus that this project ships; Sara is the corpus that it stands in for. Written "
        "by `python scripts/sara_references.py calibration`.",
        table_of(rows),
        "Tokens are what whitespace separates. Vocabularies: scikit-learn's CountVectorizer on all messages, "
        r"lower-cased, words `(?u)\b\w+\b`. Logistic regression: messages that differ in more than capitals, "
        "punctuation and numbers, split 80/20 stratified by intent with split seeds from 0; vocabulary of the training "
        "part, raw counts, `LogisticRegression(C=1, max_iter=1000)`; mean ± sample standard deviation over the split "
        "seeds.",
    ]
    write("\n\n".join(parts) + "\n", output)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0%}" if value < 1 else f"{value:.2f}"
    return " ".join(map(str, value)) if isinstance(value, tuple) else f"{value:,}"


def figures(corpus: NluCorpus) -> dict[str, Any]:
    """Statistics of a corpus: counts, means, sizes in falling order, and shares of all messages below 1."""
    messages, texts = corpus.messages, [message.text for message in corpus.messages]
    lengths = [len(text.split()) for text in texts]
    occurrences = np.asarray(CountVectorizer(**COUNTS["words"]).fit_transform(texts).sum(axis=0)).ravel()
    intents_of: dict[str, set[str]] = defaultdict(set)
    for message in messages:
        intents_of[_plain(message.text)].add(message.intent)
    sizes = Counter(message.intent for message in messages)
    entities = [(message.text, entity) for message in messages for entity in message.entities]
    spans = Counter(entity.type for _, entity in entities)
    return {
        "examples": len(messages),
        "different pairs of text and intent": len({(message.text, message.intent) for message in messages}),
        "intents": len(sizes),
        "sizes of the intents, sorted": tuple(sorted(sizes.values(), reverse=True)),
        "entity types": len(spans),
        "entity spans": len(entities),
        "spans by type, sorted": tuple(sorted(spans.values(), reverse=True)),
        "messages with entities": sum(bool(message.entities) for message in messages),
        "spans that begin or end inside a token": sum(_inside(text, one.start, one.end) for text, one in entities),
        "tokens a message, mean": mean(lengths),
        "tokens a message, most": max(lengths),
        "word vocabulary": len(occurrences),
        "words that occur once": int((occurrences == 1).sum()),
        "char_wb vocabulary (1-4)": len(CountVectorizer(**COUNTS["char_wb"]).fit(texts).vocabulary_),
        "repeated but for capitals and punctuation": len(messages) - sum(map(len, intents_of.values())),
        "texts under two intents or more": sum(len(intents) > 1 for intents in intents_of.values()),
        "messages with a question mark": sum("?" in text for text in texts) / len(texts),
        "messages that begin with a capital": sum(text[0].isupper() for text in texts) / len(texts),
    }


def _plain(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()


def _inside(text: str, start: int, end: int) -> bool:
    """Whether a span begins or ends inside a token, ignoring punctuation at its ends."""
    return bool(re.search(r"\w\S*$", text[:start]) or re.match(r"\S*\w", text[end:]))


def logistic_regression_f1(
    corpus: NluCorpus, counts: str, split_seeds: Iterable[int], tolerance: float = 1e-4
) -> list[float]:
    """Weighted test F1 of multinomial logistic regression on raw counts, for each split seed."""
    scores = []
    for seed in split_seeds:
        parts = split_messages(corpus.messages, 0.2, seed, "features")
        (texts, intents), (asked, gold) = ([[m.text for m in part], [m.intent for m in part]] for part in parts)
        vectorizer = CountVectorizer(**COUNTS[counts], dtype=np.float64)
        classifier = LogisticRegression(C=1.0, max_iter=1000, tol=tolerance).fit(
            vectorizer.fit_transform(texts), intents
        )
        scores.append(weighted_f1(gold, classifier.predict(vectorizer.transform(asked))))
    return scores


if __name__ == "__main__":
    run(ceiling, calibration)
