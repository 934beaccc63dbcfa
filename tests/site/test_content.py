"""Tables of a section of a paper's page."""

import pandas as pd
import pytest

from sparse_bench.evidence.arms import Arm, arms_of
from sparse_bench.evidence.compare import Evidence, SelectionError, one_arm
from sparse_bench.evidence.tables import arms_table, differences_table, each_run_table, with_last_epochs
from sparse_bench.figures.section import SectionContent
from sparse_bench.papers.page import Paper, Section
from sparse_bench.papers.schema import Target
from sparse_bench.site.content import paper_content
from tests.evidence.by_hand import evidence, run

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
    chosen = found.runs(Target(ORIGINAL, "", {}))
    assert chosen is not None
    return found.tables["rasa"].runs, one_arm(chosen.runs)


def test_arms_of_several_experiments_with_their_realised_density(runs: tuple[pd.DataFrame, Arm]) -> None:
    table = arms_table(arms_of(runs[0]), [METRIC, "test/never_measured"])
    cells = {row[0]: row for row in table.rows}
    assert [cell.replace("\N{NO-BREAK SPACE}", " ") for cell in cells[SET][1:5]] == ["set", "–", "5 %", "9"]
    assert cells[ORIGINAL][5] == "0.520 ± 0.050"
    assert list(table.columns[5:]) == ["token accuracy, mean over sentences (valid)", "seeds", "trainable"]


def test_differences_are_paired_and_corrected(runs: tuple[pd.DataFrame, Arm]) -> None:
    table = differences_table(arms_of(runs[0]), runs[1], ORIGINAL, [METRIC, "test/never_measured"])
    assert table is not None
    # Mean .1, standard deviation .01: ± 4.303 · .01 / √3.
    assert [row[-1] for row in table.rows] == ["+0.100 ± 0.025 *"]
    assert f"Differences to {ORIGINAL}. Paired" in table.caption


def test_an_arm_alone_is_compared_with_nothing(runs: tuple[pd.DataFrame, Arm]) -> None:
    alone = runs[0][runs[0]["experiment"] == ORIGINAL]
    assert differences_table(arms_of(alone), runs[1], ORIGINAL, [METRIC]) is None
    assert differences_table(arms_of(runs[0]), runs[1], ORIGINAL, ["test/never_measured"]) is None


def test_arms_say_what_they_were_made_on_where_that_differs() -> None:
    devices = {ORIGINAL: ("GPU", "GPU"), SET: ("GPU", "cpu")}
    made = [
        run(name, seed, {METRIC: 0.5 + 0.01 * seed}, scheme=name, columns={**counts(0.5), "made:device": device})
        for name, found in devices.items()
        for seed, device in enumerate(found)
    ]
    found = evidence(*made)
    runs, original = found.runs(Target(ORIGINAL, "", {})), found.tables["rasa"].runs
    assert runs is not None
    table = arms_table(arms_of(original), [METRIC])
    assert table.columns[-1] == "device"
    assert {row[0]: row[-1] for row in table.rows} == {ORIGINAL: "2 on GPU", SET: "1 on GPU, 1 on a CPU"}
    differences = differences_table(arms_of(original), one_arm(runs.runs), ORIGINAL, [METRIC])
    assert differences is not None
    assert "drew different random numbers" in differences.caption
    alike = arms_table(arms_of(runs.runs), [METRIC])
    assert alike.columns[-1] == "trainable"


def recited() -> Evidence:
    """Two arms of two seeds, whose accuracy is only in their learning curves."""
    last = {"brouns/dense": (0.5, 0.6), "brouns/set": (0.7, 0.9)}
    return evidence(
        *(
            run(name, seed, {"test/loss": 1.0}, scheme=name, curves={"train/accuracy": [0.1, value]})
            for name, values in last.items()
            for seed, value in enumerate(values)
        )
    )


def shown(found: Evidence, **section: object) -> SectionContent:
    """A section over the arms of :func:`recited`."""
    experiments = ["brouns/dense", "brouns/set"]
    described = Section.model_validate({"heading": "H", "command": "c", "experiments": experiments, **section})
    paper = Paper(
        title="T", short="S", document="D", summary="", experiments=experiments, curves=[], sections=[described],
        name="rasa",
    )  # fmt: skip
    return paper_content(paper, found).sections[0]


def test_a_metric_that_only_curves_hold_is_that_of_the_last_epoch() -> None:
    tables, names = with_last_epochs(recited().tables["rasa"], ["test/loss", "train/accuracy"])
    assert names == ["test/loss", "train/accuracy at the last epoch"]
    assert list(tables.runs["metric:train/accuracy at the last epoch"]) == [0.5, 0.6, 0.7, 0.9]
    content = shown(recited(), metrics=["train/accuracy"], against={"experiment": "brouns/dense"})
    arms, differences = content.tables
    assert arms.columns[-3] == "accuracy at the last epoch (train)"
    assert [row[-3] for row in arms.rows] == ["0.550 ± 0.635", "0.800 ± 1.271"]
    assert [row[-1] for row in differences.rows] == ["+0.250 ± 0.635"]
    assert "not recorded by these runs" not in dict(content.facts)


def test_a_metric_that_nothing_holds_is_said_to_be_missing() -> None:
    content = shown(recited(), metrics=["test/loss", "test/never_measured"])
    assert dict(content.facts)["not recorded by these runs"] == "never measured (test)"


def test_a_row_for_each_run() -> None:
    runs = (
        evidence(
            run(SET, 0, {"optimizer/since": 18.0}, columns={"made:device": "cpu", "seconds:train": 1234.5678}),
            run(SET, 1, {}, columns={"made:device": "GPU", "seconds:train": 2.5}),
            run(SET, 2, {}, status="failed"),
        )
        .tables["rasa"]
        .runs
    )
    columns = {"made on": "made:device", "seconds": "seconds:train", "since": "metric:optimizer/since"}
    table = each_run_table(runs, columns)
    assert table.columns == ["experiment", "seed", "made on", "seconds", "since"]
    assert table.rows == [[SET, "0", "cpu", "1,234.568", "18"], [SET, "1", "GPU", "2.500", "–"]]
    assert table.numeric == [False, True, False, True, True]
    with pytest.raises(SelectionError, match=r"Unknown column 'seconds:trian'. Did you mean 'seconds:train'"):
        each_run_table(runs, {"seconds": "seconds:trian"})
