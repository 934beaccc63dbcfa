"""Committed tables: what is read back is what was written, and merging forgets nothing."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sparse_bench.evidence import settings
from sparse_bench.evidence.arms import arms_of
from sparse_bench.evidence.csv_tables import StoreError, flatten, is_missing, read_rows
from sparse_bench.evidence.folders import read_result
from sparse_bench.evidence.store import FILES, RunTable, curves_kept, load, merge, read, write
from tests.evidence.by_hand import run, table
from tests.evidence.runs import write_run


def tables(root: Path, curves: tuple[str, ...] = ("test/*", "train/loss")) -> RunTable:
    return curves_kept(load([root])[0], curves)


def content(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in FILES}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    for seed in (0, 1):
        write_run(root, density=0.2, seed=seed, settings={"zeta": 0.3, "layers": ["attention"]})
        write_run(root, scheme="dense", density=1.0, seed=seed, settings={"exact": True})
    write_run(root, density=0.05, seed=0, status="failed", history=False)
    return root


def test_a_table_that_is_read_writes_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    write(tables(runs), tmp_path / "first")
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == ["curves.csv", "runs.csv", "settings.csv"]
    write(read(tmp_path / "first"), tmp_path / "second")
    assert content(tmp_path / "first") == content(tmp_path / "second")


def test_the_whole_configuration_comes_back(runs: Path, tmp_path: Path) -> None:
    write(tables(runs), tmp_path / "out")
    found = read(tmp_path / "out")
    records = {key[1]: read_result(path / "result.json") for key, path in load([runs])[0].folders.items()}
    for row in found.rows():
        expected = flatten(records[row["id"]].config)
        config = found.config(row)
        assert config["model.transformer_size"] == expected["model.transformer_size"] == 64
        assert config["sparsity.density"] == expected["sparsity.density"]
        assert config["sparsity.zeta"] == expected.get("sparsity.zeta")
        assert config["sparsity.exact"] is expected.get("sparsity.exact")
    assert "output" not in found.settings, "where runs lie is the machine's own business"
    assert found.settings["optimizer.lr"] == 0.001


def test_arms_and_curves_survive_the_file(runs: Path, tmp_path: Path) -> None:
    made = tables(runs)
    write(made, tmp_path / "out")
    found = read(tmp_path / "out")
    for before, after in zip(arms_of(made.runs), arms_of(found.runs), strict=True):
        assert (before.labels, before.settings, before.failed) == (after.labels, after.settings, after.failed)
        assert before.mean("metric:test/intent_f1") == pytest.approx(after.mean("metric:test/intent_f1"))
    histories, read_again = made.histories, found.histories
    assert histories.keys() == read_again.keys()
    assert len(histories) == 4, "a failed run has no curve here"
    for key, frame in histories.items():
        assert sorted(frame.columns) == ["test/entity_f1", "test/intent_f1", "train/loss"]
        pd.testing.assert_frame_equal(frame, read_again[key], rtol=1e-5)


def test_a_row_says_what_made_it(runs: Path) -> None:
    row = tables(runs).rows()[0]
    assert row["made:commit"] == "0123456789abcdef0123456789abcdef01234567"
    assert (row["made:processor"], row["made:threads"], row["made:torch"]) == ("Test Processor", 1, "2.6.0")
    assert len(row["made:data"]) == 12


@pytest.mark.parametrize("name", ["runs.csv", "settings.csv", "curves.csv"])
def test_a_torn_table_is_refused(name: str, runs: Path, tmp_path: Path) -> None:
    write(tables(runs), tmp_path / "out")
    path = tmp_path / "out" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(StoreError, match=rf"{name}' is incomplete: it ends in the middle of a line"):
        read(tmp_path / "out")
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:-1], lines[-1].rpartition(b",")[0] + b"\n"]))
    with pytest.raises(StoreError, match=rf"{name}' is damaged: row {len(lines) - 1} has"):
        read(tmp_path / "out")


def test_merging_keeps_what_only_one_has(tmp_path: Path) -> None:
    write_run(tmp_path / "a", seed=0, width=64)
    write_run(tmp_path / "b", seed=1, width=64, settings={"zeta": 0.3})
    old, new = tables(tmp_path / "a"), tables(tmp_path / "b")
    joined = merge(old, new)
    assert list(joined.runs["seed"]) == [0, 1]
    assert [joined.config(row).get("sparsity.zeta") for row in joined.rows()] == [None, 0.3]
    assert "setting:sparsity.zeta" in joined.runs.columns, "what was shared by one table differs in the joined one"
    assert len(joined.curves) == len(old.curves) + len(new.curves)
    write(joined, tmp_path / "joined")
    write(merge(read(tmp_path / "joined"), new), tmp_path / "again")
    assert content(tmp_path / "joined") == content(tmp_path / "again"), "taking the same runs in twice changes nothing"


def test_merging_prefers_new_rows_but_never_a_failure(tmp_path: Path) -> None:
    write_run(tmp_path / "a", metrics={"test/f1": 0.5})
    write_run(tmp_path / "b", metrics={"test/f1": 0.6})
    write_run(tmp_path / "c", status="failed", history=False)
    first, second, failed = (tables(tmp_path / name) for name in "abc")
    assert set(first.runs["id"]) == set(second.runs["id"]) == set(failed.runs["id"])
    assert list(merge(first, second).runs["metric:test/f1"]) == [0.6]
    assert list(merge(second, failed).runs["metric:test/f1"]) == [0.6]
    assert list(merge(failed, first).runs["metric:test/f1"]) == [0.5]


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    lengths = {0: 200, 1: 60}
    values = {seed: [float(value) for value in range(1, length + 1)] for seed, length in lengths.items()}
    alone = {seed: table(run("a/b", seed, curves={"test/f1": values[seed]})) for seed in lengths}
    kept = {seed: list(curves_kept(one, ["test/*"]).curves["epoch"]) for seed, one in alone.items()}
    assert len(kept[0]) == 60
    assert kept[0][0] == 1
    assert kept[0][-10:] == list(range(191, 201))
    assert kept[1] == list(range(1, 61))
    # Each keeps what the other keeps, so that a mean over both loses no epoch.
    both = curves_kept(merge(alone[0], alone[1]), ["test/*"]).curves
    by_seed = {seed: set(part["epoch"]) for seed, part in both.groupby("seed")}
    assert by_seed[1] == set(range(1, 61)) == {epoch for epoch in by_seed[0] if epoch <= 60}


def test_an_own_report_has_the_whole_curve_and_a_run_without_a_readable_one(tmp_path: Path) -> None:
    folder = write_run(tmp_path, metrics={"test/f1": 0.5})
    long = "".join(f'{{"epoch": {epoch}, "test/f1": 0.1}}\n' for epoch in range(100))
    (folder / "metrics.jsonl").write_text(long)
    found, problems = load([tmp_path])
    assert len(found.curves) == 100
    assert not problems
    (folder / "metrics.jsonl").write_text(f"no JSON\n{long}")
    found, problems = load([tmp_path])
    assert list(found.runs["metric:test/f1"]) == [0.5]
    assert not len(found.curves)
    (problem,) = problems
    assert problem.reason.startswith("The learning curve cannot be read and is skipped: metrics.jsonl, line 1")


def test_corpora_that_are_named_by_their_path_are_two_arms(tmp_path: Path) -> None:
    for number, path in enumerate(("/data/first.txt", "/data/second.txt", "~/third.txt")):
        write_run(tmp_path, settings={"corpus": path}, seed=0, metrics={"test/f1": 0.1 * number})
    found, _ = load([tmp_path])
    assert sorted(found.runs["setting:sparsity.corpus"]) == ["/data/first.txt", "/data/second.txt", "~/third.txt"]
    assert len(arms_of(found.runs)) == 3


def test_an_empty_cell_is_a_setting_younger_than_its_run_and_null_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """``A`` gains ``zeta`` with the default .3 when ``B`` has it already; one later run of ``A`` sets it to null."""

    def differences(own: dict[str, Any], other: dict[str, Any]) -> list[str]:
        return settings._differences(own, other, settings._keys(own), settings._keys(other))

    defaults: dict[str, dict[str, Any]] = {"A": {}, "B": {"zeta": 0.5}}
    monkeypatch.setattr(settings, "_defaults", lambda target: defaults[target])
    before = [run("a/b", 0, settings={"s._target_": "A"}), run("a/b", 1, settings={"s._target_": "B", "s.zeta": 0.1})]
    old = merge(table(*before), table(*before).only(()))
    assert {row["seed"]: row["setting:s.zeta"] for row in old.rows()} == {0: None, 1: 0.1}
    defaults["A"] = {"zeta": 0.3}
    shipped = settings.defining({"s": {"_target_": "A", "zeta": 0.3}})
    assert differences(old.config(old.rows()[0]), shipped) == []
    null = settings.defining({"s": {"_target_": "A", "zeta": None}})
    assert differences(null, shipped) == ["s.zeta: null, not 0.3"]
    both = merge(old, table(run("a/b", 2, settings=null)))
    assert {row["seed"]: row["setting:s.zeta"] for row in both.rows()} == {0: "0.3", 1: "0.1", 2: "null"}
    for number, expected in ((0, []), (2, ["s.zeta: null, not 0.3"])):
        row = next(row for row in both.rows() if row["seed"] == number)
        assert differences(both.config(row), shipped) == expected


def test_cells(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,gap,whole,part,truth,text\n7,,12,0.25,True,none\n8,-3,1,1e-07,False,nan\n")
    frame = read_rows(tmp_path / "a.csv")
    assert [str(kind) for kind in frame.dtypes][1:5] == ["Int64", "Int64", "float64", "boolean"]
    assert list(frame["id"]) == ["7", "8"]
    (tmp_path / "b.csv").write_text("way,seconds\n1,0.25\n2,OOM\n3,\n")
    assert [cell for cell in read_rows(tmp_path / "b.csv")["seconds"] if not is_missing(cell)] == [0.25, "OOM"]
    assert frame["gap"].isna().tolist() == [True, False]
    assert list(frame["part"]) == [0.25, 1e-7]
    assert list(frame["text"]) == ["none", "nan"]


@pytest.mark.parametrize("text", ["a\rb", "a\nb", "# first", 'a "quoted", one', "\t spaced  out "])
def test_a_text_in_a_label_or_an_error_tears_no_table(tmp_path: Path, text: str) -> None:
    labels = {"model": "diet", "dataset": text, "scheme": "set", "density": 0.2}
    error = {"type": "Odd", "message": text, "traceback": ""}
    write_run(tmp_path / "runs", labels=labels)
    write_run(tmp_path / "runs", seed=1, labels=labels, error=error, status="failed", history=False)
    made = tables(tmp_path / "runs")
    write(made, tmp_path / "out")
    found = read(tmp_path / "out")
    assert found.texts() == made.texts()
    assert [row["label:dataset"] for row in found.rows()] == [" ".join(text.split())] * 2


def test_an_id_of_digits_stays_text(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("experiment,id,status,seed\nx,012345678901,finished,3\nx,1e5,finished,4\n")
    rows = read_rows(tmp_path / "runs.csv").to_dict("records")
    assert [(row["id"], row["seed"]) for row in rows] == [
        ("012345678901", 3),
        ("1e5", 4),
    ]


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"runs\.csv is missing"):
        read(tmp_path)
    (tmp_path / "runs.csv").write_text("experiment,seed\nx,0\n")
    with pytest.raises(StoreError, match="lacks id, status"):
        read(tmp_path)
