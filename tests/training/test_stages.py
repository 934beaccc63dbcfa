"""Training in stages: averaging, rules that stop it, and a second run that starts from a first one."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from sparse_bench.config import run_id
from sparse_bench.errors import ConfigError
from sparse_bench.record import Result, RunFolder
from sparse_bench.run import run
from sparse_bench.source import find_source
from sparse_bench.training.trainer import Trainer

Make = Callable[..., DictConfig]

NT_ASGD = {
    "optimizer": {
        "label": "nt_asgd",
        "_target_": "sparse_bench.training.averaging.NonMonotoneASGD",
        "_partial_": True,
        "lr": 0.5,
    }
}


def folder_of(config: DictConfig) -> RunFolder:
    source = find_source(config)
    return RunFolder(
        Path(config.output) / config.experiment_name / run_id(config, source.name if source is not None else None)
    )


def lines(config: DictConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder_of(config).metrics.path.read_text().splitlines()]


def finished(config: DictConfig) -> Result:
    result = run(config)
    assert result is not None
    assert result.status == "finished", result.error
    return result


def stop(rule: str, **settings: Any) -> dict[str, Any]:
    return {"trainer__stop": {"_target_": f"sparse_bench.training.stopping.{rule}", **settings}}


@pytest.fixture
def accuracies(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes evaluations give these values, and then 0."""

    def give(*values: float) -> None:
        left: Iterator[float] = iter(values)
        monkeypatch.setattr("tests.toy.ToyTask.evaluate", lambda *_: {"accuracy": next(left, 0.0)})

    return give


def test_rules_end_a_run(toy_config: Make, accuracies: Callable[..., None]) -> None:
    """More accuracy is better, so a falling one is a rise of what is watched."""
    accuracies(0.5, 0.6, 0.55, 0.54, 0.7, 0.6, 0.5, 0.4, 0.3)
    result = finished(toy_config(trainer__epochs=9, **stop("ConsecutiveRises", window=3)))
    assert result.epochs == 8


def test_a_rule_may_look_at_a_training_metric(toy_config: Make) -> None:
    """A loss that falls in every epoch gets worse in every epoch, if more is said to be better."""
    config = toy_config(
        trainer__epochs=9, **stop("ConsecutiveRises", metric="train/cross_entropy", mode="max", window=3)
    )
    assert finished(config).epochs == 4
    losses = [line["train/cross_entropy"] for line in lines(config)]
    assert losses == sorted(losses, reverse=True)


def test_an_unknown_metric_is_named(toy_config: Make) -> None:
    result = run(toy_config(**stop("Reached", metric="train/acuracy")))
    assert result is not None
    assert result.error is not None
    assert "trainer.stop.metric 'train/acuracy'" in result.error["message"]


