"""What rewiring did to a topology, from the records of runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas

from sparse_bench.record import RunFolder
from sparse_bench.report.arms import studies_of
from sparse_bench.report.build import build
from sparse_bench.report.learning_curves import read_histories
from sparse_bench.report.load import load
from sparse_bench.report.topology import Snapshot, read_topologies, read_topology, topology_figures
from tests.report.runs import write_run

#: Two units of degree 1, one of 2, one of 4, and one that is dead.
DEGREES = {
    "dead": 1,
    "mean": 1.6,
    "variance_to_mean": 1.15,
    "skew": 0.8,
    "degrees": [0, 1, 2, 4],
    "counts": [1, 2, 1, 1],
    "power_law": None,
}
AGAINST = {"ratio": 2.5, "p": 0.01}
FIT = {
    "alpha": 2.5,
    "xmin": 2,
    "ks": 0.1,
    "tail": 2,
    "favoured": True,
    "exponential": AGAINST,
    "poisson": AGAINST,
}


def line(epoch: int, active: int, fitted: bool = False) -> dict[str, Any]:
    degrees = DEGREES | {"power_law": FIT if fitted else None}
    layer = {"active": active, "size": 64, "in_degree": degrees, "out_degree": degrees}
    return {"epoch": epoch, "step": 10 * epoch, "layers": {"a.weight": layer, "b.weight": layer}}


LINES = [line(0, 8), line(1, 8), line(2, 8, fitted=True), line(3, 6)]


def write_dynamic_run(root: Path, seed: int = 0, lines: list[dict[str, Any]] = LINES, **settings: Any) -> Path:
    folder = write_run(root, scheme="set", density=0.2, seed=seed, epochs=3, **settings)
    RunFolder(folder).topology.path.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    history = RunFolder(folder).metrics
    entries = [json.loads(text) for text in history.path.read_text().splitlines()]
    for number, entry in enumerate(entries):
        entry |= {
            "topology/turnover": 0.3 - 0.1 * number,
            "topology/overlap": 0.7**number,
            "topology/exploration": 0.2 + 0.1 * number + 0.01 * seed,
        }
    history.path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


def test_first_against_the_last_of_as_many_connections(tmp_path: Path) -> None:
    folder = write_dynamic_run(tmp_path)
    change = read_topology(RunFolder(folder))
    assert change is not None
    assert (change.first.epoch, change.last.epoch) == (0, 2)
    assert change.last.connections == 16
    pruned = write_dynamic_run(tmp_path / "pruned", lines=[line(0, 8), line(1, 6), line(2, 4)])
    change = read_topology(RunFolder(pruned))
    assert change is not None
    assert change.last.epoch == 2


def test_a_topology_that_never_changed_is_no_change(tmp_path: Path) -> None:
    assert read_topology(RunFolder(write_run(tmp_path))) is None
    assert read_topology(RunFolder(write_dynamic_run(tmp_path, lines=LINES[:1]))) is None


def test_an_unfinished_last_line_is_passed_over(tmp_path: Path) -> None:
    folder = RunFolder(write_dynamic_run(tmp_path))
    folder.topology.path.write_text(folder.topology.path.read_text() + '{"epoch": 4, "la')
    change = read_topology(folder)
    assert change is not None
    assert change.last.epoch == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [("nonsense\n{}\n", "line 1: not valid JSON"), ('{"epoch": 1}\n{}\n', "line 1: no record of a topology")],
)
def test_a_broken_record_is_reported_and_the_page_is_built(
    tmp_path: Path, text: str, message: str, drawn: list[Canvas]
) -> None:
    folder = RunFolder(write_dynamic_run(tmp_path / "runs"))
    folder.topology.path.write_text(text)
    built = build(load([tmp_path / "runs"]), tmp_path / "out")
    (problem,) = built.problems
    assert problem.reason.startswith("Its topology cannot be read: topology.jsonl")
    assert message in problem.reason


def test_one_line_a_curve_with_the_mean_over_seeds(tmp_path: Path, drawn: list[Canvas]) -> None:
    for seed in range(2):
        write_dynamic_run(tmp_path, seed=seed)
        write_run(tmp_path, scheme="dense", density=1.0, seed=seed, epochs=3)
    results = load([tmp_path])
    (study,) = studies_of(results.runs)
    figures = topology_figures(study, read_histories(results)[0], read_topologies(results)[0])
    assert [figure.name.split("--")[0] for figure in figures] == ["topology", "degrees"]
    panels = drawn[0].axes
    assert len(panels) == 3
    for axes in panels:
        (drawn_line,) = axes.get_lines()
        assert list(drawn_line.get_xdata()) == [1, 2, 3]
    assert list(panels[0].get_lines()[0].get_ydata()) == pytest.approx([0.3, 0.2, 0.1])
    assert list(panels[2].get_lines()[0].get_ydata()) == pytest.approx([0.205, 0.305, 0.405])
    assert "Mean over 2 seeds" in figures[0].caption
    assert "turnover: 0.300 at first, 0.100 at last" in figures[0].alt


def test_degrees_on_logarithmic_axes_with_the_fit(tmp_path: Path, drawn: list[Canvas]) -> None:
    for seed in (1, 0):
        write_dynamic_run(tmp_path, seed=seed)
    results = load([tmp_path])
    (study,) = studies_of(results.runs)
    figure = topology_figures(study, {}, read_topologies(results)[0])[0]
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
    assert "α from 2.5 to 2.5, for a tail of 40 % of the units" in figure.caption
    assert "in 2 of 2 layers, at first in 0." in figure.caption
    assert "largest degree 4" in figure.alt
    assert len(drawn[1].axes) == 2  # the compact form has both panels too


def test_a_change_of_the_number_of_connections_is_said(tmp_path: Path, drawn: list[Canvas]) -> None:
    write_dynamic_run(tmp_path, lines=[line(0, 1500), line(1, 4)])
    results = load([tmp_path])
    (study,) = studies_of(results.runs)
    (figure,) = topology_figures(study, {}, read_topologies(results)[0])
    assert "Connections: 3,000 at first, 8 at last." in figure.caption
    assert "No fit of the in-degree of outputs: too few units." in figure.caption


def test_studies_without_dynamic_arms_have_no_such_figures(tmp_path: Path) -> None:
    write_run(tmp_path)
    results = load([tmp_path])
    (study,) = studies_of(results.runs)
    assert topology_figures(study, read_histories(results)[0], read_topologies(results)[0]) == []


def test_the_page_shows_them_and_stale_ones_are_removed(tmp_path: Path) -> None:
    write_dynamic_run(tmp_path / "runs")
    figures = tmp_path / "out/figures"
    figures.mkdir(parents=True)
    (figures / "degrees--old.svg").touch()
    built = build(load([tmp_path / "runs"]), tmp_path / "out")
    names = {path.name for path in built.paths}
    assert "topology--rasa-diet--diet--sara.svg" in names
    assert "degrees--rasa-diet--diet--sara--density-20.png" in names
    assert not (figures / "degrees--old.svg").exists()
    page = (tmp_path / "out/index.html").read_text()
    assert "<h3>Topology</h3>" in page
    assert np.all([f'id="{name}"' in page for name in ("topology--rasa-diet--diet--sara",)])


def test_connections_are_those_of_all_layers() -> None:
    assert Snapshot(0, {"a": {"active": 3}, "b": {"active": 4}}).connections == 7
