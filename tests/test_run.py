"""One run: folder, result, skipping, failing, resuming."""

import io
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from sparse_bench.__main__ import _show
from sparse_bench.config import CONF, choices, run_id
from sparse_bench.environment import set_deterministic
from sparse_bench.errors import ConfigError
from sparse_bench.record import Result, RunFolder
from sparse_bench.run import _summary, run
from sparse_bench.sparsity.dynamics.scheme import Dynamic
from sparse_bench.training.trainer import Trainer

Make = Callable[..., DictConfig]


def folder_of(config: DictConfig) -> RunFolder:
    return RunFolder(Path(config.output) / config.experiment_name / run_id(config))


def test_result_holds_counts_metrics_and_provenance(toy_config: Make) -> None:
    config = toy_config()
    result = run(config)
    assert result is not None
    assert result.status == "finished"
    # first: 16×8, second: 16×16; half of 384 entries; all: 384 + 16 + 16 + 2×16 + 2
    assert result.counts["sparse_layers"] == 192
    assert result.counts["sparse_layers_size"] == 384
    assert result.counts["density"] == 0.5
    assert result.counts["trainable"] == 192 + 16 + 16 + 32 + 2
    assert result.counts["groups"]["output"] == {"active": 32, "size": 32}
    assert result.macs_per_example == {"dense": 8 * 16 + 16 * 16 + 16 * 2, "sparse": 192 + 32}
    # 3 epochs of 96 examples; two products in the backward pass for each in the forward pass.
    assert result.counts["held"] == 192
    assert result.counts["average_density"] == 0.5
    assert result.macs_of_training == {"forward": 288 * (192 + 32), "backward": 288 * 2 * (192 + 32)}
    measured = {f"{s}/{m}" for s in ("valid", "test") for m in ("accuracy", "cross_entropy")}
    assert set(result.metrics) == measured | {"weights/share_below_0.07"}
    assert result.metrics["test/accuracy"] > 0.5
    assert result.epochs == 3
    assert result.steps == 18
    assert result.versions["torch"]
    assert set(result.data) == {"points"}
    written = json.loads(folder_of(config).result_path.read_text())
    assert written["metrics"] == result.metrics
    assert written["seconds"].keys() == {"train", "train_processor", "evaluate", "total"}


@pytest.mark.parametrize("execution", ["csr", "kernel"])
def test_true_sparse_execution_counts_and_measures_the_same(toy_config: Make, execution: str) -> None:
    masked, sparse = run(toy_config()), run(toy_config(sparsity__execution=execution))
    assert masked is not None
    assert sparse is not None
    assert sparse.id != masked.id
    assert sparse.counts == masked.counts
    assert sparse.macs_per_example == masked.macs_per_example
    assert sparse.metrics["test/cross_entropy"] == pytest.approx(masked.metrics["test/cross_entropy"], rel=1e-4)


