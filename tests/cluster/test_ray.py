"""Sweeps on a Ray cluster of this machine alone."""

import json
from pathlib import Path

import pytest

from tests.test_cli import TOY, metrics, sparse_bench

pytestmark = pytest.mark.slow
pytest.importorskip("ray", reason="Ray: pip install 'sparse_bench[ray]'")


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
