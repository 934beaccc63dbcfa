"""The benchmark's sweeps start every cell of the grid, or say why not."""

from itertools import product
from pathlib import Path

import pytest
import yaml

from sparse_bench.benchmark import rates
from sparse_bench.benchmark.questions import read_questions
from sparse_bench.benchmark.tables import left_out
from sparse_bench.benchmark.tasks import CHOSEN_AT, DENSITIES, TASKS
from sparse_bench.config import CONF, choices
from sparse_bench.sweeps import overrides

#: Sweeps that give cells, and the density of arms that the sweep leaves to the scheme's own file.
SWEEPS = ("dense", "two_of_four", "all", "units", "blocks", "tiers", "more_densities")


def entry(name: str) -> dict[str, object]:
    """The settings of a file in conf/benchmark, with the scheme that it chooses as ``of``."""
    content = yaml.safe_load((CONF / "benchmark" / f"{name}.yaml").read_text(encoding="utf-8"))
    (chosen,) = [default["override /sparsity"] for default in content["defaults"]]
    return {"label": chosen, "of": chosen, **content.get("sparsity", {})}


def started(sweep: str) -> set[tuple[str, str, float]]:
    """Task, label and density of every run of a sweep."""
    found = set()
    for job in overrides(f"benchmark/{sweep}"):
        given = dict(text.split("=", 1) for text in job)
        own = entry(given["benchmark"])
        density = given.get("sparsity.density") or own.get("density") or (1.0 if own["of"] == "dense" else None)
        if density is None:
            density = 1 / int(given.get("sparsity.blocks", str(own["blocks"])))
        found.add((given["experiment"].removeprefix("benchmark/"), str(own["label"]), float(density)))
    return found


def test_every_cell_is_run_or_left_out_for_a_reason_and_never_both() -> None:
    run = set[tuple[str, str, float]]().union(*map(started, SWEEPS))
    schemes = {*choices("sparsity"), *(str(entry(name)["label"]) for name in choices("benchmark"))} - {"dense"}
    tasks = [task.name for task in TASKS]
    for key in product(tasks, sorted(schemes), DENSITIES):
        reasons = [one for one in left_out() if one.covers(key)]
        assert (key in run) == (not reasons), key
        assert len(reasons) <= 1, key
    assert {(task, "dense", 1.0) for task in tasks} <= run


def test_the_quick_form_is_a_part_of_the_whole() -> None:
    assert started("quick") < started("all")
    assert started("quick_dense") == started("dense")


def test_every_scheme_of_a_task_has_a_learning_rate_and_three_are_tried() -> None:
    run = {(task, scheme) for sweep in SWEEPS for task, scheme, _ in started(sweep)}
    known = {(task, scheme) for task, by_scheme in rates.chosen().items() for scheme in by_scheme}
    assert run == known
    tried: dict[tuple[str, str], set[str]] = {}
    for sweep in rates.SWEEPS:
        for job in overrides(sweep):
            given = dict(text.split("=", 1) for text in job)
            key = (given["experiment"].removeprefix("benchmark/"), str(entry(given["benchmark"])["label"]))
            tried.setdefault(key, set()).add(given["optimizer.lr"])
    assert set(tried) == run
    assert {frozenset(one) for one in tried.values()} == {frozenset({"0.001", "0.003", "0.01"})}


@pytest.mark.parametrize("name", sorted({*choices("benchmark")} - {"dense", "ste_2_4", "block_diagonal"}))
def test_rates_are_tried_at_one_density(name: str) -> None:
    assert entry(name)["density"] == CHOSEN_AT


def test_questions_ask_about_schemes_and_densities_that_run() -> None:
    run = set[tuple[str, str, float]]().union(*map(started, SWEEPS))
    for question in read_questions().questions:
        for scheme in question.schemes:
            densities = {density for _, name, density in run if name == scheme}
            assert densities & set(question.densities), (question.id, scheme)
        assert question.against in {name for _, name, _ in run}


def test_every_task_has_an_experiment() -> None:
    folder = CONF / "experiment" / "benchmark"
    assert {path.stem for path in Path(folder).glob("*.yaml")} == {task.name for task in TASKS}
