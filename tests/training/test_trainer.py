"""What the loop does at each step and at the end of each epoch, looked at from the optimizer and the scheme."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse_bench.batch import Batch, Loss
from sparse_bench.data.text import numbered_corpus
from sparse_bench.errors import NonFiniteLossError
from sparse_bench.sparsity.scheme import Length
from sparse_bench.sparsity.schemes.random import Random
from sparse_bench.streams import Streams
from sparse_bench.tasks.text_batches import training_chunks
from sparse_bench.training import trainer
from sparse_bench.training.trainer import Trainer
from tests.toy import ToyTask

Make = Callable[..., Trainer]
SGD = {"label": "sgd", "_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5}
CPU = torch.device("cpu")


def gradients_at_steps(trained: Trainer) -> list[list[Tensor]]:
    """A list that grows with every optimizer step: the gradients that the optimizer is given."""
    found: list[list[Tensor]] = []

    def look(*_: object) -> None:
        parameters = trained.model.parameters()
        found.append([parameter.grad.clone() for parameter in parameters if parameter.grad is not None])

    trained.optimizer.register_step_pre_hook(look)
    return found


def norm(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.square().sum()) for tensor in tensors))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def words(lines_of_text: int) -> Any:
    """A text that is laid out as two streams."""
    line = [f"w{number}" for number in range(40)]
    return numbered_corpus([line] * lines_of_text, [line], [line])


def test_the_rate_of_a_step_follows_the_length_drawn_for_its_batch(make_trainer: Make) -> None:
    """Merity et al. 2018, section 5: rate · length / bptt; here under a schedule that has its own factor."""
    language = {
        "_target_": "sparse_bench.tasks.language_modelling.LanguageModellingTask",
        "_partial_": True,
        "corpus": {"_target_": "tests.training.test_trainer.words", "lines_of_text": 30},
        "batch_size": 2,
        "bptt": 20,
        "longest": 40,
        "valid_batch_size": 1,
    }
    model = {"_target_": "sparse_bench.models.lstm_lm.LSTMLM", "_partial_": True, "embedding_dim": 4, "hidden": 4}
    trained = make_trainer(
        dataset=language,
        model=model,
        sparsity__density=1.0,
        optimizer=SGD,
        trainer__epochs=2,
        trainer__schedule={"_target_": "sparse_bench.training.schedules.LinearWarmup", "steps": 40},
    )
    rates: list[float] = []
    trained.optimizer.register_step_pre_hook(lambda *_: rates.append(trained.optimizer.param_groups[0]["lr"]))
    trained.fit()
    tokens = 30 * 41 // 2
    first, second = (training_chunks(tokens, 20, 40, Streams(0).numpy("data", epoch)) for epoch in range(2))
    drawn = [chunk.drawn for chunk in (*first, *second)]
    assert len(set(drawn)) > 3
    assert rates == pytest.approx(
        [0.5 * min(1, step / 40) * length / 20 for step, length in enumerate(drawn, start=1)], rel=1e-12
    )
    # What is logged is the schedule's part, which an epoch's last length would hide.
    assert [line["learning_rate"] for line in lines(trained.folder.metrics.path)] == [
        0.5 * min(1, step / 40) for step in (len(first), len(drawn))
    ]


def two_rates(parameters: Any, lr: float) -> torch.optim.Optimizer:
    first, *rest = parameters
    return torch.optim.SGD([{"params": [first], "lr": 4 * lr}, {"params": rest, "lr": lr}])


def test_every_group_s_own_rate_follows_the_schedule_s_epoch(make_trainer: Make) -> None:
    trained = make_trainer(
        optimizer={"_target_": "tests.training.test_trainer.two_rates", "lr": 0.1},
        dataset__batch_size=48,
        trainer__schedule={"_target_": "sparse_bench.training.schedules.ExponentialPerEpoch"},
    )
    rates: list[list[float]] = []
    groups = trained.optimizer.param_groups
    trained.optimizer.register_step_pre_hook(lambda *_: rates.append([group["lr"] for group in groups]))
    trained.fit()
    assert rates == [[0.4, 0.1]] * 2 + [[0.2, 0.05]] * 2 + [[0.1, 0.025]] * 2
    assert [line["learning_rate"] for line in lines(trained.folder.metrics.path)] == [0.4, 0.2, 0.1]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_epoch_s_loss_is_the_mean_of_its_batches(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    losses: list[float] = []
    toy_loss = ToyTask.loss

    def loss(self: ToyTask, model: nn.Module, batch: Batch) -> Loss:
        found = toy_loss(self, model, batch)
        losses.append(found.total.item())
        return Loss(found.total, found.parts, found.examples, tokens=7 * found.examples)

    monkeypatch.setattr(ToyTask, "loss", loss)
    trained = make_trainer(dataset__batch_size=40, trainer__epochs=2, trainer__accumulate=accumulate)
    progress = trained.fit()
    assert (progress.examples, progress.tokens) == (192, 7 * 192)
    seconds = lines(trained.folder.timing.path)[-1]
    assert seconds["tokens_per_second"] * seconds["train_seconds"] == pytest.approx(7 * 192)
    logged = lines(trained.folder.metrics.path)
    for epoch, line in enumerate(logged):
        expected = pytest.approx(sum(losses[3 * epoch : 3 * epoch + 3]) / 3, rel=1e-6)
        assert line["train/loss"] == line["train/cross_entropy"] == expected
    assert [line["step"] for line in logged] == ([3, 6] if accumulate == 1 else [2, 4])


def test_accumulated_gradients_are_means_over_the_batches_of_their_step(make_trainer: Make) -> None:
    """Three batches, two to a step: the last one stands alone."""
    settings = {"optimizer": SGD | {"lr": 0.0}, "model__dropout": 0.0, "dataset__batch_size": 40, "trainer__epochs": 1}
    single, pairs = make_trainer(**settings), make_trainer("pairs", trainer__accumulate=2, **settings)
    one_by_one, together = gradients_at_steps(single), gradients_at_steps(pairs)
    single.fit()
    pairs.fit()
    assert (len(one_by_one), len(together)) == (3, 2)
    for first, second, third, pair, last in zip(*one_by_one, *together, strict=True):
        torch.testing.assert_close(pair, (first + second) / 2)
        assert torch.equal(last, third)


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({}, [1, 2, 3]),
        ({"trainer__evaluate_every": 2}, [2]),
        ({"trainer__evaluate_every": 2, "trainer__select": "best"}, [2, 3]),
        ({"trainer__evaluate_every": 2, "trainer__early_stopping": 9}, [2, 3]),
        ({"trainer__evaluate_every": 0}, []),
        ({"trainer__evaluate_first": True, "trainer__evaluate_every": 0}, [0]),
    ],
)
def test_when_and_how_it_is_evaluated(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], epochs: list[int]
) -> None:
    """Without dropout and gradient, in the run's precision; where something is to be chosen, at the end as well."""
    seen: list[tuple[Any, ...]] = []

    def evaluate(self: ToyTask, model: nn.Module, split: str) -> dict[str, float]:
        seen.append((split, model.training, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        return {"accuracy": 0.5}

    monkeypatch.setattr(ToyTask, "evaluate", evaluate)
    trained = make_trainer(trainer__precision="bf16", **settings)
    trained.fit()
    assert seen == [("valid", False, False, True)] * len(epochs)
    assert trained.model.training
    assert [line["epoch"] for line in lines(trained.folder.metrics.path) if "valid/accuracy" in line] == epochs


def test_patience_begins_anew_with_every_best_value(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.5, 0.5, 0.6, 0.5, 0.7, 0.7, 0.65, 0.9])
    monkeypatch.setattr(ToyTask, "evaluate", lambda *_: {"accuracy": next(values)})
    assert make_trainer(trainer__epochs=20, trainer__early_stopping=2).fit().epoch == 7


def test_patience_and_a_rule_that_stops_work_side_by_side(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyTask, "evaluate", lambda *_: {"accuracy": 0.5})
    rule = {"_target_": "sparse_bench.training.stopping.ConsecutiveRises", "window": 3}
    assert make_trainer(trainer__epochs=9, trainer__early_stopping=2, trainer__stop=rule).fit().epoch == 3


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_norm_that_is_clipped_is_that_of_the_existing_weights_gradients(make_trainer: Make, precision: str) -> None:
    """Neither gradients where no weight exists nor the scale of fp16 count: after clipping the norm is the limit."""
    settings = {"optimizer": SGD, "model__dropout": 0.0, "sparsity__density": 0.2, "trainer__precision": precision}
    free, clipped = make_trainer(**settings), make_trainer("clipped", trainer__gradient_clip=0.05, **settings)
    unclipped, given = gradients_at_steps(free), gradients_at_steps(clipped)
    free.fit()
    clipped.fit()
    assert norm(unclipped[0]) > 0.1
    assert norm(given[0]) == pytest.approx(0.05, rel=1e-4)
    for gradient, whole in zip(given[0], unclipped[0], strict=True):
        torch.testing.assert_close(gradient, whole * (0.05 / norm(unclipped[0])), rtol=1e-3, atol=1e-7)


def test_a_step_whose_scaled_gradients_overflow_is_left_out(make_trainer: Make) -> None:
    trained = make_trainer(trainer__precision="fp16", optimizer=SGD)
    batch = next(trained.task.epoch_batches(0, trained.streams))
    before = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    scale = trained.precision.scaler.get_scale()
    trained.forward_backward(batch)
    next(trained.model.parameters()).grad.fill_(math.inf)  # type: ignore[union-attr]
    trained.update()
    assert all(torch.equal(before[name], tensor) for name, tensor in trained.model.state_dict().items())
    assert trained.precision.scaler.get_scale() == scale / 2
    assert all(parameter.grad is None for parameter in trained.model.parameters())


class Recorder(Random):
    """A scheme that says whatever it is told."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.told: list[tuple[Any, ...]] = []

    def before_training(self, length: Callable[[], Length]) -> None:
        self.told.append(("training", length()))

    def before_backward(self, step: int) -> None:
        self.told.append(("backward", step))

    def after_step(self, step: int, optimizer: Any, streams: Streams) -> None:
        super().after_step(step, optimizer, streams)
        self.told.append(("step", step))

    def at_epoch_end(self, epoch: int, last: bool, optimizer: Any, streams: Streams) -> dict[str, float]:
        self.told.append(("epoch", epoch, last))
        return {"scheme/told": float(epoch)}


RECORDER = {"_target_": "tests.training.test_trainer.Recorder", "density": 0.5, "layers": ["default"]}


def told(trained: Trainer) -> list[tuple[Any, ...]]:
    assert isinstance(trained.scheme, Recorder)
    return trained.scheme.told


def test_what_a_scheme_is_told(make_trainer: Make) -> None:
    """96 examples in batches of 40 are three batches, two of which make a step: two steps an epoch."""
    settings = {"sparsity": RECORDER, "dataset__batch_size": 40, "trainer__accumulate": 2}
    trained = make_trainer(trainer__epochs=2, **settings)
    progress = trained.fit()
    assert told(trained) == [
        ("training", Length(epochs=2, steps=4)),
        *[("backward", 1), ("step", 1), ("backward", 2), ("step", 2), ("backward", 3), ("epoch", 0, False)],
        *[("step", 3), ("backward", 4), ("step", 4), ("backward", 5), ("epoch", 1, True)],
    ]
    assert [line["scheme/told"] for line in lines(trained.folder.metrics.path)] == [0.0, 1.0]
    assert (progress.step, progress.examples, progress.tokens) == (4, 192, 192)


@pytest.mark.parametrize("every", [1, 0])
def test_rows_of_tables_are_brought_up_to_date_before_they_are_looked_at(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """Before every evaluation, and at an epoch's end before the scheme does; moments are forgotten after that."""
    trained = make_trainer(
        sparsity=RECORDER, trainer__epochs=1, trainer__evaluate_every=every, trainer__reset_optimizer=True
    )
    happened = told(trained)
    for name in ("flush", "reset"):
        monkeypatch.setattr(trained._row_sparse, name, lambda name=name: happened.append((name,)))

    def evaluate(self: ToyTask, model: nn.Module, split: str) -> dict[str, float]:
        happened.append(("evaluate",))
        return {"accuracy": 0.5}

    monkeypatch.setattr(ToyTask, "evaluate", evaluate)
    trained.fit()
    trained.evaluate("test")
    looks = [("flush",), ("evaluate",)]
    assert happened[-len(looks) :] == looks
    end = happened[happened.index(("step", 6)) + 2 : -len(looks)]  # beside it "backward" of a step that does not come
    assert end == [("flush",), *(looks if every else ()), ("epoch", 0, True), ("reset",)]


@pytest.mark.parametrize(("steps", "expected"), [(3, Length(2, 3)), (4, Length(2, 4)), (5, Length(3, 5))])
def test_a_length_given_in_steps(make_trainer: Make, steps: int, expected: Length) -> None:
    """At two steps an epoch."""
    settings = {"sparsity": RECORDER, "dataset__batch_size": 48, "trainer__epochs": 9, "trainer__steps": steps}
    trained = make_trainer(**settings)
    progress = trained.fit()
    assert told(trained)[0] == ("training", expected)
    assert (progress.epoch, progress.step) == (expected.epochs, expected.steps)
    assert [entry[2] for entry in told(trained) if entry[0] == "epoch"] == [False] * (expected.epochs - 1) + [True]


def test_a_scheme_is_told_that_an_epoch_is_the_last_when_training_stops_there(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyTask, "evaluate", lambda *_: {"accuracy": 0.5})
    trained = make_trainer(sparsity=RECORDER, trainer__epochs=9, trainer__early_stopping=2)
    trained.fit()
    assert [entry[1:] for entry in told(trained) if entry[0] == "epoch"] == [(0, False), (1, False), (2, True)]


@pytest.mark.parametrize(
    ("values", "mode", "chosen"),
    [
        ([math.nan, 0.4, 0.3], "max", 1),
        ([math.inf, 0.4, 0.3], "max", 1),
        ([0.3, math.nan, 0.4], "max", 2),
        ([math.nan, 0.4, 0.5], "min", 1),
        ([0.5, -math.inf, 0.4], "min", 2),
        ([0.5, 0.5, 0.4], "max", 0),  # the first of equal ones
    ],
)
def test_the_best_value_is_a_finite_one(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch, values: list[float], mode: str, chosen: int
) -> None:
    weights: list[dict[str, Tensor]] = []

    def evaluate(self: ToyTask, model: nn.Module, split: str) -> dict[str, float]:
        weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"accuracy": values[len(weights) - 1]}

    monkeypatch.setattr(ToyTask, "evaluate", evaluate)
    trained = make_trainer(trainer__select="best", trainer__monitor="valid/accuracy", trainer__monitor_mode=mode)
    assert trained.fit().best == values[chosen]
    state = trained.model.state_dict()
    assert [all(torch.equal(state[name], old[name]) for name in old) for old in weights].index(True) == chosen


def test_where_no_value_was_finite_there_is_no_best(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyTask, "evaluate", lambda *_: {"accuracy": math.nan})
    trained = make_trainer(trainer__select="best")
    with pytest.raises(NonFiniteLossError, match="valid/accuracy was not a finite number at any of 3 evaluations"):
        trained.fit()
    assert len(lines(trained.folder.metrics.path)) == 3


def test_the_sums_of_an_epoch_hold_no_graph(make_trainer: Make) -> None:
    trained = make_trainer()
    trained.forward_backward(next(trained.task.epoch_batches(0, trained.streams)))
    assert not any(value.requires_grad for value in trained._sums.values())


@pytest.mark.parametrize(("look_every", "step"), [(2, 4), (50, 6)])
def test_a_loss_that_is_not_finite_is_noticed_within_an_epoch_or_at_its_end(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch, look_every: int, step: int
) -> None:
    monkeypatch.setattr(trainer, "FINITE_CHECK_STEPS", look_every)
    trained = make_trainer(dataset__bad_step=2)
    with pytest.raises(NonFiniteLossError, match=f"in epoch 1, at or before step {step}"):
        trained.fit()
    assert trained.folder.metrics.size() == 0
