"""A language model's run: the hidden state that is carried from batch to batch, through interruptions too."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from sparse_bench.config import run_id
from sparse_bench.record import Result
from sparse_bench.run import run
from sparse_bench.training.trainer import Trainer

Compose = Callable[..., DictConfig]

SMALL = [
    "model=awd_lstm",
    "dataset=ptb_like",
    "optimizer=nt_asgd",
    "model.embedding_dim=6",
    "model.hidden=9",
    "dataset.corpus.sentences=24",
    "dataset.batch_size=4",
    "dataset.valid_batch_size=4",
    "dataset.bptt=20",
    "dataset.test_batch_size=4",
    "optimizer.force_after=1",
    "trainer.epochs=3",
    "trainer.evaluate_every=1",
    "trainer.gradient_clip=0.25",
    "trainer.select=best",
    "trainer.keep=weights",
    "trainer.checkpoint_seconds=0.0",
    "logger=none",
    "threads=1",
]


class Killed(BaseException):
    pass


def finished(config: DictConfig) -> Result:
    result = run(config)
    assert result is not None
    assert result.status == "finished", result.error
    return result


def killed(config: DictConfig, step: int) -> None:
    update = Trainer.update

    def until_killed(self: Trainer) -> None:
        if self.progress.step == step:
            raise Killed
        update(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "update", until_killed)
        with pytest.raises(Killed):
            run(config)


def folder(config: DictConfig) -> Path:
    return Path(config.output) / config.experiment_name / run_id(config)


@pytest.mark.parametrize("sparsity", ["dense", "random"])
def test_a_run_interrupted_inside_an_epoch_carries_its_state_on(
    compose_config: Compose, tmp_path: Path, sparsity: str
) -> None:
    """Bit for bit, also if another run has used the same task in between."""

    def config(name: str, *overrides: str) -> DictConfig:
        return compose_config(*SMALL, f"sparsity={sparsity}", f"output={tmp_path / name}", *overrides)

    undisturbed, disturbed = config("undisturbed"), config("disturbed")
    expected = finished(undisturbed)
    assert expected.steps is not None
    steps = expected.steps // 3
    assert steps > 4
    for step in (3, steps + 2):  # in the first epoch, before averaging, and in the second
        killed(disturbed, step)
        assert not (folder(disturbed) / "result.json").exists()
        killed(config("other", "seed=1"), 2 + step % 3)
    torch.manual_seed(123)
    resumed = finished(disturbed)
    assert resumed.metrics == expected.metrics
    lines, expected_lines = ((folder(c) / "metrics.jsonl").read_text() for c in (disturbed, undisturbed))
    assert lines == expected_lines
    ours, theirs = (torch.load(folder(c) / "weights.pt", weights_only=True)["model"] for c in (disturbed, undisturbed))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # The state matters at all: without it the same run ends elsewhere.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sparse_bench.tasks.language_modelling._on", lambda state, device: None)
        assert finished(config("forgetful")).metrics != expected.metrics


def test_an_epoch_of_a_language_model_says_what_it_did(compose_config: Compose, tmp_path: Path) -> None:
    config = compose_config(*SMALL, f"output={tmp_path}")
    result = finished(config)
    assert result.macs_per_example["sparse"] == result.macs_per_example["dense"] > 0
    lines = [json.loads(line) for line in (folder(config) / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert 0 <= line["train/accuracy"] <= 1
        assert line["valid/perplexity"] > 1
    assert result.metrics["optimizer/averaging_forced"] == 1.0
    assert result.metrics["valid/perplexity"] == min(line["valid/perplexity"] for line in lines)
