"""Prints the linear baseline of intent classification, for a corpus and one or more splits.

python scripts/intent_baseline.py sara --split-seeds 0 1 2
"""

import argparse
import statistics

from hydra.utils import get_method

from sparse_bench.tasks.intent_baseline import logistic_regression_baseline

CORPORA = {"sara": "sparse_bench.data.sara.sara", "sara_like": "sparse_bench.data.sara_like.sara_like"}


def main() -> None:
    """One line a split and feature set, then the means."""
    parser = argparse.ArgumentParser(description="Logistic regression on the features that DIET gets.")
    parser.add_argument("corpus", choices=CORPORA)
    parser.add_argument("--split-seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--test-fraction", type=float, default=0.2)
    parser.add_argument("--regularization", type=float, default=1.0)
    arguments = parser.parse_args()

    corpus = get_method(CORPORA[arguments.corpus])()
    scores: dict[str, list[float]] = {}
    print(f"{'split':>5}  {'features':<8}  {'F1':>6}  accuracy")
    for seed in arguments.split_seeds:
        results = logistic_regression_baseline(
            corpus,
            split_seed=seed,
            test_fraction=arguments.test_fraction,
            regularization=arguments.regularization,
        )
        for features, metrics in results.items():
            scores.setdefault(features, []).append(metrics["intent_f1"])
            print(f"{seed:>5}  {features:<8}  {metrics['intent_f1']:.4f}  {metrics['intent_accuracy']:.4f}")
    for features, several in scores.items():
        print(f" mean  {features:<8}  {statistics.mean(several):.4f}")


if __name__ == "__main__":
    main()
