"""Training that is killed and taken up again: lines, random generators, the task's state and seconds."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sparse_bench.batch import Batch, Loss
from sparse_bench.training import checkpoint, trainer
from sparse_bench.training.trainer import Trainer
from tests.toy import ToyTask
from tests.training.test_trainer import lines

Make = Callable[..., Trainer]


class Killed(BaseException):
    pass


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch, trained: Trainer) -> None:
    """Train, and end in the middle of optimizer step ``step``."""
    update = Trainer.update

    def until_killed(self: Trainer) -> None:
        if self.progress.step + 1 == step:
            raise Killed
        update(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", until_killed)
        with pytest.raises(Killed):
            trained.fit()


def test_what_was_logged_before_any_checkpoint_stands_there_once(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the second of three epochs, before the first checkpoint was due."""
    settings = {
        "sparsity": {"_target_": "sparse_bench.sparsity.schemes.set.SET", "density": 0.3, "layers": ["default"]},
        "trainer__evaluate_first": True,
    }
    trained = make_trainer(**settings)
    kill_at(8, monkeypatch, trained)
    assert not trained.folder.checkpoint.exists()
    assert len(lines(trained.folder.metrics.path)) == 2
    resumed, undisturbed = make_trainer(**settings), make_trainer("undisturbed", **settings)
    torch.manual_seed(0)
    resumed.fit()
    torch.manual_seed(0)
    undisturbed.fit()
    for name in ("metrics", "topology"):
        ours, theirs = (getattr(one.folder, name).path for one in (resumed, undisturbed))
        assert ours.read_bytes() == theirs.read_bytes()
    assert [line["epoch"] for line in lines(resumed.folder.timing.path)] == [1, 2, 3]


class NoisyTask(ToyTask):
    """Draws from every global generator that libraries may draw from, and has a state of its own."""

    seen = 0

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        loss = super().loss(model, batch)
        self.seen += 1
        noise = np.random.random() + random.random() + torch.rand(()).item() + self.seen  # noqa: NPY002
        return Loss(loss.total * noise, loss.parts, loss.examples, loss.tokens)

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


def test_generators_and_the_task_go_on_where_they_were(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"dataset___target_": "tests.training.test_interruptions.NoisyTask", "trainer__checkpoint_seconds": 0.0}
    disturbed, undisturbed = make_trainer(**settings), make_trainer("undisturbed", **settings)

    def seed(number: int) -> None:
        torch.manual_seed(number)
        np.random.seed(number)  # noqa: NPY002
        random.seed(number)

    task: Any = disturbed.task  # of which a process keeps one
    seed(0)
    undisturbed.fit()
    task.seen = 0
    seed(0)
    kill_at(8, monkeypatch, disturbed)
    resumed = make_trainer(**settings)
    task.seen = 0  # a new process knows nothing of the old one's
    seed(1)
    resumed.fit()
    assert resumed.folder.metrics.path.read_bytes() == undisturbed.folder.metrics.path.read_bytes()


SCHEMES: dict[str, dict[str, Any]] = {
    "rigl.RigL": {"new_weight_adam": "own_step"},
    "granet.GraNet": {"new_weight_adam": "warm_up"},
    "srigl.SRigL": {"gamma": 0.6},
    "chts.CHTs": {"fraction": 0.5},
    "chtss.CHTss": {},
    "mest.MEST": {"gradient_weight": 1.0, "new_weight_adam": "own_step"},
    "snfs.SNFS": {"block": 4},
}


#: By default each kind of rewiring once: tests/test_run.py interrupts a run of every scheme. Here all are slow.
FAST = {"rigl.RigL-kernel", "granet.GraNet-kernel", "snfs.SNFS-masked"}


@pytest.mark.parametrize(
    ("scheme", "execution"),
    [
        pytest.param(scheme, execution, marks=[] if f"{scheme}-{execution}" in FAST else pytest.mark.slow)
        for scheme in SCHEMES
        for execution in ("masked", "kernel")
    ],
)
def test_a_rewired_run_goes_on_bit_for_bit(
    scheme: str, execution: str, make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two rewirings; a new process then loads what the last checkpoint holds."""
    node = {"_target_": f"sparse_bench.sparsity.schemes.{scheme}", "layers": ["default"], "execution": execution}
    settings = {"sparsity": {**node, "density": 0.3, "interval": 3, **SCHEMES[scheme]}}
    undisturbed = make_trainer("undisturbed", **settings)
    disturbed = make_trainer(trainer__checkpoint_seconds=0.0, **settings)
    torch.manual_seed(0)
    undisturbed.fit()
    torch.manual_seed(0)
    kill_at(11, monkeypatch, disturbed)
    resumed = make_trainer(**settings)
    torch.manual_seed(1)
    resumed.fit()
    assert resumed.scheme.rewirings() == undisturbed.scheme.rewirings() > 3
    for name in ("metrics", "topology"):
        ours, theirs = (getattr(one.folder, name).path for one in (resumed, undisturbed))
        assert ours.read_bytes() == theirs.read_bytes()
    states = [one.model.state_dict() for one in (resumed, undisturbed)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert resumed.scheme.reached()


def test_seconds_are_those_of_the_work_whatever_is_saved_or_interrupted(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that a batch moves on by a second, and an evaluation by ten."""
    now = [0.0]
    toy_loss = ToyTask.loss

    def loss(self: ToyTask, model: nn.Module, batch: Batch) -> Loss:
        now[0] += 1
        return toy_loss(self, model, batch)

    def evaluate(self: ToyTask, model: nn.Module, split: str) -> dict[str, float]:
        now[0] += 10
        return {"accuracy": 0.5}

    monkeypatch.setattr(ToyTask, "loss", loss)
    monkeypatch.setattr(ToyTask, "evaluate", evaluate)
    for clock in ("monotonic", "perf_counter", "process_time"):
        monkeypatch.setattr(trainer.time, clock, lambda: now[0])
    for folder, seconds in (("rarely", 60.0), ("often", 0.0)):
        trained = make_trainer(folder, trainer__checkpoint_seconds=seconds)
        if seconds == 0.0:
            kill_at(8, monkeypatch, trained)
            trained = make_trainer(folder, trainer__checkpoint_seconds=seconds)
        progress = trained.fit()
        assert trained.earlier_seconds == (0 if seconds else 7 + 10)
        assert (progress.train_seconds, progress.train_processor_seconds, progress.evaluate_seconds) == (18, 18, 30)
        assert checkpoint.load(trained.folder.checkpoint)["progress"]["elapsed_seconds"] == 18 + 30
