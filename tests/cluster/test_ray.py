"""Sweeps on a Ray cluster of this machine alone."""

import importlib.util
import json
from pathlib import Path

import pytest

from tests.test_cli import TOY, metrics, sparse_bench

pytestmark = pytest.mark.slow
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray: pip install 'sparse_bench[ray]'")
needs_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="needs the extra optuna")


@needs_ray
def test_tasks_leave_the_bytes_of_a_local_sweep_and_failures_fail_the_command(tmp_path: Path) -> None:
    local, remote = tmp_path / "local", tmp_path / "remote"
    local.mkdir()
    remote.mkdir()
    settings = [*TOY, "seed=0,1,2", "+dataset.bad_step=99,2"]
    done = sparse_bench(*settings, "hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=2", "-m", cwd=remote)
    assert done.returncode == 1, done.stderr
    assert "6 runs: 3 finished, 3 failed" in done.stdout
    assert sparse_bench(*settings, "hydra/launcher=joblib", "-m", cwd=local).returncode == 1
    assert metrics(remote) == metrics(local)
    threads = {json.loads(path.read_text())["machine"]["threads"] for path in remote.rglob("result.json")}
    assert threads == {1}


@needs_optuna
def test_a_search_maximises_the_monitored_metric_and_goes_on(tmp_path: Path) -> None:
    import optuna

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
