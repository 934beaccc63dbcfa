"""Reading run folders: what becomes a row, what is reported, what is refused."""

import json
import math
from pathlib import Path

import pytest

from sparse_bench import config
from sparse_bench.config.identifier import defines_an_arm
from sparse_bench.evidence.csv_tables import StoreError, is_missing
from sparse_bench.evidence.folders import Problem, read_curves
from sparse_bench.evidence.settings import completed
from sparse_bench.evidence.store import RunTable, load
from sparse_bench.record import RunFolder
from tests.evidence.runs import write_run


def test_a_row_holds_everything_of_a_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path, seed=3, density=0.2, metrics={"test/accuracy": 0.75})
    row = load([tmp_path])[0].runs.iloc[0]
    assert row["id"] == folder.name
    assert row["experiment"] == "rasa/diet"
    assert row["status"] == "finished"
    assert row["seed"] == 3
    assert row["label:scheme"] == "random_connected"
    assert row["label:density"] == 0.2
    assert row["metric:test/accuracy"] == 0.75
    assert row["count:sparse_layers_size"] == 128 * 64 + 24 * 64**2
    assert row["count:groups.attention.active"] == row["count:sparse_layers"] // 3
    assert row["macs:sparse"] == 2 * row["count:sparse_layers"]
    assert row["seconds:train"] == 154.0
    assert row["tokens_per_second"] == 312.5
    assert row["epochs"] == 12
    assert is_missing(row["error"])


def test_columns_for_settings_that_vary_alone(tmp_path: Path) -> None:
    write_run(tmp_path, width=64, seed=0)
    write_run(tmp_path, width=32, seed=1, settings={"layers": ["attention"]})
    runs = load([tmp_path])[0].runs
    settings = [column for column in runs.columns if column.startswith("setting:")]
    assert settings == [
        "setting:model.feed_forward_size",
        "setting:model.transformer_size",
        "setting:sparsity.layers",
    ]
    assert list(runs["setting:model.transformer_size"]) == [32, 64]
    assert list(runs["setting:sparsity.layers"]) == ['["attention"]', '["default"]']


def test_a_setting_that_is_younger_than_a_run_had_the_code_s_default() -> None:
    node = {"sparsity._target_": "sparse_bench.sparsity.schemes.rigl.RigL", "sparsity.density": 0.1}
    young = node | {"trainer.accumulate": 1, "sparsity.interval": 100, "sparsity.layers": ["default"], "model.odd": 2}
    other = {"sparsity._target_": "gone.Scheme", "sparsity.epsilon": 20}
    completed_old, completed_young, completed_other = completed([node, young, other])
    assert completed_old == {path: value for path, value in young.items() if path != "model.odd"} | {
        "sparsity.epsilon": None
    }
    assert completed_young == young | {"sparsity.epsilon": None}
    assert completed_other == other | {"trainer.accumulate": 1}


def test_settings_that_do_not_define_a_run_are_the_config_s(tmp_path: Path) -> None:
    for name in config.NOT_IDENTITY:
        assert not defines_an_arm(name), name
    for name in config.NOT_IDENTITY_TRAINER:
        assert not defines_an_arm(f"trainer.{name}"), name
    for name in ("seed", "model.label", "model._partial_", "logger.wandb.project"):
        assert not defines_an_arm(name), name
    for name in ("dataset.split_seed", "sparsity.density", "model.transformer_size", "trainer.epochs"):
        assert defines_an_arm(name), name


def test_order_does_not_depend_on_folders(tmp_path: Path) -> None:
    for seed in (2, 0, 10, 1):
        for density in (0.2, 0.05, 1.0):
            write_run(tmp_path / str(seed), seed=seed, density=density)
    runs = load([tmp_path])[0].runs
    assert list(runs["label:density"]) == [0.05] * 4 + [0.2] * 4 + [1.0] * 4
    assert list(runs["seed"]) == [0, 1, 2, 10] * 3
    again = load([tmp_path / "10", tmp_path / "2", tmp_path / "1", tmp_path / "0"])[0].runs
    assert list(again["id"]) == list(runs["id"])


def test_a_failed_run_is_a_row_with_its_error(results: RunTable) -> None:
    failed = results.runs[results.runs["status"] == "failed"]
    assert list(failed["error"]) == ["NonFiniteLossError: diverged"]
    assert failed["metric:test/intent_f1"].isna().all()


