"""Figures of performance tables: crossings by hand, what a declaration finds, and every committed table's figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sparse_bench.evidence.compare import SelectionError
from sparse_bench.figures import performance
from sparse_bench.figures.dots import Dot
from sparse_bench.figures.lines import Chart
from sparse_bench.figures.performance import Declared, crossings, declared, performance_figures
from sparse_bench.figures.style import INK, SERIES
from sparse_bench.papers.schema import DescriptionError
from tests.figures.conftest import without_layout

RESULTS = Path(__file__).resolve().parents[2] / "results/performance"
LINEAR = "out_features,in_features,tokens,density,way,speedup\n"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    without_layout(monkeypatch)


@pytest.fixture
def charts(monkeypatch: pytest.MonkeyPatch) -> list[Chart]:
    """The charts that are drawn from now on."""
    seen: list[Chart] = []
    draw = performance.line_chart

    def caught(stem: str, title: str, chart: Chart, **more: Any) -> Any:
        seen.append(chart)
        return draw(stem, title, chart, **more)

    monkeypatch.setattr(performance, "line_chart", caught)
    return seen


def linear(path: Path, **ways: Sequence[float]) -> Path:
    """A table of one layer with the speed-ups of each way at densities 0.1 and 0.4."""
    rows = [f"8,8,16,{d},{way},{v}\n" for way, values in ways.items() for d, v in zip((0.1, 0.4), values, strict=True)]
    table = path / "sparse_linear.csv"
    table.write_text(LINEAR + "".join(rows))
    return table


def test_crossings_by_hand() -> None:
    # The ratio of the lines is 2 at 0.1 and 1/2 at 0.4: half the way on a logarithmic axis, √(0.1 · 0.4).
    (found,) = crossings([(0.4, 1.0), (0.1, 4.0)], [(0.1, 2.0), (0.4, 2.0)])
    assert found == pytest.approx((0.2, 2.0))
    # From 8 to 1/2, three quarters of the way, 0.01 · 100 ** 0.75; the other line goes from 1 to 16 meanwhile: 8.
    (found,) = crossings([(0.01, 8.0), (1.0, 8.0)], [(0.01, 1.0), (1.0, 16.0)])
    assert found == pytest.approx((0.01 * 100**0.75, 8.0))


def test_crossings_between_places_that_both_lines_have() -> None:
    level = [(x, 1.0) for x in (1.0, 2.0, 4.0, 8.0)]
    there_and_back = crossings([(1.0, 2.0), (2.0, 0.5), (4.0, 2.0)], level)
    assert [x for x, _ in there_and_back] == pytest.approx([2**0.5, 8**0.5])
    assert crossings([(1.0, 2.0), (8.0, 1.5)], level) == []
    assert crossings([(1.0, 2.0), (2.0, 1.0), (4.0, 2.0)], level) == [], "a touch"
    assert crossings([(1.0, 0.5), (2.0, 1.0), (4.0, 0.5), (8.0, 1.0)], level) == [], "a touch from below"
    assert [x for x, _ in crossings([(1.0, 2.0), (2.0, 1.0), (4.0, 0.5)], level)] == pytest.approx([2.0])
    assert [x for x, _ in crossings([(1.0, 2.0), (3.0, 0.1), (4.0, 0.5)], level)] == pytest.approx([2.0])
    assert crossings([(3.0, 2.0)], level) == []


def test_the_crossing_with_dense_bf16_is_told_and_marked(tmp_path: Path, charts: list[Chart]) -> None:
    table = linear(tmp_path, dense=[1, 1], kernel=[4, 1], dense_bf16=[2, 2], csr=[1, 0.5])
    (figure,) = performance_figures(table, declared()["sparse_linear"])
    assert "Kernel: 20\N{NO-BREAK SPACE}% (16 tokens)." in figure.caption
    assert "where a line meets “dense, bf16”" in figure.caption
    assert "kernel: from 4" in figure.alt
    lines = {line.label: line for line in charts[0].panels[0].lines}
    assert list(lines) == ["kernel", "CSR", "dense, bf16", "dense, float32", "crossover"]
    assert lines["crossover"].mark
    assert lines["crossover"].x == pytest.approx([0.2])
    assert lines["dense, bf16"].look.colour == INK
    assert list(lines["dense, float32"].y) == [1, 1]


def test_ways_that_come_later_change_no_colour(tmp_path: Path, charts: list[Chart]) -> None:
    entry = declared()["sparse_linear"]
    before = linear(tmp_path, dense=[1, 1], kernel=[4, 1], dense_bf16=[2, 2], csr=[1, 0.5])
    performance_figures(before, entry)
    ways = {
        "dense": [1, 1],
        "kernel": [4, 3],
        "kernel_bf16": [9, 1],
        "dense_bf16": [2, 2],
        "csr": [1, 0.5],
        "new": [3, 3],
    }
    (figure,) = performance_figures(linear(tmp_path, **ways), entry)
    first, second = ({line.label: line.look for line in chart.panels[0].lines} for chart in charts)
    assert {label: second[label] for label in first} == first
    assert {"kernel, bf16", "new"} <= second.keys()
    assert "Kernel: above it at all measured points (16 tokens). Kernel, bf16: 26" in figure.caption


def test_each_size_has_a_figure_the_last_one_first(tmp_path: Path) -> None:
    table = tmp_path / "sparse_linear.csv"
    rows = [f"{n},{n},{t},{d},kernel,{1 / d}\n" for n in (512, 2048) for t in (16, 64) for d in (0.1, 0.4)]
    table.write_text(LINEAR + "".join(rows))
    figures = performance_figures(table, declared()["sparse_linear"])
    assert [figure.title.split(", ", 1)[1] for figure in figures] == ["2,048 × 2,048", "512 × 512"]
    assert "64 tokens, kernel: from 10" in figures[0].alt


def test_dots_with_quartiles_and_without_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Dot] = []
    draw = performance.dot_plot

    def caught(stem: str, title: str, dots: list[Dot], *rest: Any, **more: Any) -> Any:
        seen.extend(dots)
        return draw(stem, title, dots, *rest, **more)

    monkeypatch.setattr(performance, "dot_plot", caught)
    table = tmp_path / "set_epoch.csv"
    head = '"epoch over dense, whole steps",whole steps\n'
    table.write_text(f"arm,{head}dense,1.0,1.00 (0.97–1.03)\nSET,0.5,0.5 to 0.6\nodd,,\n")
    (figure,) = performance_figures(table, declared()["set_epoch"])
    assert [(dot.label, dot.quartiles) for dot in seen] == [("dense", (0.97, 1.03)), ("SET", (0.5, 0.6))]
    assert "Lines: quartiles. Not measured: odd." in figure.caption
    assert "SET: measured 0.5" in figure.alt


def test_tables_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "set_epoch.csv"
    table.write_text('arm,whole step,"epoch over dense, whole steps"\ndense,1,1\n')
    with pytest.raises(SelectionError, match=r"set_epoch.csv.*Unknown column 'whole steps'. Did you mean 'whole step'"):
        performance_figures(table, declared()["set_epoch"])
    twice = linear(tmp_path, kernel=[4, 1])
    twice.write_text(twice.read_text() + "8,8,16,0.4,kernel,3\n")
    with pytest.raises(SelectionError, match="do not tell all rows apart"):
        performance_figures(twice, declared()["sparse_linear"])


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("{tables: [a]}", "needs figures, or a reason"),
        ("{tables: [a], figures: [{kind: bars}]}", "bars"),
        ("{tables: [a], figures: [{kind: lines, title: t, of: x, axis: y, along: d, below: d, horizontal: linear}]}",
         "needs one column and a series"),
    ],
)  # fmt: skip
def test_faulty_declarations_are_refused(tmp_path: Path, entry: str, fault: str) -> None:
    path = tmp_path / "faulty.yaml"
    path.write_text(f"entries: [{entry}]\n")
    with pytest.raises(DescriptionError, match=fault):
        declared(path)


@pytest.mark.skipif(not RESULTS.is_dir(), reason="needs the repository's results")
def test_every_committed_table_has_a_figure_or_a_reason() -> None:
    entries = declared()
    tables = {path.stem: path for path in RESULTS.glob("*.csv")}
    assert tables.keys() <= entries.keys()
    assert {path.stem for path in RESULTS.glob("*.md")} <= tables.keys(), "a table without rows has no figure"
    found = {name: performance_figures(path, entries[name]) for name, path in tables.items()}
    # New reasons belong here too, so that nobody leaves a figure out in passing.
    assert {name for name in tables if not found[name]} == {"sparse_gradient_support"}
    names = [figure.name for figures in found.values() for figure in figures]
    assert len(names) == len(set(names))


def test_the_order_of_the_page() -> None:
    order = list(declared())
    wanted = ["sparse_linear", "sparse_models", "sparsify", "sparse_lstm", "block_lstm", "launchers"]
    assert sorted(wanted, key=order.index) == wanted


def test_a_declaration_needs_no_colours(tmp_path: Path, charts: list[Chart]) -> None:
    table = tmp_path / "own.csv"
    table.write_text("x,arm,times\n1,a,2\n2,a,3\n1,b,4\n")
    spec = {"kind": "lines", "title": "T", "axis": "times", "along": "x", "below": "x", "horizontal": "linear"}
    entry = Declared.model_validate({"tables": ["own"], "figures": [{**spec, "of": "times", "series": "arm"}]})
    (figure,) = performance_figures(table, entry)
    assert [line.look.colour for line in charts[0].panels[0].lines] == list(SERIES[:2])
    assert figure.caption == ""
