"""Searches for settings with Optuna."""

import json
from pathlib import Path

import pytest

from tests.test_cli import sparse_bench

pytestmark = pytest.mark.slow
optuna = pytest.importorskip("optuna", reason="Optuna: pip install 'sparse_bench[optuna]'")


def test_a_search_maximises_the_monitored_metric_and_goes_on(tmp_path: Path) -> None:
    tiny = ["dataset.corpus.examples=300", "model.transformer_size=16", "trainer.epochs=2", "logger=none"]
    for trials in (2, 4):
        number = ["hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2"]
        done = sparse_bench("search=diet", *tiny, *number, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        study = optuna.load_study(study_name="search_diet", storage=f"sqlite:///{tmp_path}/search_diet.db")
        assert len(study.trials) == trials
    results = [json.loads(path.read_text())["metrics"] for path in tmp_path.rglob("result.json")]
    assert study.direction.name == "MAXIMIZE"
    assert study.best_value == max(result["test/intent_f1"] for result in results)
    assert len({trial.params["optimizer.lr"] for trial in study.trials}) == 4
