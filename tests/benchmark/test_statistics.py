"""Summaries over tasks, by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sparse_bench.benchmark.cells import Cell
from sparse_bench.benchmark.questions import over_strata
from sparse_bench.benchmark.statistics import (
    improvement,
    interquartile_mean,
    of_scheme,
    paired,
    profile,
    scores,
    summary,
)
from sparse_bench.benchmark.tasks import TASKS
from sparse_bench.evidence.statistics import StatisticsError

LSTM = next(task for task in TASKS if task.name == "lstm")
TAGGING = next(task for task in TASKS if task.name == "tagging")
BASELINES = {task.name: 100.0 if task.lower_is_better else 0.2 for task in TASKS}


def cell(task, scheme, density, values):
    return (task.name, scheme, density), Cell(task, scheme, density, values=dict(enumerate(values)))


def test_scores_by_hand() -> None:
    found = dict(
        [
            cell(TAGGING, "dense", 1.0, [0.7, 0.9]),
            cell(TAGGING, "random", 0.1, [0.5, 0.2]),
            cell(LSTM, "dense", 1.0, [25.0]),
            cell(LSTM, "random", 0.1, [50.0, 200.0]),
        ]
    )
    normal = scores(found, BASELINES)
    assert normal["tagging", "random", 0.1] == pytest.approx({0: 0.5, 1: 0.0})
    assert normal["lstm", "random", 0.1] == pytest.approx({0: 0.5, 1: -0.5})  # log 2 / log 4, and minus that
    assert normal["lstm", "dense", 1.0] == {0: 1.0}
    assert {task: list(one) for task, one in of_scheme(normal, "random", 0.1).items()}.keys() == {"tagging", "lstm"}


def test_a_cell_far_from_its_unit_has_no_score() -> None:
    found = dict([cell(TAGGING, "dense", 1.0, [0.7]), cell(TAGGING, "small_dense", 0.1, [0.5])])
    for realised, scored in ((0.119, True), (0.121, False), (0.079, False)):
        found["tagging", "small_dense", 0.1].realised = [realised]
        assert (("tagging", "small_dense", 0.1) in scores(found, BASELINES)) == scored


def test_a_dense_model_no_better_than_counts_gives_no_scale() -> None:
    with pytest.raises(StatisticsError, match="tagging is no better"):
        scores(dict([cell(TAGGING, "dense", 1.0, [0.2])]), BASELINES)


def test_the_interquartile_mean_leaves_out_a_quarter_on_each_side() -> None:
    assert interquartile_mean(np.array([-50.0, 1.0, 3.0, 900.0])) == 2.0


def test_improvement_by_hand() -> None:
    first = {"a": np.array([1.0, 3.0]), "b": np.array([0.0]), "only here": np.array([9.0])}
    second = {"a": np.array([2.0, 2.0]), "b": np.array([0.0])}
    found = improvement(first, second)
    assert found.value == 0.5  # a: one of two above; b: a tie
    assert found.low == 0.25  # both draws of a are its first value
    assert found.high == 0.75
    with pytest.raises(StatisticsError, match="no task in common"):
        improvement({"a": np.ones(1)}, {"b": np.ones(1)})


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=4), st.lists(st.floats(-2, 2), min_size=1, max_size=4))
def test_two_probabilities_of_improvement_sum_to_one(a: list[float], b: list[float]) -> None:
    one, other = {"t": np.array(a)}, {"t": np.array(b)}
    assert improvement(one, other).value + improvement(other, one).value == pytest.approx(1.0)


def test_a_summary_resamples_seeds_within_their_task() -> None:
    equal = {"a": np.array([0.0, 0.0, 0.0]), "b": np.array([1.0, 1.0, 1.0])}
    found = summary(equal, lambda values: values.mean(axis=-1))
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)  # drawing over all would mix the tasks
    with pytest.raises(StatisticsError, match="at least one task"):
        summary({})


def test_profile_by_hand() -> None:
    assert profile({"a": np.array([0.2, 0.8]), "b": np.array([0.9])}, [0.5, 0.85, 1.0]) == [0.75, 0.5, 0.0]


def test_differences_are_paired_by_seed() -> None:
    normal = {
        ("lstm", "set", 0.1): {0: 0.5, 1: 0.7, 3: 9.0},
        ("lstm", "random", 0.1): {1: 0.4, 0: 0.1},
        ("tagging", "set", 0.1): {0: 1.0},
    }
    found = paired(normal, "set", "random", 0.1)
    assert found.keys() == {"lstm"}
    assert found["lstm"] == pytest.approx([0.4, 0.3])


def test_strata_weigh_alike_and_one_stratum_is_a_t_test() -> None:
    values = np.array([0.1, 0.2, 0.6])
    interval, p = over_strata([values])
    test = stats.ttest_1samp(values, 0, alternative="greater")
    assert p == pytest.approx(test.pvalue)
    assert interval.low == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval().low)
    both, _ = over_strata([values, np.array([1.0, 1.0, 1.0, 1.0])])
    assert both.mean == pytest.approx((0.3 + 1.0) / 2)
    assert over_strata([values, np.array([1.0])])[1] is None


def test_two_strata_are_welchs_test() -> None:
    """The mean of two strata is above zero as the first is above minus the second."""
    one, other = np.array([0.3, 0.5, 0.4, 0.9]), np.array([0.1, -0.2, 0.3])
    _, p = over_strata([one, other])
    assert p == pytest.approx(stats.ttest_ind(one, -other, equal_var=False, alternative="greater").pvalue)
    interval, p = over_strata([np.ones(3), np.ones(3)])
    assert (interval.half_width, p) == (0.0, 0.0)
    assert math.isclose(interval.mean, 1.0)
