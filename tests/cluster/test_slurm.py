"""Sweeps on a real Slurm cluster of this machine alone, whose workers are cancelled, killed and started again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from local_slurm import cluster, lacking

from sparse_bench.locks import Owner
from sparse_bench.record import RunFolder
from tests.test_cli import ROOT, TOY, sparse_bench

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(lacking()), reason=f"Slurm: {lacking()}")]

Environment = dict[str, str]
WORKERS = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.poll_seconds=0.5"]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Environment]:
    with cluster(cpus=2) as environment:
        yield environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def submit(slurm: Environment, folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "sparse_bench", *TOY, *arguments, "-m"],
        cwd=folder,
        env=slurm,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def owners(folder: Path) -> dict[str, tuple[Owner, Path]]:
    """The Slurm job of each process that works on a run, with the run."""
    found = {path.parent: RunFolder(path.parent).owner() for path in folder.glob("runs/ad_hoc/*/config.yaml")}
    return {owner.job: (owner, path) for path, owner in found.items() if owner is not None}


def results(folder: Path) -> dict[str, str]:
    return {path.parent.name: json.loads(path.read_text())["status"] for path in folder.glob("runs/*/*/result.json")}


def wait_until(true: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)


def ask(slurm: Environment, *command: str) -> str:
    return subprocess.run(command, env=slurm, capture_output=True, text=True, check=False).stdout


def test_workers_that_are_cancelled_and_killed_leave_the_bytes_of_a_local_sweep(
    slurm: Environment, tmp_path: Path
) -> None:
    settings = ["seed=" + ",".join(map(str, range(12))), "trainer.epochs=80", "trainer.checkpoint_seconds=0.5"]
    local, remote = tmp_path / "local", tmp_path / "remote"
    local.mkdir()
    remote.mkdir()
    command = submit(slurm, remote, *settings, *WORKERS, "hydra.launcher.workers=2")
    wait_until(lambda: len(results(remote)) >= 2 and len(owners(remote)) == 2)
    # One worker is cancelled: its run has a checkpoint, of the moment in which it was told to stop.
    cancelled = max(owners(remote))
    array = cancelled.rpartition("_")[0]
    ask(slurm, "scancel", cancelled)
    wait_until(lambda: cancelled not in ask(slurm, "squeue", "--noheader", "--array", "--format=%i"))
    (log,) = remote.glob(f"runs/.sweeps/*/slurm/{cancelled}.log")
    assert "SIGTERM: stop" in log.read_text()
    # The other one is killed: Slurm starts it again, and it ends what both have left.
    wait_until(lambda: f"{array}_0" in owners(remote))
    child = owners(remote)[f"{array}_0"][0].pid
    parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
    assert b"sparse_bench" in Path(f"/proc/{parent}/cmdline").read_bytes()
    os.kill(parent, signal.SIGKILL)
    out, _ = command.communicate(timeout=400)
    assert command.returncode == 0, out
    assert "12 runs: 12 finished" in out
    (log,) = remote.glob(f"runs/.sweeps/*/slurm/{array}_0.log")
    assert "The worker ended with 137 and is started again" in log.read_text()
    # The same sweep without Slurm.
    done = sparse_bench(*TOY, *settings, "hydra/launcher=joblib", "-m", cwd=local)
    assert done.returncode == 0, done.stderr
    for path in local.glob("runs/ad_hoc/*/result.json"):
        twin = remote / path.relative_to(local)
        assert json.loads(twin.read_text())["metrics"] == json.loads(path.read_text())["metrics"]
        assert twin.with_name("metrics.jsonl").read_bytes() == path.with_name("metrics.jsonl").read_bytes()
        assert twin.with_name("weights.json").read_bytes() == path.with_name("weights.json").read_bytes()
    assert len(results(local)) == len(results(remote)) == 12


def test_a_failed_run_is_told_at_once_and_fails_the_command(slurm: Environment, tmp_path: Path) -> None:
    bad = ["+dataset.bad_step=2,99", "stop_on_failure=true", "seed=0,1"]
    command = submit(slurm, tmp_path, *bad, *WORKERS, "hydra.launcher.workers=1")
    out, _ = command.communicate(timeout=300)
    assert command.returncode == 1, out
    assert "Job 0 failed: NonFiniteLossError: The training loss is no longer finite" in out
    assert "4 runs: 0 finished, 1 failed, 3 left" in out


def test_time_that_ends_requeues_a_worker_and_an_interruption_cancels_it(slurm: Environment, tmp_path: Path) -> None:
    endless = ["trainer.epochs=1000000", "trainer.checkpoint_seconds=10000"]
    command = submit(slurm, tmp_path, *endless, *WORKERS, "hydra.launcher.workers=1", "seed=0,1")
    try:
        wait_until(lambda: any(tmp_path.glob("runs/ad_hoc/*/metrics.jsonl")))
        ((job, (_, run)),) = owners(tmp_path).items()
        assert not (run / "checkpoint.pt").exists()
        ask(slurm, "scancel", "--batch", "--signal=USR1", job)  # as Slurm does before the time is over
        wait_until(lambda: (run / "checkpoint.pt").exists())
        wait_until(lambda: "Restarts=1" in ask(slurm, "scontrol", "show", "job", job))
        wait_until(lambda: job in owners(tmp_path))
        command.send_signal(signal.SIGINT)
        out, _ = command.communicate(timeout=100)
        assert command.returncode == 130, out
        assert "Cancelling Slurm job" in out
        wait_until(lambda: not ask(slurm, "squeue", "--noheader"))
    finally:
        command.kill()
        command.wait()