def test_what_a_rule_needs_is_checked(toy_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for settings, message in [
        (stop("ConsecutiveRises", window=0), "at least 1"),
        (stop("ConsecutiveRises", windows=3), "Unknown setting 'windows'"),
        (stop("Reached", metric="valid/acuracy"), "Did you mean 'valid/accuracy'"),
        (stop("Reached", metric="learning_rate"), "Unknown trainer.stop.metric"),
        ({"trainer__stop": "soon"}, "null or have a _target_"),
        ({**stop("ConsecutiveRises"), "trainer__evaluate_every": 0}, "trainer.stop uses evaluations"),
        ({**NT_ASGD, "trainer__evaluate_every": 0}, "optimizer=nt_asgd uses evaluations"),
    ]:
        with pytest.raises(ConfigError, match=message):
            run(toy_config(**settings))
    monkeypatch.setattr("tests.toy.ToyTask.splits", ("test",))
    with pytest.raises(ConfigError, match="with a validation split"):
        run(toy_config(**NT_ASGD))


def test_averaged_weights_are_evaluated_and_kept(toy_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The epoch's metric and the best weights are those of the average; training goes on with the raw weights."""
    raw: list[float] = []
    ended = Trainer._end_epoch

    def spy(self: Trainer) -> None:
        before = self.model.get_parameter("output.weight").detach().sum().item()
        ended(self)
        assert self.model.get_parameter("output.weight").detach().sum().item() == before
        raw.append(before)

    monkeypatch.setattr(Trainer, "_end_epoch", spy)

    def evaluate(self: object, model: torch.nn.Module, split: str) -> dict[str, float]:
        weight = model.get_parameter("output.weight").detach().sum().item()
        return {"accuracy": weight, "weight": weight}

    monkeypatch.setattr("tests.toy.ToyTask.evaluate", evaluate)
    for select in ("last", "best"):
        raw.clear()
        config = toy_config(
            **NT_ASGD, trainer__epochs=4, trainer__select=select, trainer__keep="weights", optimizer__force_after=1
        )
        result = finished(config)
        logged = lines(config)
        evaluated = [line["valid/weight"] for line in logged]
        assert evaluated[0] == raw[0]  # not averaging yet
        assert all(value != weights for value, weights in zip(evaluated[1:], raw[1:], strict=True))
        chosen = evaluated[-1] if select == "last" else max(evaluated)
        assert result.metrics["valid/weight"] == chosen
        kept = torch.load(folder_of(config).weights, weights_only=True)["model"]["output.weight"]
        assert kept.sum().item() == chosen
        assert [line["optimizer/averaging"] for line in logged] == [1.0] * 4
        assert result.metrics["optimizer/averaging_since"] == 1.0
        assert result.metrics["optimizer/averaging_forced"] == 1.0


@pytest.mark.parametrize("stop_at", [4, 8, 15])
def test_an_interrupted_averaging_run_ends_like_an_undisturbed_one(
    toy_config: Make, monkeypatch: pytest.MonkeyPatch, stop_at: int, tmp_path: Path
) -> None:
    settings = {
        **NT_ASGD,
        **stop("ConsecutiveRises", window=9),
        "trainer__checkpoint_seconds": 0.0,
        "trainer__keep": "weights",
        "optimizer__force_after": 1,
    }
    undisturbed = toy_config(**settings, output=str(tmp_path / "undisturbed"))
    expected = finished(undisturbed)

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
    resumed = finished(disturbed)
    assert resumed.metrics == expected.metrics
    assert lines(disturbed) == lines(undisturbed)
    ours, theirs = (torch.load(folder_of(c).weights, weights_only=True)["model"] for c in (disturbed, undisturbed))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def first_stage(toy_config: Make, **settings: Any) -> DictConfig:
    return toy_config(experiment_name="first", trainer__keep="weights", **settings)


def second_stage(toy_config: Make, **settings: Any) -> DictConfig:
    return toy_config(**{"experiment_name": "second", "start_from": "first", **settings})


def test_a_run_starts_from_the_weights_and_masks_of_another(toy_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = finished(first_stage(toy_config))
    config = second_stage(toy_config, trainer__evaluate_first=True, trainer__epochs=2)
    second = finished(config)
    assert second.notes["start_from"] == f"first/{first.id}"
    start = lines(config)[0]
    assert (start["epoch"], start["step"]) == (0, 0)
    assert start["valid/cross_entropy"] == first.metrics["valid/cross_entropy"]
    assert second.counts == first.counts
    assert second.metrics != first.metrics
    monkeypatch.setattr(Trainer, "fit", lambda self: pytest.fail("trained again"))
    assert run(config) == second


def test_a_dynamic_scheme_goes_on_where_it_was(toy_config: Make) -> None:
    """What was explored before stays explored, and no rewiring draws what an earlier one has drawn."""
    evolving = {"sparsity": {"label": "set", "_target_": "sparse_bench.sparsity.schemes.set.SET", "density": 0.3}}
    finished(first_stage(toy_config, trainer__epochs=3, **evolving))
    second = second_stage(toy_config, trainer__epochs=2, trainer__keep="weights", **evolving)
    finished(second)
    source = find_source(second)
    assert source is not None
    before, after = (torch.load(path, weights_only=True) for path in (source.weights, folder_of(second).weights))
    assert (before["scheme"]["rewirings"], after["scheme"]["rewirings"]) == (3, 5)
    earlier, later = (state["scheme"]["evolution"]["ever"] for state in (before, after))
    for name, ever in earlier.items():
        mask = before["model"][f"{name}_mask"].flatten()
        assert (mask & ~ever).count_nonzero() == 0
        assert (ever & ~later[name]).count_nonzero() == 0
    topologies = [json.loads(line) for line in folder_of(second).topology.path.read_text().splitlines()]
    assert [entry["epoch"] for entry in topologies] == [0, 1, 2]
    for name, layer in topologies[0]["layers"].items():
        assert layer["active"] == int(before["model"][f"{name}_mask"].sum())


def test_what_a_finished_run_lacks_is_told(toy_config: Make, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        finished(toy_config(trainer__keep="nothing"))
    assert "is not there" not in caplog.text
    finished(toy_config(trainer__keep="weights"))
    assert "trainer.keep=weights, but this finished run did not keep that" in caplog.text


def test_the_first_weights_may_stay_the_best(toy_config: Make, accuracies: Callable[..., None]) -> None:
    accuracies()
    finished(first_stage(toy_config))
    accuracies(0.9, 0.1, 0.1)
    config = second_stage(toy_config, trainer__evaluate_first=True, trainer__select="best", trainer__keep="weights")
    result = finished(config)
    source = find_source(config)
    assert source is not None
    before = torch.load(source.weights, weights_only=True)["model"]
    after = torch.load(folder_of(config).weights, weights_only=True)["model"]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert result.epochs == 3


def test_a_run_is_named_by_the_one_that_it_starts_from(toy_config: Make) -> None:
    short = finished(first_stage(toy_config, trainer__epochs=1))
    from_short = folder_of(second_stage(toy_config)).path
    long = finished(first_stage(toy_config, trainer__epochs=2))
    with pytest.raises(ConfigError) as error:
        run(second_stage(toy_config))
    assert all(f"first/{result.id}" in str(error.value) for result in (short, long))
    assert folder_of(second_stage(toy_config, start_from=f"first/{short.id}")).path == from_short
    assert folder_of(second_stage(toy_config, start_from=f"first/{long.id}")).path != from_short


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"seed": 1}, "another seed"),
        ({"model__width": 8}, "another model"),
        ({"dataset__examples": 64}, "another dataset"),
        ({"sparsity__density": 0.25}, "another sparsity"),
        ({"trainer__keep": "nothing"}, "without weights"),
        ({"dataset__bad_step": 1}, "not finished"),
    ],
)
def test_a_run_that_does_not_fit_is_named_with_the_reason(
    toy_config: Make, settings: dict[str, Any], reason: str
) -> None:
    other = run(toy_config(**{"experiment_name": "first", "trainer__keep": "weights", **settings}))
    assert other is not None
    with pytest.raises(ConfigError, match=rf"Runs found: first/{other.id} \({reason}\)"):
        run(second_stage(toy_config))


