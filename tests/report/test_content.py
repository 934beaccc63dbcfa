"""Tables of a section of a paper's page."""

import pandas as pd
import pytest

from sparse_bench.report.arms import Arm
from sparse_bench.report.selection import Runs, one_arm
from sparse_bench.report.site.content import arms_table, differences_table
from tests.report.evidence import evidence, run

METRIC = "valid/sentence_accuracy"
ORIGINAL, SET = "brouns/small/original", "brouns/small/set"


def counts(density: float) -> dict[str, float]:
    return {"count:density": density, "count:sparse_layers": 9}


@pytest.fixture
def runs() -> tuple[pd.DataFrame, Arm]:
    """Two experiments of three seeds, SET ahead by .1, .11 and .09; and the first one's arm."""
    arms = {ORIGINAL: (1.0, "dense", (0.50, 0.52, 0.54)), SET: (0.05, "set", (0.60, 0.63, 0.63))}
    found = evidence(
        *(
            run(
                name, seed, {METRIC: value}, scheme=scheme, columns={"count:density": density, "count:sparse_layers": 9}
            )
            for name, (density, scheme, values) in arms.items()
            for seed, value in enumerate(values)
        )
    )
    chosen = found.runs(Runs(ORIGINAL))
    assert chosen is not None
    return chosen[0].runs, one_arm(chosen[1])


def test_arms_of_several_experiments_with_their_realised_density(runs: tuple[pd.DataFrame, Arm]) -> None:
    table = arms_table(runs[0], [METRIC, "test/never_measured"])
    cells = {row[0]: row for row in table.rows}
    assert [cell.replace("\N{NO-BREAK SPACE}", " ") for cell in cells[SET][1:4]] == ["set", "5 %", "9"]
    assert cells[ORIGINAL][5] == "0.520 ± 0.050"
    assert len(table.columns) == 7


def test_differences_are_paired_and_corrected(runs: tuple[pd.DataFrame, Arm]) -> None:
    table = differences_table(*runs, ORIGINAL, [METRIC, "test/never_measured"])
    assert table is not None
    # Mean .1, standard deviation .01: ± 4.303 · .01 / √3.
    assert [row[-1] for row in table.rows] == ["+0.100 ± 0.025 *"]
    assert f"Differences to {ORIGINAL}. Paired" in table.caption


def test_an_arm_alone_is_compared_with_nothing(runs: tuple[pd.DataFrame, Arm]) -> None:
    alone = runs[0][runs[0]["experiment"] == ORIGINAL]
    assert differences_table(alone, runs[1], ORIGINAL, [METRIC]) is None
    assert differences_table(*runs, ORIGINAL, ["test/never_measured"]) is None
