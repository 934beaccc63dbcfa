"""The rules that answer the questions, on cells made by hand."""

import pytest

from sparse_bench.benchmark.cells import Cell
from sparse_bench.benchmark.questions import Question, _best, _better, _explains, _faster
from sparse_bench.benchmark.tasks import TASKS

DENSITIES = [0.1, 0.01]


def question(kind: str, schemes: list[str], against: str = "random") -> Question:
    return Question(id="one", question="?", kind=kind, schemes=schemes, against=against, densities=DENSITIES)


def normal(**levels: float):
    """Scores of schemes around a level, the same on all tasks and densities, with a spread of a hundredth."""
    return {
        (task.name, scheme, density): {seed: level + 0.01 * (seed - 1) * (1 + 0.1 * place) for seed in range(3)}
        for place, task in enumerate(TASKS)
        for scheme, level in levels.items()
        for density in DENSITIES
    }


def shifted(found, scheme: str, by):
    """The scores, with those of a scheme shifted per seed, so that paired differences have a spread."""
    return {
        key: {seed: value + (by[seed] if key[1] == scheme else 0.0) for seed, value in by_seed.items()}
        for key, by_seed in found.items()
    }


SPREAD = {0: 0.001, 1: -0.002, 2: 0.001}


@pytest.mark.parametrize(("gain", "answer"), [(0.2, "yes"), (0.0, "no"), (-0.2, "no")])
def test_better(gain: float, answer: str) -> None:
    found = shifted(normal(set=0.5 + gain, random=0.5), "set", SPREAD)
    assert _better(question("better", ["set"]), {}, found).answer == answer


def test_better_is_open_while_the_intervals_are_wide() -> None:
    found = shifted(normal(set=0.5, random=0.5), "set", {0: 0.3, 1: -0.3, 2: 0.05})
    assert _better(question("better", ["set"]), {}, found).answer == "open"


def test_a_question_without_runs_or_with_too_few_seeds_is_not_run() -> None:
    assert _better(question("better", ["set"]), {}, {}).answer == "not run"
    few = {key: {0: value[0]} for key, value in normal(set=1.0, random=0.0).items()}
    assert _better(question("better", ["set"]), {}, few).answer == "not run"
    assert _explains(question("explains", ["set", "mest"]), {}, few).answer == "not run"
    assert _best(question("best", ["set"]), {}, few).answer == "not run"


@pytest.mark.parametrize(
    ("with_cause", "without", "answer"),
    [(0.7, 0.5, "yes"), (0.8, 0.65, "in part"), (0.7, 0.7, "no"), (0.5, 0.5, "no gain"), (0.4, 0.9, "no gain")],
)
def test_explains(with_cause: float, without: float, answer: str) -> None:
    found = normal(rigl=with_cause, rigl_own_step=without, random=0.5)
    found = shifted(shifted(found, "rigl", SPREAD), "rigl_own_step", {0: -0.002, 1: 0.001, 2: 0.001})
    assert _explains(question("explains", ["rigl", "rigl_own_step"]), {}, found).answer == answer


def test_faster_begins_where_all_smaller_densities_are_faster() -> None:
    found = {}
    for place, task in enumerate(TASKS):
        dense = Cell(task, "dense", 1.0, values={0: 1.0}, seconds=[10.0])
        found[task.name, "dense", 1.0] = dense
        for density, seconds in ((0.1, 12.0 if place else 5.0), (0.01, 4.0)):
            cell = Cell(task, "random", density, values={0: 1.0}, kernel_seconds=[seconds])
            found[task.name, "random", density] = cell
    answer = _faster(question("faster", ["random"], "dense"), found, {})
    assert answer.answer == f"on {len(TASKS)} of {len(TASKS)} tasks"
    assert "from 10" in answer.details[0]
    assert "from 1\N{NO-BREAK SPACE}%" in answer.details[1]
    found[TASKS[0].name, "random", 0.01].kernel_seconds[0] = 11.0  # then 10 % alone being faster is no beginning
    assert "nowhere" in _faster(question("faster", ["random"], "dense"), found, {}).details[0]


def test_best_names_those_that_do_not_differ() -> None:
    found = normal(set=0.9, mest=0.9, random=0.2)
    answer = _best(question("best", ["set", "mest", "random"]), {}, found)
    assert answer.answer.startswith("set at 10")
    assert "not shown to differ: mest." in answer.details[0]
