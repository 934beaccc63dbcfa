"""Linear baseline for intent models: logistic regression on the same features."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from sparse_bench.data.featurizers import CombinedFeaturizer, CountFeaturizer, Featurizer, RegexFeaturizer
from sparse_bench.data.messages import NluCorpus
from sparse_bench.data.splits import merged_intent, split_messages
from sparse_bench.data.tokenizer import tokenize
from sparse_bench.tasks.intent_metrics import intent_metrics


def logistic_regression_baseline(
    corpus: NluCorpus,
    *,
    split_seed: int = 0,
    test_fraction: float = 0.2,
    duplicates: str = "features",
    regularization: float = 1.0,
) -> dict[str, dict[str, float]]:
    """Test metrics of multinomial logistic regression on sentence features, by feature set.

    The feature sets are ``words`` (counts), ``char_wb`` (counts of n-grams of 1 to 4 characters) and ``all`` (both, and
    the patterns). Lexical features are not used, as they describe only tokens. Messages, split and metrics are those of
    the intent task.

    Args:
        corpus: the messages.
        split_seed: seed of the split.
        test_fraction: share of the messages in the test split.
        duplicates: rule for messages to leave out as duplicates (:func:`split_messages`).
        regularization: weight of the squared norm of the coefficients against the summed log loss (1/C).

    Returns:
        Feature set → metric → value.
    """
    train, test = split_messages(corpus.messages, test_fraction, split_seed, duplicates)
    train_texts, test_texts = [[tokenize(message.text) for message in part] for part in (train, test)]
    train_gold, test_gold = [np.array([merged_intent(message.intent) for message in part]) for part in (train, test)]

    def words() -> Featurizer:
        return CountFeaturizer(oov_token="oov")

    def characters() -> Featurizer:
        return CountFeaturizer("char_wb", (1, 4))

    sets: dict[str, Featurizer] = {
        "words": words(),
        "char_wb": characters(),
        "all": CombinedFeaturizer([RegexFeaturizer(corpus.regexes, corpus.lookups), words(), characters()]),
    }
    metrics = {}
    for name, featurizer in sets.items():
        classifier = LogisticRegression(C=1 / regularization, max_iter=1000)
        classifier.fit(featurizer.fit_transform(train_texts).sentences, train_gold)
        metrics[name] = intent_metrics(test_gold, classifier.predict(featurizer.transform(test_texts).sentences))
    return metrics
