"""What cannot be evaluated, or not in the precision asked for, is found out before training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from torch import nn

from sparse_bench.config import build
from sparse_bench.errors import ConfigError
from sparse_bench.model_factory import ModelFactory
from sparse_bench.run import run
from sparse_bench.tasks.held_out import FEW
from sparse_bench.tasks.translation_metrics import TranslationScores
from sparse_bench.training import precision
from tests.test_shipped_configs import EMBEDDED, NARROW
from tests.toy import ToyModel, ToyTask

Make = Callable[..., DictConfig]
Compose = Callable[..., DictConfig]
#: The model that learns each task, small.
MODELS = {
    "intent": ["model=diet", "model.transformer_size=8"],
    "language_modelling": ["model=lstm_lm", "model.hidden=9", "model.embedding_dim=4"],
    "dialogue": ["model=ted", "model.transformer_size=8"],
    "tagging": ["model=bilstm_tagger"],
    "text_typing": ["model=bag_of_embeddings"],
    "translation": ["model=transformer", *NARROW["transformer"]],
}


class RefusingTask(ToyTask):
    """Trains well, and cannot evaluate its test split."""

    def measure(self, model: nn.Module, split: str, few: bool) -> dict[str, float]:
        if split == "test":
            raise ConfigError("no metric for this test")
        return super().measure(model, split, few)


class ForgetfulModel(ToyModel):
    """Draws random numbers when it is evaluated, too."""

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        torch.rand(3)
        return super().forward(points)


def test_an_evaluation_that_refuses_does_so_before_the_first_step(toy_config: Make) -> None:
    result = run(toy_config(dataset___target_="tests.training.test_rehearsal.RefusingTask"))
    assert result is not None
    assert result.status == "failed"
    assert result.error is not None
    assert result.error["message"] == "no metric for this test"
    assert result.steps is None


@pytest.mark.parametrize("model", ["tests.toy.ToyModel", "tests.training.test_rehearsal.ForgetfulModel"])
def test_the_rehearsal_changes_no_bit(
    model: str, toy_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for rehearsed in (True, False):
        if not rehearsed:
            monkeypatch.setattr("sparse_bench.run.rehearse", lambda trainer: None)
        config = toy_config(model___target_=model, output=str(tmp_path / str(rehearsed)))
        result = run(config)
        assert result is not None
        folder = tmp_path / str(rehearsed) / "toy" / result.id
        found.append(((folder / "metrics.jsonl").read_bytes(), json.dumps(result.metrics)))
    assert found[0] == found[1]


def test_a_run_that_goes_on_rehearses_nothing(toy_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparse_bench.training.trainer import Trainer

    config = toy_config(trainer__checkpoint_seconds=0.0)
    original = Trainer._end_epoch

    def interrupted(trainer: Trainer) -> None:
        original(trainer)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_end_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    monkeypatch.setattr(Trainer, "_end_epoch", original)
    monkeypatch.setattr("sparse_bench.run.rehearse", lambda trainer: pytest.fail("rehearsed again"))
    result = run(config)
    assert result is not None
    assert result.status == "finished"


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_few_examples_go_the_whole_way(name: str, compose_config: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every metric that the whole split has, but those of words that few examples may not hold."""
    config = compose_config(*EMBEDDED[name], *MODELS[name])
    task = build(config.dataset, _partial_=False)
    model = ModelFactory(config.model, task.sizes)().eval()
    seen: list[int] = []
    counted = {"forward": model.forward, "predict": getattr(model, "predict", None)}
    for method, call in counted.items():
        if call is not None:
            monkeypatch.setattr(model, method, lambda *a, call=call: seen.append(examples(a[0])) or call(*a))
    for split in task.splits:
        seen.clear()
        rehearsed = task.rehearse(model, split)
        assert seen
        assert max(seen) <= FEW * 4
        assert set(rehearsed) >= set(task.evaluate(model, split)) - {"accuracy_unknown_words", "accuracy_known_words"}
        assert all(np.isfinite(value) for value in rehearsed.values())


def examples(batch: Any) -> int:
    """How many examples, or tokens of a text, a model is given."""
    if isinstance(batch, torch.Tensor):
        return batch.shape[0]
    for attribute in ("intents", "actions", "types", "target_lengths"):
        if hasattr(batch, attribute):
            return len(getattr(batch, attribute))
    return len(batch.layout.lengths)


def test_a_precision_that_torch_cannot_compute_here_is_named(toy_config: Make) -> None:
    result = run(
        toy_config(model___target_="tests.training.test_rehearsal.FullPrecisionModel", trainer__precision="bf16")
    )
    assert result is not None
    assert result.error is not None
    assert result.error["type"] == "ConfigError"
    assert "trainer.precision=bf16 is not possible for this model on this cpu" in result.error["message"]
    assert "no kernel for bfloat16" in result.error["message"]
    assert result.steps is None


def test_an_error_in_full_precision_too_is_not_blamed_on_the_precision(toy_config: Make) -> None:
    config = toy_config(model___target_="tests.training.test_rehearsal.BrokenModel", trainer__precision="bf16")
    result = run(config)
    assert result is not None
    assert result.error is not None
    assert result.error["type"] == "RuntimeError"


class FullPrecisionModel(ToyModel):
    """Stands for a layer that torch has for float32 alone, as LSTMs on many processors."""

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("no kernel for bfloat16\nRun with more diagnostics.")
        return super().forward(points)


class BrokenModel(ToyModel):
    """Cannot be computed at all."""

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("broken")


def test_lstms_in_half_precision_on_a_cpu_end_as_torch_can_do_them(compose_config: Compose, tmp_path: Path) -> None:
    """Named where torch has no such kernel, and computed where it has."""
    assert "fp16" in precision._DTYPES
    common = [*EMBEDDED["language_modelling"], *MODELS["language_modelling"], "trainer.steps=1", "threads=1"]
    config = compose_config(*common, "trainer.precision=fp16", f"output={tmp_path}", "logger=none", "device=cpu")
    result = run(config)
    assert result is not None
    assert result.status == "finished" or "Use trainer.precision=fp32" in result.error["message"]


def test_a_language_without_a_stemmer_leaves_meteor_out(caplog: pytest.LogCaptureFixture) -> None:
    scores = TranslationScores(["ein Haus"], str.split, "cs", tokenised=False)
    assert set(scores.score(["ein Haus"])) == {"bleu", "chrf", "ter"}
    assert "METEOR is left out: it has no stemmer for the language 'cs', only for ar, da, de" in caplog.text
    assert scores.signatures()["meteor"].startswith("left out")


def test_a_french_target_is_scored_by_meteor_too() -> None:
    scores = TranslationScores(["les maisons blanches"], str.split, "fr", tokenised=False)
    # The words have the same stems: one chunk of three matches.
    expected = 100 * (1 - 0.5 * (1 / 3) ** 3)
    assert scores.score(["la maisons blanche"])["meteor"] < scores.score(["les maison blanche"])["meteor"]
    assert scores.score(["les maison blanche"])["meteor"] == pytest.approx(expected)
