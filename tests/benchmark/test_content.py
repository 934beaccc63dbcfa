"""From runs on disk to the page's parts: which runs count, what is shown, and one's own scheme beside the others."""

from pathlib import Path

import pytest

from sparse_bench.benchmark import rates
from sparse_bench.benchmark.cells import cells, density_of
from sparse_bench.benchmark.content import CELLS, LATEX, compared, content, own_rates
from sparse_bench.benchmark.figures import cost_figure
from sparse_bench.benchmark.rates import Trial, best_of, choose
from sparse_bench.benchmark.statistics import scores
from sparse_bench.benchmark.tasks import TASKS, BenchmarkError, baselines
from sparse_bench.evidence.store import RunTable, load, write
from tests.evidence.runs import write_run

RATES = {task.name: {"dense": 0.001, "random": 0.001, "set": 0.003} for task in TASKS}


def run(
    root: Path,
    task,
    scheme: str,
    density: float | None,
    value: float,
    *,
    seed: int = 0,
    rate: float = 0.001,
    execution: str = "masked",
) -> None:
    """Write a run whose metrics are all ``value``; it took ten processor seconds."""
    config = {
        "experiment_name": task.experiment,
        "seed": seed,
        "model": {"label": "diet", "transformer_size": 64},
        "dataset": {"label": "sara"},
        "sparsity": {"label": scheme, "density": density, "layers": ["default"], "execution": execution},
        "optimizer": {"label": "adam", "lr": rate},
        "trainer": {"epochs": 12},
    }
    write_run(
        root,
        scheme=scheme,
        density=density,
        seed=seed,
        experiment=task.experiment,
        config=config,
        history=False,
        metrics={task.metric: value, task.chosen_by: value},
        seconds={"total": 12.0, "train": 11.0, "train_processor": 10.0, "evaluate": 1.0},
    )


def good(task, share: float) -> float:
    """A value of a task's metric that is worth about ``share``."""
    return 100.0 ** (1 - share) * 20.0**share if task.lower_is_better else 0.2 + 0.6 * share


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> RunTable:
    root = tmp_path_factory.mktemp("grid")
    for task in TASKS:
        for seed in range(3):
            run(root, task, "dense", 1.0, good(task, 1.0 + 0.01 * seed), seed=seed)
            run(root, task, "random", 0.1, good(task, 0.5 + 0.01 * seed), seed=seed)
            run(root, task, "set", 0.1, good(task, 0.8 + 0.01 * seed), seed=seed, rate=0.003)
        run(root, task, "set", 0.1, good(task, 0.1), rate=0.01)  # a rate that was tried and not chosen
    return load([root])[0]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    lines = [f"{task.name},{task.metric},targets,{100 if task.lower_is_better else 0.2}" for task in TASKS]
    (tmp_path / "baselines.csv").write_text("\n".join(["task,metric,counts,value", *lines, ""]), encoding="utf-8")
    return tmp_path


def test_runs_with_a_rate_that_was_not_chosen_do_not_count(grid: RunTable) -> None:
    found = cells(grid, RATES)
    assert {key[1] for key in found} == {"dense", "random", "set"}
    assert {len(cell.values) for cell in found.values()} == {3}
    assert {cell.rate for cell in found.values() if cell.scheme == "set"} == {0.003}


def test_kernel_runs_give_seconds_alone(tmp_path: Path) -> None:
    run(tmp_path, TASKS[0], "random", 0.1, 0.5)
    run(tmp_path, TASKS[0], "random", 0.1, 0.9, execution="kernel")
    ((_, cell),) = cells(load([tmp_path])[0], None).items()
    assert cell.values == {0: 0.5}
    assert (len(cell.seconds), len(cell.kernel_seconds)) == (1, 1)


@pytest.mark.parametrize(
    ("row", "density"),
    [
        ({"label:scheme": "dense", "label:density": 1.0}, 1.0),
        ({"label:scheme": "set", "label:density": 0.05}, 0.05),
        ({"label:scheme": "block_diagonal", "count:density": 0.2}, 0.2),
        ({"label:scheme": "block_diagonal", "count:density": 0.0505}, 0.05),
        ({"label:scheme": "block_diagonal", "count:density": 0.25}, None),
        ({"label:scheme": "mine", "label:density": 0.3}, None),
    ],
)
def test_density(row, density) -> None:
    assert density_of({"count:density": None, "label:density": None, **row}) == density