def test_an_unfinished_run_is_reported(loaded: tuple[RunTable, list[Problem]]) -> None:
    problems = loaded[1]
    assert [problem.folder for problem in problems] == ["rasa/diet/0123456789ab"]
    assert "has not ended" in problems[0].reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected an object, found list"),
        ('{"schema": 99}', "schema 99; this version reads schema 1"),
        ('{"schema": 1, "id": "a"}', "'status': Field required"),
    ],
)
def test_a_broken_result_is_reported_and_does_not_stop_the_rest(tmp_path: Path, content: str, reason: str) -> None:
    write_run(tmp_path)
    broken = tmp_path / "rasa/diet/broken"
    broken.mkdir()
    RunFolder(broken).result_path.write_text(content)
    results, problems = load([tmp_path])
    assert len(results.runs) == 1
    assert [problem.folder for problem in problems] == ["rasa/diet/broken"]
    assert reason in problems[0].reason


def test_a_status_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    write_run(tmp_path, seed=1)
    folder = write_run(tmp_path)
    path = RunFolder(folder).result_path
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "running"}))
    results, problems = load([tmp_path])
    assert len(results.runs) == 1
    assert "'finished' or 'failed'" in problems[0].reason


def test_a_metric_that_is_not_finite_is_reported_and_not_averaged(tmp_path: Path) -> None:
    write_run(tmp_path, metrics={"test/loss": float("nan"), "test/f1": 0.5})
    results, problems = load([tmp_path])
    assert results.runs["metric:test/loss"].isna().all()
    assert "test/loss" in problems[0].reason


def test_a_run_is_read_once(tmp_path: Path) -> None:
    write_run(tmp_path / "first")
    write_run(tmp_path / "second")
    results, problems = load([tmp_path, tmp_path / "first"])  # the second folder lies in the first
    assert len(results.runs) == 1
    assert [problem.folder for problem in problems] == ["second/rasa/diet/" + results.runs["id"][0]]


def test_hidden_folders_and_other_files_are_no_runs(tmp_path: Path) -> None:
    write_run(tmp_path)
    for name in (".sweeps/a", "conf"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
    (tmp_path / ".sweeps/a/metrics.jsonl").touch()
    assert not load([tmp_path])[1]


def test_an_experiment_and_all_below_it(tmp_path: Path) -> None:
    for experiment in ("rasa/diet", "rasa/ted", "rasable"):
        write_run(tmp_path, experiment=experiment)
    (tmp_path / "rasable/dead").mkdir()
    (tmp_path / "rasable/dead/.lock").touch()
    assert list(load([tmp_path], "rasa")[0].runs["experiment"]) == ["rasa/diet", "rasa/ted"]
    assert not load([tmp_path], "rasa/")[1]
    assert list(load([tmp_path], "rasa/ted")[0].runs["experiment"]) == ["rasa/ted"]
    with pytest.raises(StoreError, match=r"Unknown experiment 'rasa/dit'\. Did you mean 'rasa/diet'"):
        load([tmp_path], "rasa/dit")


def test_nothing_found_names_the_folder_and_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere'.*experiment=NAME.*--runs DIR"):
        load([tmp_path / "nowhere"])


def test_history_keeps_the_last_value_of_an_epoch(tmp_path: Path) -> None:
    lines = [
        '{"epoch": 1, "step": 5, "train/loss": 3.0}',
        '{"epoch": 1, "step": 9, "train/loss": 2.5, "test/f1": 0.1}',
        '{"step": 10, "train/loss": 99}',
        '{"epoch": 2, "step": 18, "train/loss": NaN}',
        '{"epoch": 3, "trai',
    ]
    RunFolder(tmp_path).metrics.path.write_text("\n".join(lines))
    curves = read_curves(tmp_path)
    assert curves == {"train/loss": {1: 2.5, 2: pytest.approx(math.nan, nan_ok=True)}, "test/f1": {1: 0.1}}


def test_history_that_is_broken_in_the_middle_names_the_line(tmp_path: Path) -> None:
    RunFolder(tmp_path).metrics.path.write_text('{"epoch": 1}\nnonsense\n{"epoch": 2}\n')
    with pytest.raises(ValueError, match="line 2"):
        read_curves(tmp_path)


def test_no_history_is_empty(tmp_path: Path) -> None:
    assert read_curves(tmp_path) == {}
