"""A whole run of TED on generated dialogues: what its result counts, and that it can be interrupted."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from sparse_bench.record import Result, RunFolder
from sparse_bench.run import run
from sparse_bench.training.trainer import Trainer

Compose = Callable[..., DictConfig]
SETTINGS = [
    *("experiment=rasa/ted", "dataset=booking_like", "dataset.corpus.stories=8", "dataset.corpus.test_stories=2"),
    *("model.transformer_size=32", "optimizer.lr=0.01", "trainer.epochs=4", "trainer.evaluate_every=2"),
    *("trainer.checkpoint_seconds=0.1", "threads=1", "logger=none"),
]


def finished(result: Result | None) -> Result:
    assert result is not None
    assert result.status == "finished", result.error
    return result


def test_an_interrupted_run_ends_like_an_undisturbed_one(
    compose_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compose_config(*SETTINGS, f"output={tmp_path / 'whole'}")
    expected = finished(run(whole))
    groups = expected.counts["groups"]
    assert expected.counts["sparse_layers"] == groups["transformer"]["active"] + groups["encoding_layers"]["active"]
    assert 0.2 < expected.counts["density"] < 0.3  # the tiled identity comes on top of a fifth

    class Killed(BaseException):
        pass

    update = Trainer.update

    def until_killed(self: Trainer) -> None:
        if self.progress.step == expected.steps // 2:
            raise Killed
        update(self)

    disturbed = compose_config(*SETTINGS, f"output={tmp_path / 'disturbed'}")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", until_killed)
        with pytest.raises(Killed):
            run(disturbed)
    torch.manual_seed(123)  # a new process would not continue the old one's random state either
    resumed = finished(run(disturbed))
    assert resumed.metrics == expected.metrics
    metrics = [
        RunFolder(tmp_path / name / "rasa" / "ted" / result.id).metrics.path.read_bytes()
        for name, result in (("whole", expected), ("disturbed", resumed))
    ]
    assert metrics[0] == metrics[1]
