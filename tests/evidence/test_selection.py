"""Which runs and which rows are chosen, and what is refused."""

from pathlib import Path

import pytest

from sparse_bench.evidence.compare import Evidence, Sample, SelectionError, Unavailable, measure, one_arm
from sparse_bench.evidence.csv_tables import plain
from sparse_bench.evidence.store import ALTERED
from sparse_bench.papers.schema import Comparison, Target
from tests.evidence.by_hand import evidence, run


def seeds(found: Evidence, selector: Target) -> list[int]:
    chosen = found.runs(selector)
    return [] if chosen is None else sorted(chosen.runs["seed"])


def test_runs_are_chosen_by_labels_and_settings() -> None:
    found = evidence(
        run("a/x", 0, density=0.2, settings={"model.width": 8}),
        run("a/x", 1, density=0.2, settings={"model.width": 16}),
        run("a/x", 2, density=1.0, settings={"model.width": 8}),
        run("a/y", 3, density=0.2, settings={"model.width": 8}),
        run("a/x", 4, density=0.2, settings={"model.width": 8}, status="failed"),
    )
    assert seeds(found, Target("a/x", "", {})) == [0, 1, 2]
    assert seeds(found, Target("a/x", "", {"density": 0.2})) == [0, 1]
    assert seeds(found, Target("a/x", "", {"density": 0.2, "model.width": 8.0})) == [0]
    assert seeds(found, Target("a/x", "", {"model.width": [8, 16]})) == [0, 1, 2]
    assert seeds(found, Target("a/x", "", {"density": 0.5})) == []
    assert seeds(found, Target("a/z", "", {})) == []


def test_runs_of_another_length_are_taken_only_where_asked_for_and_none_is_as_shipped() -> None:
    short = run("a/x", 0, columns={ALTERED: "dataset.batch_epochs: 1, not 9; trainer.epochs: 1, not 9"})
    other = run("a/x", 1, columns={ALTERED: "trainer.epochs: 1, not 9; optimizer.lr: 1, not 2"}, settings={"lr": 1})
    for found, expected in (
        (evidence(short, other), [0]),
        (evidence(short, run("a/x", 2, columns={ALTERED: None})), [2]),
    ):
        chosen = found.runs(Target("a/x", "", {}), any_length=True)
        assert chosen is not None
        assert list(chosen.runs["seed"]) == expected
    assert evidence(short, other).runs(Target("a/x", "", {})) is None


def test_an_unknown_name_is_an_error_that_names_the_choices() -> None:
    found = evidence(
        run("a/x", 0, density=0.2, settings={"model.width": 8}), run("a/x", 1, settings={"model.width": 4})
    )
    with pytest.raises(SelectionError, match=r"Unknown label or setting 'model.with'. Did you mean 'model.width'\?"):
        found.runs(Target("a/x", "", {"model.with": 8}))


def test_one_arm_may_differ_in_what_follows_the_seed() -> None:
    found = evidence(
        run("a/x", 0, settings={"dataset.split_seed": 0, "width": 8}),
        run("a/x", 1, settings={"dataset.split_seed": 1, "width": 8}),
        run("a/x", 2, settings={"dataset.split_seed": 2, "width": 16}),
    )
    chosen = found.runs(Target("a/x", "", {"width": 8}))
    assert chosen is not None
    assert len(one_arm(chosen.runs).runs) == 2
    everything = found.runs(Target("a/x", "", {}))
    assert everything is not None
    with pytest.raises(SelectionError, match=r"3 arms fit, which differ in width \(16, 8\)"):
        one_arm(everything.runs)


def test_a_row_of_a_benchmark(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("# Title\ndensity,way,speedup\n0.2,csr,1.5\n0.2,kernel,3.25\n")
    found = Evidence(tmp_path, {})

    def speedup(table: str, **where: object) -> object:
        sample = measure(Comparison("value", "speedup", [Target("", table, where)]), found)
        return sample if isinstance(sample, Unavailable) else sample.values

    assert speedup("b.csv", density=0.2, way="kernel") == [3.25]
    with pytest.raises(SelectionError, match="fits 2 rows"):
        speedup("b.csv", density=0.2)
    with pytest.raises(SelectionError, match=r"Unknown column 'ways'. Did you mean 'way'"):
        speedup("b.csv", ways="csr")
    assert speedup("other.csv") == Unavailable("no other.csv", False)


def test_one_cell_without_a_number_costs_one_claim(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("way,seconds\ndense,OOM\ncsr,\nkernel,3.25\n")
    found = Evidence(tmp_path, {})
    sides = {way: Target("", "b.csv", {"way": way}) for way in ("dense", "csr", "kernel")}
    samples = {way: measure(Comparison("value", "seconds", [side]), found) for way, side in sides.items()}
    assert isinstance(kernel := samples["kernel"], Sample)
    assert kernel.values == [3.25]
    assert samples["dense"] == Unavailable(f"the cell seconds of {sides['dense']} is 'OOM'", True)
    assert samples["csr"] == Unavailable(f"the cell seconds of {sides['csr']} is empty", True)


def test_settings_of_the_same_last_name_are_told_apart() -> None:
    found = evidence(run("rasa/diet", 0, {"test/f1": 0.5}, columns={"setting:dataset.vocabulary": 5}))
    assert found.runs(Target("rasa/diet", "", {"dataset.vocabulary": 5})) is not None
    with pytest.raises(SelectionError, match="vocabulary"):
        found.runs(Target("rasa/diet", "", {"dataset.corpus.vocabulary": 5}))


def test_a_fresh_setting_is_the_committed_one() -> None:
    assert plain(2 / 3) == 0.6666666667