def test_the_best_rate_is_the_lower_of_equally_good_ones_and_directions_differ() -> None:
    lower = next(task for task in TASKS if task.lower_is_better)
    higher = next(task for task in TASKS if not task.lower_is_better)
    tried = [(0.01, 5.0), (0.001, 5.0), (0.003, 7.0)]
    assert best_of(lower, tried) == 0.001
    assert best_of(higher, tried) == 0.003
    assert best_of(lower, [(0.01, float("nan")), (0.001, 9.0)]) == 0.001
    with pytest.raises(BenchmarkError, match="finite"):
        best_of(lower, [(0.01, float("inf"))])


def test_a_choice_needs_every_run() -> None:
    full = [Trial("lstm", "set", rate, value) for rate, value in ((0.001, 9.0), (0.003, 8.0), (0.01, 8.5))]
    assert choose(full) == {"lstm": {"set": 0.003}}
    with pytest.raises(BenchmarkError, match=r"1 runs .* lstm mest 0.01"):
        choose([*full, Trial("lstm", "mest", 0.01, None)])


def test_the_written_file_is_what_the_experiments_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shared").mkdir()
    monkeypatch.setattr(rates, "CONF", tmp_path)
    rates.write({"lstm": {"set": 0.001, "rigl": 0.01}}, "Chosen.")
    assert rates.chosen() == {"lstm": {"set": 0.001, "rigl": 0.01}}


def test_every_part_is_made(grid: RunTable, results: Path) -> None:
    found = content(grid, results, RATES)
    assert [part.heading for part in found.parts][:3] == ["Answers", "All tasks", "Scheme by task and density"]
    names = {figure.name for part in found.parts for figure in part.figures}
    assert {"benchmark--all-tasks", "benchmark--lstm", "benchmark--profile--0.1"} <= names
    (heat,) = found.parts[2].tables
    line = [row[0] for row in heat.rows].index("set")
    column = heat.columns.index("lstm 0.1")
    assert heat.rows[line][column] == "0.80"
    assert heat.shades[line, column] == 8
    assert heat.links[line, column].startswith("runs/benchmark-lstm-")
    assert "set & " in found.files[LATEX]
    assert len(found.files[CELLS].splitlines()) == 1 + 3 * len(TASKS)


def test_a_cell_without_a_score_is_no_point_of_the_costs(grid: RunTable, results: Path) -> None:
    found = cells(grid, RATES)
    normal = scores(found, baselines(results))
    del normal[TASKS[0].name, "set", 0.1]
    figure = cost_figure(normal, found, "seconds")
    assert figure is not None
    assert figure.alt.endswith("Best first: random.")


def test_an_own_scheme_appears_beside_the_committed_ones(grid: RunTable, results: Path, tmp_path: Path) -> None:
    committed = results / "committed"
    write(grid, committed)
    (committed / "baselines.csv").write_text((results / "baselines.csv").read_text(encoding="utf-8"), encoding="utf-8")
    own = tmp_path / "own"
    for task in TASKS:
        for rate, share in ((0.001, 0.3), (0.003, 0.9), (0.01, 0.2)):
            run(own, task, "mine", 0.1, good(task, share), rate=rate)
    table = load([own])[0]
    assert own_rates(table, RATES)["lstm"]["mine"] == 0.003
    found = compared(table, committed)
    assert "lstm,mine,0.1" in found.files[CELLS]
    (figure,) = [figure for part in found.parts for figure in part.figures if figure.name == "benchmark--lstm"]
    assert "mine" in figure.alt


def test_runs_of_other_experiments_are_no_benchmark(tmp_path: Path, results: Path) -> None:
    write_run(tmp_path / "runs")
    with pytest.raises(BenchmarkError, match="sweep=benchmark/one"):
        compared(load([tmp_path / "runs"])[0], results)


def test_missing_baselines_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"scripts/counting\.py benchmark"):
        baselines(tmp_path)
