from sparse_bench.tasks.intent_baseline import logistic_regression_baseline
from tests.tasks.nlu_corpus import small_corpus


def test_the_small_corpus_is_easy():
    results = logistic_regression_baseline(small_corpus(), split_seed=0, test_fraction=0.25)
    assert results.keys() == {"words", "char_wb", "all"}
    assert all(metrics["intent_f1"] > 0.8 for metrics in results.values())


def test_more_regularization_changes_the_answer():
    weak = logistic_regression_baseline(small_corpus(), regularization=1e-3)
    strong = logistic_regression_baseline(small_corpus(), regularization=1e4)
    assert strong["all"]["intent_f1"] < weak["all"]["intent_f1"]
