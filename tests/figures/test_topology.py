"""What rewiring did to a topology, from the records of runs."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure as Canvas

from sparse_bench.evidence.arms import studies_of
from sparse_bench.evidence.folders import Problem
from sparse_bench.evidence.single_runs import connections, read_topology
from sparse_bench.evidence.store import load
from sparse_bench.figures.single_run import degree_figure, study_portraits
from sparse_bench.figures.study import evolution_figure
from sparse_bench.figures.style import Figure
from sparse_bench.record import RunFolder
from tests.evidence.runs import write_run
from tests.figures.records import LINES, line, write_dynamic_run


def portraits(root: Path) -> tuple[list[Figure], list[Problem]]:
    """The figures of single runs in the only study of a folder."""
    table, problems = load([root])
    (study,) = studies_of(table.runs)
    return study_portraits(study, table, problems), problems


def change(first: dict[str, Any], last: dict[str, Any]) -> dict[str, Any]:
    return {"first": first, "last": last}


def test_first_against_the_last_of_as_many_connections(tmp_path: Path) -> None:
    folder = write_dynamic_run(tmp_path)
    change = read_topology(RunFolder(folder))
    assert change is not None
    assert (change["first"]["epoch"], change["last"]["epoch"]) == (0, 2)
    assert connections(change["last"]) == 16
    pruned = write_dynamic_run(tmp_path / "pruned", lines=[line(0, 8), line(1, 6), line(2, 4)])
    change = read_topology(RunFolder(pruned))
    assert change is not None
    assert change["last"]["epoch"] == 2


def test_a_topology_that_never_changed_is_no_change(tmp_path: Path) -> None:
    assert read_topology(RunFolder(write_run(tmp_path))) is None
    assert read_topology(RunFolder(write_dynamic_run(tmp_path, lines=LINES[:1]))) is None


def test_an_unfinished_last_line_is_passed_over(tmp_path: Path) -> None:
    folder = RunFolder(write_dynamic_run(tmp_path))
    folder.topology.path.write_text(folder.topology.path.read_text() + '{"epoch": 4, "la')
    change = read_topology(folder)
    assert change is not None
    assert change["last"]["epoch"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [("nonsense\n{}\n", "line 1: not valid JSON"), ('{"epoch": 1}\n{}\n', "line 1: not a description of a topology")],
)
def test_a_broken_record_is_reported_and_the_next_seed_drawn(
    tmp_path: Path, text: str, message: str, drawn: list[Canvas]
) -> None:
    folder = RunFolder(write_dynamic_run(tmp_path))
    folder.topology.path.write_text(text)
    write_dynamic_run(tmp_path, seed=1)
    (figure,), (problem,) = portraits(tmp_path)
    assert problem.reason.startswith("It cannot be drawn: topology.jsonl")
    assert message in problem.reason
    assert figure.caption.startswith("Seed 1,")


def test_one_line_a_curve_with_the_mean_over_seeds(tmp_path: Path, drawn: list[Canvas]) -> None:
    for seed in range(2):
        write_dynamic_run(tmp_path, seed=seed)
        write_run(tmp_path, scheme="dense", density=1.0, seed=seed, epochs=3)
    table, _ = load([tmp_path])
    (study,) = studies_of(table.runs)
    figure = evolution_figure(study, table.histories)
    assert figure is not None
    assert figure.name == "topology--rasa-diet--diet--sara"
    panels = drawn[0].axes
    assert len(panels) == 3
    for axes in panels:
        (drawn_line,) = axes.get_lines()
        assert list(drawn_line.get_xdata()) == [1, 2, 3]
        assert axes.get_ylim()[0] == 0
    assert list(panels[0].get_lines()[0].get_ydata()) == pytest.approx([0.3, 0.2, 0.1])
    assert list(panels[2].get_lines()[0].get_ydata()) == pytest.approx([0.205, 0.305, 0.405])
    assert "Means over 2 seeds." in figure.caption
    alt = figure.alt.replace("\N{NO-BREAK SPACE}", " ")
    assert "turnover, density 20 %: from 0.300 to 0.100" in alt


def test_degrees_on_logarithmic_axes_with_the_fit(tmp_path: Path, drawn: list[Canvas]) -> None:
    for seed in (1, 0):
        write_dynamic_run(tmp_path, seed=seed)
    (figure,), problems = portraits(tmp_path)
    assert figure.name == "degrees--rasa-diet--diet--sara--density-20"
    assert problems == []
    axes = drawn[0].axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    lines = [each for each in axes.get_lines() if len(each.get_xdata())]
    assert len(lines) == 2 * 3  # two layers: first, last, fit
    first, _, fit = lines[:3]
    assert list(first.get_xdata()) == [1, 2, 4]
    assert list(first.get_ydata()) == pytest.approx([1.0, 0.5, 0.25])  # of the four units that are not dead
    assert list(fit.get_xdata()) == [2, 4]
    # ζ(2.5, 2) = 0.341487, ζ(2.5, 4) = ζ(2.5, 2) − 2^-2.5 − 3^-2.5 = 0.100560
    assert list(fit.get_ydata()) == pytest.approx([0.5, 0.5 * 0.100560 / 0.341487], rel=1e-4)
    assert figure.caption.startswith("Seed 0, a line for each layer")
    assert "α is 2.5 to 2.5; the tail holds 40 % of the units" in figure.caption
    assert "in 2 of 2 layers, before training in 0." in figure.caption
    assert "largest degree 4" in figure.alt
    assert len(drawn[1].axes) == 2  # the compact form has both panels too


def test_a_change_of_the_number_of_connections_is_said(drawn: list[Canvas]) -> None:
    figure = degree_figure("stem", "SET", change(line(0, 1500), line(1, 4)), 0)
    assert "Connections: 3,000 before training, 8 after." in figure.caption
    assert "No fit for the in-degree of outputs: too few units." in figure.caption


def test_a_title_tells_the_realised_density_where_it_is_not_the_one_asked_for(
    tmp_path: Path, drawn: list[Canvas]
) -> None:
    write_dynamic_run(tmp_path, weights=20_000)
    (figure,), _ = portraits(tmp_path)
    title = figure.title.replace("\N{NO-BREAK SPACE}", " ")
    assert title == "Degrees before and after training: density 20 % (realised 18.8 %)"
    assert figure.name == "degrees--rasa-diet--diet--sara--density-20"


def test_studies_without_dynamic_arms_have_no_such_figures(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert portraits(tmp_path) == ([], [])
    table, _ = load([tmp_path])
    (study,) = studies_of(table.runs)
    assert evolution_figure(study, table.histories) is None


def test_connections_are_those_of_all_layers() -> None:
    assert connections({"epoch": 0, "layers": {"a": {"active": 3}, "b": {"active": 4}}}) == 7
