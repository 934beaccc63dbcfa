"""Figures that a page describes: what they draw beside published numbers, and what captions say of the runs."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure as Canvas

from sparse_bench.evidence.compare import SelectionError
from sparse_bench.evidence.statistics import mean_interval
from sparse_bench.figures.described import dots_figure, lines_figure
from sparse_bench.figures.dots import Dot, dot_plot
from sparse_bench.figures.style import MUTED, SERIES
from sparse_bench.papers.page import Along, Dots, Epochs, Paper
from sparse_bench.papers.published import Number
from tests.evidence.by_hand import evidence, run

SECTION: dict[str, Any] = {"heading": "h", "experiments": ["p/x"], "command": "make"}


@pytest.fixture
def paper(tmp_path: Path) -> Paper:
    """A paper with a file of published numbers."""
    (tmp_path / "known.csv").write_text(
        "# source: Table 3.\nseries,x,value,spread\nx,0.1,0.5,\nx,0.2,0.6,\none,,0.4,0.1\n"
    )
    about = {"title": "t", "short": "p", "document": "d", "summary": "s", "curves": ["test/*"]}
    return Paper.model_validate(
        {**about, "experiments": ["p/x"], "sections": [SECTION], "name": "p", "folder": tmp_path}
    )


def runs(seeds: dict[float, int]) -> list[dict[str, Any]]:
    """So many seeds for each density."""
    return [
        run("p/x", seed, {"test/f1": density + seed / 100}, curves={"test/f1": [0.1, 0.2]}, density=density)
        for density, number in seeds.items()
        for seed in range(number)
    ]


def along(**more: Any) -> Along:
    series = [{"label": "x", "experiment": "p/x"} | more.pop("series", {})]
    return Along.model_validate(
        {"kind": "curve", "title": "t", "of": "test/f1", "along": "density", "series": series, **more}
    )


def dots(**more: Any) -> Dots:
    rows = [
        {"label": str(d), "of": "test/f1", "first": {"experiment": "p/x", "where": {"density": d}}} for d in (0.1, 0.2)
    ]
    return Dots.model_validate({"kind": "dots", "title": "t", "axis": "F1", "rows": rows, **more})


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ({0.1: 3, 0.2: 3}, "Means over 3 seeds. Bars: 95 % t-interval, from three seeds on. Faint dots: single runs."),
        (
            {0.1: 3, 0.2: 2},
            "Means over 2 to 3 seeds. Bars: 95 % t-interval, from three seeds on. Faint dots: single runs.",
        ),
        (
            {0.1: 3, 0.2: 1},
            "Means over 1 to 3 seeds. Bars: 95 % t-interval, from three seeds on. Faint dots: single runs. "
            "A marker without a bar may be a single run.",
        ),
        ({0.1: 2, 0.2: 2}, "Means over 2 seeds. Faint dots: single runs."),
        ({0.1: 1, 0.2: 1}, "Single runs: there is no interval."),
    ],
)
def test_seeds_of_every_point_are_told(seeds: dict[float, int], said: str, paper: Paper, drawn: list[Canvas]) -> None:
    figure = lines_figure(along(), evidence(*runs(seeds)), paper)
    assert figure is not None
    assert figure.caption == said


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        (
            {0.1: 3, 0.2: 1},
            "Means over 1 to 3 seeds. Bands: 95 % t-interval, from three seeds on. "
            "A line without a band may be a single run.",
        ),
        ({0.1: 2, 0.2: 2}, "Means over 2 seeds."),
    ],
)
def test_seeds_of_every_line_are_told(seeds: dict[float, int], said: str, paper: Paper, drawn: list[Canvas]) -> None:
    series = [{"label": str(d), "experiment": "p/x", "where": {"density": d}} for d in (0.1, 0.2)]
    spec = Epochs.model_validate({"kind": "epochs", "title": "t", "of": "test/f1", "series": series})
    spread = [one | {"curves": {"test/f1": [0.1, 0.2 + one["row"]["seed"] / 100]}} for one in runs(seeds)]
    figure = lines_figure(spec, evidence(*spread), paper)
    assert figure is not None
    assert figure.caption == said
    assert len(drawn[0].axes[0].collections) == (1 if 3 in seeds.values() else 0)


def test_a_line_of_several_arms_is_refused(paper: Paper) -> None:
    spec = Epochs.model_validate(
        {"kind": "epochs", "title": "t", "of": "test/f1", "series": [{"label": "x", "experiment": "p/x"}]}
    )
    with pytest.raises(SelectionError, match=r"2 arms fit, which differ in density \(0.1, 0.2\)"):
        lines_figure(spec, evidence(*runs({0.1: 2, 0.2: 1})), paper)


def test_two_seeds_of_an_arm_are_dots_without_a_bar(paper: Paper, drawn: list[Canvas]) -> None:
    lines_figure(along(), evidence(*runs({0.1: 2, 0.2: 1})), paper)
    axes = drawn[0].axes[0]
    assert len(axes.collections) == 0
    (faint,) = (line for line in axes.get_lines() if line.get_linestyle() == "None")
    assert list(faint.get_xdata()) == [0.1, 0.1]
    assert list(faint.get_ydata()) == pytest.approx([0.1, 0.11])


def test_published_numbers_are_dashed_and_their_source_is_told(paper: Paper, drawn: list[Canvas]) -> None:
    spec = along(published="known", series={"published": "x"})
    figure = lines_figure(spec, evidence(*runs({0.1: 1, 0.2: 1})), paper)
    assert figure is not None
    labels = drawn[0].axes[0].get_legend_handles_labels()[1]
    assert labels == ["x", "x, published"]
    assert figure.caption.endswith("Dashed: published. Published numbers: Table 3.")


def test_an_arm_that_diverged_is_left_out_and_named(paper: Paper, drawn: list[Canvas]) -> None:
    lost = run("p/x", 0, {"test/f1": 2.9e294}, density=0.5)
    found = evidence(*runs({0.1: 2, 0.2: 2}), lost)
    figure = lines_figure(along(), found, paper)
    assert figure is not None
    assert figure.caption.endswith("Not drawn, because they diverged: x at 0.5.")
    assert drawn[0].axes[0].get_ylim()[1] < 1
    rows = [
        {"label": str(d), "of": "test/f1", "first": {"experiment": "p/x", "where": {"density": d}}} for d in (0.1, 0.5)
    ]
    figure, table = dots_figure(dots(rows=rows), found, paper)
    assert figure is not None
    assert figure.caption.endswith("Not drawn, because they diverged: 0.5.")
    assert drawn[-1].axes[0].get_xlim()[1] < 1
    assert [row[1] for row in table.rows][1] == "2.9e+294 (n = 1)"


def places(canvas: Canvas, colour: str) -> list[float]:
    """At which height the dots of a colour stand, without the faint ones of single runs."""
    dots = [line for line in canvas.axes[0].get_lines() if line.get_color() == colour and line.get_alpha() is None]
    return [float(line.get_ydata()[0]) for line in dots if line.get_marker() != "None"]


def test_dots_stand_on_the_line_of_their_label_without_published_numbers(paper: Paper, drawn: list[Canvas]) -> None:
    dots_figure(dots(), evidence(*runs({0.1: 3, 0.2: 3})), paper)
    ticks = drawn[0].axes[0].get_yticks()
    assert sorted(places(drawn[0], SERIES[0])) == sorted(ticks) == [0, 1]


def test_dots_stand_as_far_below_the_line_as_published_ones_above(paper: Paper, drawn: list[Canvas]) -> None:
    rows = [
        {"label": "x", "of": "test/f1", "published": "one", "first": {"experiment": "p/x", "where": {"density": 0.1}}}
    ]
    figure, table = dots_figure(dots(rows=rows, published="known"), evidence(*runs({0.1: 3})), paper)
    (ours,), (published,) = places(drawn[0], SERIES[0]), places(drawn[0], MUTED)
    assert ours == -published < 0
    assert [list(row) for row in table.rows] == [["x", "0.4 ± 0.1", "0.110 ± 0.025", "3"]]
    assert figure is not None
    assert figure.caption == (
        "Dots: means over seeds. Lines: 95 % t-interval, from three seeds on. Faint dots: single runs. "
        "Published numbers: Table 3."
    )


def test_two_seeds_of_a_row_are_faint_dots_without_a_line(paper: Paper, drawn: list[Canvas]) -> None:
    figure, _ = dots_figure(dots(), evidence(*runs({0.1: 2, 0.2: 1})), paper)
    lines = drawn[0].axes[0].get_lines()
    assert all(line.get_linestyle() == "None" or len(line.get_xdata()) == 1 for line in lines)
    (faint,) = (line for line in lines if line.get_alpha() is not None)
    assert list(faint.get_xdata()) == pytest.approx([0.1, 0.11])
    assert figure is not None
    assert figure.caption == (
        "Dots: means over seeds. Faint dots: single runs. A dot without a line may be a single run."
    )


def test_a_row_that_has_not_been_run_shows_the_published_number_alone(drawn: list[Canvas]) -> None:
    rows = [
        Dot("run", mean_interval([0.1, 0.2, 0.3]), False, None, (0.1, 0.2, 0.3)),
        Dot("never", None, False, Number(None, 0.4, None)),
    ]
    figure = dot_plot("stem", "Title", rows, "F1", "A note.")
    assert figure is not None
    assert figure.alt == "Dot plot of F1. run: measured 0.200. never: published 0.400, measured –."
    assert dot_plot("stem", "Title", rows[1:], "F1", "") is None
