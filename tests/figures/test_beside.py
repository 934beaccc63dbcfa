"""What captions of figures along an axis say of the runs behind them."""

from typing import Any

import pytest

from sparse_bench.report.beside import curve_figure, epochs_figure
from sparse_bench.report.papers import Along, Epochs
from sparse_bench.report.selection import SelectionError
from tests.report.evidence import evidence, run


def runs(seeds: dict[float, int]) -> list[dict[str, Any]]:
    """So many seeds for each density."""
    return [
        run("p/x", seed, {"test/f1": density + seed / 100}, curves={"test/f1": [0.1, 0.2]}, density=density)
        for density, number in seeds.items()
        for seed in range(number)
    ]


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ({0.1: 3, 0.2: 3}, "Means over 3 seeds; bars: 95 % t-interval, cut at the axis."),
        ({0.1: 3, 0.2: 2}, "Means over 2 to 3 seeds; bars: 95 % t-interval, cut at the axis."),
        (
            {0.1: 3, 0.2: 1},
            "Means over 1 to 3 seeds; bars: 95 % t-interval, cut at the axis. A marker without a bar is a single run.",
        ),
        ({0.1: 1, 0.2: 1}, "Single runs: there is no interval."),
    ],
)
def test_seeds_of_every_point_are_told(seeds: dict[float, int], said: str) -> None:
    spec = Along.model_validate(
        {
            "kind": "curve",
            "title": "t",
            "of": "test/f1",
            "along": "density",
            "series": [{"label": "x", "experiment": "p/x"}],
        }
    )
    figure = curve_figure(spec, evidence(*runs(seeds)), "p").figure
    assert figure is not None
    assert figure.caption == said


def test_seeds_of_every_line_are_told() -> None:
    series = [{"label": str(d), "experiment": "p/x", "where": {"density": d}} for d in (0.1, 0.2)]
    spec = Epochs.model_validate({"kind": "epochs", "title": "t", "of": "test/f1", "series": series})
    figure = epochs_figure(spec, evidence(*runs({0.1: 2, 0.2: 1})), "p").figure
    assert figure is not None
    assert figure.caption == (
        "Means over 1 to 2 seeds; bands: 95 % t-interval, cut at the axis. A line without a band is a single run."
    )


def test_a_line_of_several_arms_is_refused() -> None:
    spec = Epochs.model_validate(
        {"kind": "epochs", "title": "t", "of": "test/f1", "series": [{"label": "x", "experiment": "p/x"}]}
    )
    with pytest.raises(SelectionError, match=r"2 arms fit, which differ in density \(0.1, 0.2\)"):
        epochs_figure(spec, evidence(*runs({0.1: 2, 0.2: 1})), "p")
