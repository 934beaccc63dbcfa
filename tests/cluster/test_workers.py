"""What the Slurm launcher hands to Slurm and takes from it, with programs in Slurm's place."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import CompactHydraException
from omegaconf import OmegaConf

from sparse_bench import slurm
from sparse_bench.journal import LEFT, Ended, Journal
from sparse_bench.record import FINISHED, Result, RunFolder
from sparse_bench.slurm import SlurmWorkers

Start = Callable[..., list[Ended]]
JOBS = [["seed=0"], ["seed=1"], ["seed=2"]]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH; what is called is noted in the file ``called``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder: Path, name: str, does: str = "") -> None:
    path = folder / name
    path.write_text(f'#!/bin/bash\necho "{name} $*" >> {folder}/called\n{does}\n')
    path.chmod(0o755)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    monkeypatch.setattr(slurm, "configure_log", lambda *arguments: None)

    def launch(jobs: list[list[str]] = JOBS, **settings: Any) -> list[Ended]:
        launcher = SlurmWorkers(poll_seconds=0.01, **settings)
        overrides = ["hydra/launcher=slurm", "hydra.verbose=true"]
        hydra = {"sweep": {"dir": str(tmp_path / "a sweep")}, "overrides": {"hydra": overrides}}
        config = OmegaConf.create({"hydra": {"hydra_logging": None, "verbose": False, **hydra}})
        launcher.setup(hydra_context=None, task_function=None, config=config)
        return [one.return_value for one in launcher.launch(jobs, 0)]

    return launch


def test_the_script_asks_for_what_is_set_and_logs_have_a_folder(programs: Path, start: Start, tmp_path: Path) -> None:
    program(programs, "sbatch", "echo '7;cluster'")
    settings = {"partition": "gpu", "mem_gb": 8, "setup": ["module load cuda"], "additional_parameters": {"nice": 5}}
    assert start(workers=9, runs_per_gpu=2, n_jobs=4, array_parallelism=2, detach=True, **settings) == []
    lines = (tmp_path / "a sweep/slurm-0.sh").read_text().splitlines()
    # No more tasks than runs; the rest as it was set.
    wanted = ["array=0-2%2", "requeue", "partition=gpu", "mem=8G", "signal=B:USR1@120", "time=60", "nice=5"]
    assert {f"#SBATCH --{option}" for option in wanted} <= set(lines)
    assert "module load cuda" in lines
    (command,) = (line for line in lines if "-m sparse_bench" in line)
    assert "hydra/launcher=joblib hydra.launcher.runs_per_gpu=2 hydra.launcher.n_jobs=4" in command
    assert "hydra.verbose=true" in command
    assert "slurm" not in command.replace(f"{tmp_path}/a sweep/slurm", "")
    assert (tmp_path / "a sweep/slurm").is_dir()


def test_what_the_workers_left_behind_is_told(
    programs: Path, start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One run finished, one failed, and one finished whose worker was killed before it noted that; one is left."""
    journal = Journal(tmp_path / "a sweep")
    journal.sweep.mkdir()
    journal.end(0, Ended(FINISHED, objective=0.5))
    journal.end(1, Ended("failed", error="ValueError: broken"))
    folder = RunFolder(tmp_path / "runs/toy/1")
    folder.path.mkdir(parents=True)
    folder.write_result(Result("1", FINISHED, "toy", 0, {}, {}))
    journal.begin(2, folder.path)
    journal.begin(3, tmp_path / "runs/toy/2")
    program(programs, "sbatch", "echo 7")
    once = tmp_path / "once"
    forgotten = f"if [ -e {once} ]; then echo Invalid job id >&2; exit 1; fi"
    program(programs, "squeue", f"{forgotten}\n: > {once}\necho PENDING")
    with caplog.at_level(logging.INFO):
        found = start([*JOBS, ["seed=3"]], workers=2)
    assert [how.status for how in found] == [FINISHED, "failed", FINISHED, LEFT]
    assert found[0].objective == 0.5
    assert caplog.text.count("Job 1 failed: ValueError: broken") == 1
    assert "tasks: 1 pending" in caplog.text


def test_an_interruption_cancels_the_jobs(programs: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    program(programs, "sbatch", "echo 7")
    program(programs, "scancel")

    def interrupted(array: str) -> None:
        raise SystemExit(130)

    monkeypatch.setattr(slurm, "_queue", interrupted)
    with pytest.raises(SystemExit):
        start(workers=2)
    assert "scancel 7" in (programs / "called").read_text()


@pytest.mark.parametrize(
    ("settings", "jobs", "message"),
    [
        ({"workers": 0}, JOBS, "hydra.launcher.workers must be at least 1"),
        ({}, [["seed=0", "force=true"]], "force=true does not fit workers"),
        ({}, JOBS, "needs Slurm's command sbatch, which was not found"),
    ],
)
@pytest.mark.usefixtures("programs")
def test_what_cannot_be_submitted_is_refused(
    settings: dict[str, Any], jobs: list[list[str]], message: str, start: Start
) -> None:
    with pytest.raises(CompactHydraException, match=message):
        start(jobs, **settings)


def test_the_reason_of_slurm_is_told(programs: Path, start: Start) -> None:
    program(programs, "sbatch", "echo 'invalid partition specified: gpu' >&2; exit 1")
    with pytest.raises(CompactHydraException, match=r"sbatch refused .*invalid partition"):
        start(partition="gpu")
