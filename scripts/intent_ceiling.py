"""How far other classifiers come on the features that DIET gets, and which intents they take for which.

    python scripts/intent_ceiling.py --split-seeds 0 1 2 --output results/rasa/sara_ceiling.md

The strongest setting of each family is chosen by its test score, so the figures flatter these classifiers: what none of
them reaches is not a sign of a faulty DIET.
"""

import math
import statistics
import warnings
from collections import Counter

import numpy as np
from interleaved import parse, table_of, write
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.svm import LinearSVC

from sparse_bench.data.featurizers import CombinedFeaturizer, CountFeaturizer, RegexFeaturizer
from sparse_bench.data.sara import sara
from sparse_bench.data.splits import merged_intent, split_messages
from sparse_bench.data.tokenizer import tokenize
from sparse_bench.tasks.intent_metrics import intent_metrics

FAMILIES = {
    "logistic regression": [lambda c=c: LogisticRegression(C=c, max_iter=300) for c in (1.0, 10.0)],
    "linear SVM": [lambda c=c: LinearSVC(C=c, max_iter=5000) for c in (0.03, 0.1)],
    "network, 256 hidden units": [
        lambda s=s: MLPClassifier((256,), max_iter=25, batch_size=64, random_state=s) for s in (0, 1)
    ],
}


def narrow(rows: sparse.csr_array) -> sparse.csr_matrix:
    """The same with 32-bit indices, the only ones that all of scikit-learn takes."""
    return sparse.csr_matrix((rows.data, rows.indices.astype(np.int32), rows.indptr.astype(np.int32)), shape=rows.shape)


def main() -> None:
    """Fit, print and write."""
    given = parse(__doc__ or "", split_seeds=[0, 1, 2])
    warnings.simplefilter("ignore", ConvergenceWarning)
    corpus = sara()
    scores: dict[str, list[float]] = {family: [] for family in FAMILIES}
    confusions: Counter[tuple[str, str]] = Counter()
    tested = 0
    for seed in given.split_seeds:
        train, test = split_messages(corpus.messages, 0.2, seed, "features")
        gold_train, gold_test = (np.array([merged_intent(m.intent) for m in part]) for part in (train, test))
        regexes = RegexFeaturizer(corpus.regexes, corpus.lookups)
        counts = [CountFeaturizer(oov_token="oov"), CountFeaturizer("char_wb", (1, 4))]
        featurizer = CombinedFeaturizer([regexes, *counts])
        x = narrow(featurizer.fit_transform([tokenize(m.text) for m in train]).sentences)
        x_test = narrow(featurizer.transform([tokenize(m.text) for m in test]).sentences)
        tested = len(test)
        for family, makers in FAMILIES.items():
            best = -1.0
            for make in makers:
                predicted = make().fit(x, gold_train).predict(x_test)
                best = max(best, intent_metrics(gold_test, predicted)["intent_f1"])
                if family == "linear SVM":
                    wrong = gold_test != predicted
                    confusions.update(zip(gold_test[wrong].tolist(), predicted[wrong].tolist(), strict=True))
            scores[family].append(best)
            print(seed, family, f"{best:.4f}", flush=True)
    mean = statistics.mean(value for values in scores.values() for value in values)
    splits = [f"split {seed}" for seed in given.split_seeds]
    rows = [
        {"classifier": family}
        | {split: f"{value:.3f}" for split, value in zip(splits, values, strict=True)}
        | {"mean": f"{statistics.mean(values):.3f}"}
        for family, values in scores.items()
    ]
    mistakes = [
        {"true intent": true, "taken for": taken, "times": count} for (true, taken), count in confusions.most_common(8)
    ]
    parts = [
        "# What other classifiers make of Sara's intents",
        "Weighted F1 on the test messages of each split, from the sentence features that DIET gets (words, character "
        "n-grams, patterns). The better of two settings, chosen by this very score.",
        table_of(rows),
        f"A split has {tested} test messages, so that an accuracy near {mean:.2f} has a standard error of "
        f"{math.sqrt(mean * (1 - mean) / tested):.3f} from their choice alone.",
        "What the linear SVM takes for what, most often (all splits and settings):",
        table_of(mistakes),
    ]
    write("\n\n".join(parts), given.output)


if __name__ == "__main__":
    main()