def test_where_there_is_no_run_it_says_so(toy_config: Make) -> None:
    with pytest.raises(ConfigError, match=r"start_from='first' needs .* Runs found: none"):
        run(second_stage(toy_config))


def test_moments_forgotten_at_epoch_ends(toy_config: Make) -> None:
    """Six steps an epoch: after a reset, Adam counts its own steps from one again; the run's count goes on."""
    counts = {}
    for reset in (False, True):
        config = toy_config(trainer__reset_optimizer=reset, trainer__keep="checkpoint", trainer__epochs=2)
        assert finished(config).steps == 12
        state = torch.load(folder_of(config).checkpoint, weights_only=True)["optimizer"]["state"]
        counts[reset] = [float(moments["step"]) for moments in state.values()]
    assert set(counts[False]) == {12.0}
    assert counts[True] == []


def test_averages_cannot_be_forgotten(toy_config: Make) -> None:
    with pytest.raises(ConfigError, match="would delete the averages of optimizer=nt_asgd"):
        run(toy_config(trainer__reset_optimizer=True, **NT_ASGD))


def test_moments_that_are_made_at_once_cannot_be_forgotten(toy_config: Make) -> None:
    adagrad = {"label": "adagrad", "_target_": "torch.optim.Adagrad", "_partial_": True}
    result = run(toy_config(trainer__reset_optimizer=True, optimizer=adagrad))
    assert result is not None
    assert result.error is not None
    assert "Adagrad creates it at once" in result.error["message"]