def test_a_finished_run_is_not_run_again(toy_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(toy_config())
    monkeypatch.setattr(Trainer, "fit", lambda self: pytest.fail("trained again"))
    assert run(toy_config()) == first


def test_a_failed_run_keeps_its_traceback_and_is_tried_again(toy_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Trainer) -> None:
        raise RuntimeError("broken on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "fit", broken)
        failed = run(toy_config())
    assert failed is not None
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error["type"] == "RuntimeError"
    assert "broken on purpose" in failed.error["traceback"]
    again = run(toy_config())
    assert again is not None
    assert again.status == "finished"


def test_a_loss_that_is_not_finite_ends_the_run_as_failed(toy_config: Make) -> None:
    result = run(toy_config(dataset__bad_step=2))
    assert result is not None
    assert result.status == "failed"
    assert result.error is not None
    assert result.error["type"] == "NonFiniteLossError"
    assert "epoch 1" in result.error["message"]


def test_doubts_are_kept_with_the_numbers_and_said_at_the_end(
    toy_config: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    measured = {"valid": {"accuracy": 0.9}, "test": {"accuracy": 0.5, "cross_entropy": float("nan")}}
    monkeypatch.setattr("tests.toy.ToyTask.evaluate", lambda self, model, split: measured[split])
    monkeypatch.setattr("tests.toy.ToyTask.chance", lambda self, split: {"accuracy": (0.5, "max")})
    result = run(toy_config())
    assert result is not None
    assert result.warnings == [
        "test/cross_entropy is nan, which is not a finite number.",
        "test/accuracy is 0.5, no better than guessing (0.5).",
    ]
    written = folder_of(toy_config())
    assert written.result() is not None
    assert all(f"{result.name}: {warning}" in caplog.text for warning in result.warnings)
    caplog.clear()
    _show(result)
    assert caplog.text.strip().endswith(f"Warnings: {' '.join(result.warnings)}")
    assert _summary(result)["warnings"] == " ".join(result.warnings)
    result.warn(result.warnings[0])  # said already
    assert len(result.warnings) == 2
    _forget(written, "warnings")  # as an earlier version wrote it
    older = written.result()
    assert older is not None
    assert older.warnings == []


def _forget(folder: RunFolder, key: str) -> None:
    content = json.loads(folder.result_path.read_text())
    del content[key], content["checksum"]
    folder.result_path.write_text(json.dumps(content))


def test_a_run_that_another_process_holds_is_left_alone(toy_config: Make) -> None:
    config = toy_config()
    with folder_of(config).lock() as held:
        assert held
        left = run(config)
        assert isinstance(left, RunFolder)
        assert left.path == folder_of(config).path
    assert not folder_of(config).result_path.exists()


def test_a_finished_run_in_a_folder_that_cannot_be_written_is_skipped(toy_config: Make) -> None:
    """Another user's, say: its lock cannot be taken. (A folder in the lock's place: root may write everywhere.)"""
    finished, other = toy_config(), toy_config(seed=1)
    first = run(finished)
    for config in (finished, other):
        lock = folder_of(config).path / ".lock"
        lock.unlink(missing_ok=True)
        lock.mkdir(parents=True)
    assert run(finished) == first
    with pytest.raises(ConfigError, match="cannot be written to"):
        run(other)


def test_a_run_whose_process_died_each_time_fails_with_the_reason_and_is_tried_again(toy_config: Make) -> None:
    result = run(toy_config(), killed="its process was killed by SIGKILL, 2 times")
    assert isinstance(result, Result)
    assert result.status == "failed"
    assert result.error is not None
    assert "restarted each time, and its process was killed by SIGKILL" in result.error["message"]
    assert folder_of(toy_config()).result() == result
    again = run(toy_config())
    assert isinstance(again, Result)
    assert again.status == "finished"


@pytest.mark.parametrize("setting", ["experiment_name", "start_from"])
@pytest.mark.parametrize("name", [".hidden", "a/.hidden/b", "../a", "a/../../b", "/a", "", "."])
def test_names_outside_the_output_or_hidden_are_refused(toy_config: Make, setting: str, name: str) -> None:
    below = f"{setting} must be a path below the output folder; no part of it may begin"
    with pytest.raises(ConfigError, match=below if name else f"'{setting}' = '' does not fit"):
        run(toy_config(**{setting: name}))


def shipped_scheme(name: str) -> dict[str, Any]:
    """A shipped scheme's settings, made to change something within the few steps of a toy run."""
    node = OmegaConf.to_container(OmegaConf.load(CONF / "sparsity" / f"{name}.yaml"))
    assert isinstance(node, dict)
    changed = {"density": 1.0 if name.startswith("dense") else 0.4, "interval": 2}
    without = {} if "density" in node else {"density": 1.0}  # the toy run has one
    return {str(key): changed.get(str(key), value) for key, value in node.items()} | without


#: Those that work on a model of linear layers.
SCHEMES = [name for name in choices("sparsity") if shipped_scheme(name).get("layers") == ["default"]]


EXECUTED = [
    *((scheme, "masked") for scheme in SCHEMES),
    *(("random", "csr"), ("random", "kernel"), ("set", "csr"), ("set", "kernel"), ("rigl", "kernel"), ("gmp", "csr")),
]
STOPS = (12, 7, 1, 17)


@pytest.mark.parametrize(
    ("scheme", "execution", "stop_at"),
    [
        # Each scheme is stopped once, one after another in other places; that all are stopped everywhere is slow.
        pytest.param(*pair, stop_at, marks=[] if STOPS[number % 2] == stop_at else pytest.mark.slow)
        for number, pair in enumerate(EXECUTED)
        for stop_at in STOPS
    ],
)
def test_an_interrupted_run_ends_like_an_undisturbed_one(
    toy_config: Make, monkeypatch: pytest.MonkeyPatch, scheme: str, execution: str, stop_at: int, tmp_path: Path
) -> None:
    """Killed after optimizer step ``stop_at``: weights, masks, optimizer, random state and metrics, bit for bit."""
    settings = {
        "sparsity": shipped_scheme(scheme) | {"execution": execution},
        "trainer__checkpoint_seconds": 0.0,
        "trainer__keep": "checkpoint",
        "trainer__accumulate": 2 if stop_at == 7 else 1,
        "trainer__precision": "fp16" if stop_at == 12 and execution == "masked" else "fp32",
        "dataset__batch_size": 8 if stop_at == 7 else 16,
    }
    final_states: list[dict[str, Any]] = []
    saved = Trainer._save

    def spy(self: Trainer) -> None:
        if self.progress.step % 5 == 0 or self._done():  # not always, so that a resumed run has something to forget
            saved(self)
            final_states.append(torch.load(self.folder.checkpoint, weights_only=True))

    monkeypatch.setattr(Trainer, "_save", spy)
    undisturbed = toy_config(**settings, output=str(tmp_path / "undisturbed"))
    expected = run(undisturbed)
    expected_state = final_states[-1]

    class Killed(BaseException):
        pass

    update = Trainer.update

    def until_killed(self: Trainer) -> None:
        if self.progress.step == stop_at:
            raise Killed
        update(self)

    disturbed = toy_config(**settings, output=str(tmp_path / "disturbed"))
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", until_killed)
        with pytest.raises(Killed):
            run(disturbed)
    torch.manual_seed(123)  # a new process would not continue the old one's random state either
    resumed = run(disturbed)
    assert resumed is not None
    assert expected is not None
    assert resumed.metrics == expected.metrics
    assert folder_of(disturbed).metrics.path.read_bytes() == folder_of(undisturbed).metrics.path.read_bytes()
    topologies = [folder_of(config).topology.path for config in (disturbed, undisturbed)]
    assert len({path.read_bytes() if path.exists() else None for path in topologies}) == 1
    assert topologies[0].exists() == issubclass(get_object(settings["sparsity"]["_target_"]), Dynamic)
    state = final_states[-1]
    for key in ("model", "optimizer", "scaler", "scheme", "random", "sums"):
        assert_same(state[key], expected_state[key])
    assert bool(state["scaler"]) == (settings["trainer__precision"] == "fp16")
    assert state["progress"]["step"] == expected_state["progress"]["step"] == 18


def assert_same(left: object, right: object) -> None:
    if isinstance(left, torch.Tensor):
        assert isinstance(right, torch.Tensor)
        assert torch.equal(left.cpu(), right.cpu())  # bookkeeping moves to the device when it is next needed
    elif isinstance(left, dict):
        assert isinstance(right, dict)
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert isinstance(right, list | tuple)
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    else:
        assert (left == right) if not hasattr(left, "shape") else bool((left == right).all())


def test_the_topology_is_recorded_at_first_and_at_every_change(toy_config: Make) -> None:
    config = toy_config(sparsity=shipped_scheme("set"), trainer__epochs=4)
    result = run(config)
    assert result is not None
    folder = folder_of(config)
    lines = [json.loads(line) for line in folder.topology.path.read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(0, 0), (1, 6), (2, 12), (3, 18), (4, 24)]
    numbers = [sum(layer["active"] for layer in line["layers"].values()) for line in lines]
    assert len(set(numbers[:4])) == 1
    assert result.counts["sparse_layers"] == numbers[4] < numbers[3]  # after the last epoch nothing grows
    entries = [json.loads(line) for line in folder.metrics.path.read_text().splitlines()]
    assert [entry["topology/rewirings"] for entry in entries] == [1.0] * 4
    assert all(0.1 < entry["topology/turnover"] < 0.45 for entry in entries)
    explored = [entry["topology/exploration"] for entry in entries]
    assert explored == sorted(explored)
    assert explored[0] < explored[2]


def test_growth_ends_with_early_stopping_too(toy_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The epoch after which training stops is the last one, though more were planned."""
    values = iter([0.5, 0.6, 0.6, 0.55, 0.9, 0.9])
    monkeypatch.setattr("tests.toy.ToyTask.evaluate", lambda self, model, split: {"accuracy": next(values)})
    config = toy_config(sparsity=shipped_scheme("set"), trainer__epochs=10, trainer__early_stopping=2)
    result = run(config)
    assert result is not None
    assert result.epochs == 4
    lines = [json.loads(line) for line in folder_of(config).topology.path.read_text().splitlines()]
    numbers = [sum(layer["active"] for layer in line["layers"].values()) for line in lines]
    assert len(set(numbers[:-1])) == 1
    assert result.counts["sparse_layers"] == numbers[-1] < numbers[-2]


def test_a_damaged_checkpoint_is_named(toy_config: Make) -> None:
    config = toy_config()
    folder = folder_of(config)
    folder.path.mkdir(parents=True)
    folder.checkpoint.write_bytes(b"half a checkpoint")
    result = run(config)
    assert result is not None
    assert result.error is not None
    assert result.error["type"] == "CheckpointError"
    assert "checkpoint.pt" in result.error["message"]


def test_attention_whose_gradients_differ_between_repetitions_is_switched_off_on_a_gpu_alone() -> None:
    def fused() -> set[bool]:
        backends = torch.backends.cuda
        return {backends.flash_sdp_enabled(), backends.mem_efficient_sdp_enabled(), backends.cudnn_sdp_enabled()}

    cases = [(True, "cuda", False), (False, "cuda", True), (True, "cuda", False), (True, "cpu", True)]
    for wanted, device, expected in cases:
        set_deterministic(wanted, torch.device(device))
        assert fused() == {expected}


def test_best_weights_are_evaluated_at_the_end(toy_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.2, 0.9, 0.5])

    def evaluate(self: object, model: torch.nn.Module, split: str) -> dict[str, float]:
        weight = float(model.get_parameter("output.weight").detach().sum())
        return {"accuracy": next(values, -1.0), "weight": weight}

    monkeypatch.setattr("tests.toy.ToyTask.evaluate", evaluate)
    config = toy_config(trainer__select="best")
    result = run(config)
    assert result is not None
    logged = [json.loads(line) for line in folder_of(config).metrics.path.read_text().splitlines()]
    assert result.metrics["valid/weight"] == logged[1]["valid/weight"]


def test_a_run_killed_before_its_result_was_written_still_evaluates_the_best_weights(
    toy_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(self: RunFolder, result: object) -> None:
        raise Killed

    config = toy_config(trainer__select="best", trainer__keep="checkpoint", trainer__epochs=6, optimizer__lr=0.3)
    expected = run(toy_config(trainer__select="best", trainer__epochs=6, optimizer__lr=0.3))
    folder_of(config).result_path.unlink()
    folder_of(config).checkpoint.unlink(missing_ok=True)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_result", killed)
        with pytest.raises(Killed):
            run(config)
    resumed = run(config)
    assert expected is not None
    assert resumed is not None
    assert resumed.metrics == expected.metrics
    assert folder_of(config).checkpoint.exists()
    assert not folder_of(config).best.exists()
    assert resumed.seconds["total"] >= resumed.seconds["train"]


def test_the_watched_metric_may_be_one_that_falls(toy_config: Make) -> None:
    settings = {"trainer__monitor": "valid/cross_entropy", "trainer__monitor_mode": "min", "trainer__epochs": 8}
    best = run(toy_config(trainer__select="best", **settings))
    assert best is not None
    assert best.metrics["valid/cross_entropy"] < 0.6


def test_changing_the_scheme_changes_neither_data_order_nor_noise(toy_config: Make) -> None:
    """With a topology that keeps everything, a sparse run is the dense run."""
    dense = run(toy_config(sparsity__density=1.0))
    also = run(toy_config(sparsity___target_="sparse_bench.sparsity.schemes.dense.Dense", sparsity__density=1.0))
    assert dense is not None
    assert also is not None
    assert dense.metrics == also.metrics


def test_bad_settings_are_refused_before_any_work(toy_config: Make) -> None:
    for settings, message in [
        ({"sparsity__density": 1.5}, "'sparsity.density' = 1.5 does not fit: it has to be at most 1"),
        ({"sparsity__density": "abc"}, "sparsity.density"),
        ({"sparsity__layers": ["frist"]}, "Did you mean 'first'"),
        ({"sparsity__dens": 0.5}, "Unknown setting 'dens'"),
        ({"sparsity__execution": "masekd"}, "Did you mean 'masked'"),
        ({"model__width": "16"}, "model.width"),
        ({"device": "tpu"}, "Use auto, cpu, cuda"),
        ({"trainer__monitor": "valid/accuracy"}, "go together"),
        ({"trainer__monitor": "accuracy", "trainer__monitor_mode": "max"}, "Did you mean 'valid/accuracy'"),
        ({"trainer__monitor": "test/accuracy", "trainer__monitor_mode": "max"}, "Unknown trainer.monitor"),
        ({"trainer__monitor_mode": "up", "trainer__monitor": "valid/accuracy"}, "max, min"),
        ({"trainer__precision": "half"}, "bf16, fp16, fp32"),
        ({"trainer__accumulate": 0}, "at least 1"),
        ({"model__width": "wide"}, "model.width"),
        ({"model___target_": "tests.toy.NoSuchModel"}, "cannot be imported"),
        ({"sede": 1}, "Unknown setting 'sede'. Did you mean 'seed'"),
        ({"trainer__epoch": 1}, "In 'trainer': Unknown setting 'epoch'. Did you mean 'epochs'"),
        ({"threads": 0}, "'threads' = 0 does not fit: it has to be at least 1"),
        ({"experiment_name": "../elsewhere"}, "below the output folder"),
        ({"experiment_name": ""}, "at least 1 character"),
        ({"optimizer__lr": -1.0}, "'optimizer' cannot be built: Invalid learning rate"),
        ({"optimizer__lr": "abc"}, "'optimizer.lr' = 'abc' does not fit: Input should be a valid number.$"),
        ({"optimizer": {"_target_": "torch.optim.LBFGS", "_partial_": True}}, "several times per step"),
    ]:
        config = toy_config(**settings)
        with pytest.raises(ConfigError, match=message):
            run(config)
        assert not Path(config.output).exists()


def test_a_configuration_that_lacks_a_setting_is_refused(toy_config: Make) -> None:
    config = toy_config()
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    del plain["seed"]
    with pytest.raises(ConfigError, match="lacks seed"):
        run(OmegaConf.create(plain))


def test_a_place_that_cannot_be_written_to_is_named(toy_config: Make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file/runs' cannot be written to"):
        run(toy_config(output=str(tmp_path / "file" / "runs")))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "shown"), [(Terminal, True), (io.StringIO, False)])
def test_a_bar_only_at_a_terminal_and_log_lines_above_it(
    stream: type[io.StringIO], shown: bool, toy_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = stream()
    monkeypatch.setattr(sys, "stderr", screen)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [logging.StreamHandler(screen)])
    monkeypatch.setattr(root, "level", logging.INFO)
    console = {"console": {"_target_": "sparse_bench.tracking.console.ConsoleTracker"}}
    run(toy_config(progress=True, logger=console))
    lines = re.split("[\r\n]", screen.getvalue())
    assert any("epoch/s" in line or "?epoch" in line for line in lines) == shown
    logged = [line for line in lines if "train/loss" in line]
    assert len(logged) == 3
    assert all(line.startswith("epoch ") for line in logged)


def test_identity_ignores_defaults_and_where_a_run_happens(toy_config: Make) -> None:
    base = run_id(toy_config())
    assert run_id(toy_config(model__width=16)) == base  # the default in the code
    assert run_id(toy_config(output="elsewhere", threads=2, trainer__checkpoint_seconds=1.0)) == base
    assert run_id(toy_config(model__width=17)) != base
    decay = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.01}
    ids = {run_id(toy_config(optimizer=decay | more)) for more in ({}, {"weight_decay": 0}, {"weight_decay": 0.0})}
    assert len(ids) == 1, "torch writes `weight_decay: float = 0`"
    assert run_id(toy_config(optimizer=decay | {"weight_decay": 0.1})) not in ids
    assert run_id(toy_config(seed=1)) != base
    assert run_id(toy_config(sparsity__density=1)) == run_id(toy_config(sparsity__density=1.0))
    assert run_id(toy_config(sparsity__layers=["default"])) == base
    assert run_id(toy_config(sparsity__layers=["first"])) != base
    assert run_id(toy_config(sparsity__density=0.25)) != base


@pytest.mark.parametrize(("given", "weights", "threads"), [(None, 10**6, 1), (None, 384, 2), (3, 10**6, 3)])
def test_a_small_model_takes_one_thread_unless_told(
    given: int | None, weights: int, threads: int, toy_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparse_bench.environment.cores", lambda: 2)
    monkeypatch.setattr("sparse_bench.run.SMALL_MODEL", weights)
    result = run(toy_config(threads=given, device="cpu"))  # 384 weights in the largest group
    assert isinstance(result, Result)
    assert result.machine["threads"] == threads
    assert torch.get_num_threads() == threads
