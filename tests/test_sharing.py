"""How the runs of a sweep share a machine, with and without GPUs."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sparse_bench import sharing, slurm
from sparse_bench.config import CONF, Config, register
from sparse_bench.journal import JOBS, Journal


@pytest.mark.parametrize(
    ("gpus", "device", "expected"),
    [
        (0, "auto", -1),
        (0, "cpu", -1),
        (0, "cuda", 1),
        (1, "auto", 1),
        (4, "auto", 4),
        (4, "cuda", 4),
        (4, "cuda:2", 1),
        (4, "cpu", -1),
    ],
)
def test_one_process_a_core_or_one_a_gpu(
    gpus: int, device: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_gpus", lambda: gpus)
    assert sharing.processes(device) == expected


def test_the_launcher_asks_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_gpus", lambda: 3)
    register()
    sharing.register()
    for settings, expected in (["device=auto"], 3), (["device=cpu"], -1), (["hydra.launcher.n_jobs=5"], 5):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", ["hydra/launcher=joblib", *settings], return_hydra_config=True)
        assert config.hydra.launcher.n_jobs == expected


@pytest.mark.parametrize(
    ("gpus", "device", "slurm", "expected"),
    [
        (2, "auto", "", 6),
        (0, "cuda", "", 3),
        (2, "cuda:1", "", 3),
        (2, "cpu", "", -1),
        (0, "auto", "5", 5),
        (2, "auto", "5", 6),
    ],
)
def test_several_runs_share_a_gpu_and_a_slurm_job_has_its_own_cores(
    gpus: int, device: str, slurm: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_gpus", lambda: gpus)
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", slurm)
    assert sharing.processes(device, 3) == expected


def test_a_second_run_comes_to_a_gpu_when_each_has_one(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    held, found = [], []
    for number in range(5):
        monkeypatch.setattr(sharing, "_held", [])
        config = OmegaConf.structured(Config())
        sharing.share(config, number, runs_per_gpu=2)
        held.append(sharing._held)  # as five processes at once
        found.append(config.device)
    assert found == ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]
    assert [len(one) for one in held] == [1, 1, 1, 1, 0]


@pytest.mark.parametrize("runs", [True, False])
def test_whether_runs_compute_at_the_same_time_on_a_gpu_is_said(
    runs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    (tmp_path / "nvidia-cuda-mps-control.pid").write_text(str(os.getpid() if runs else process.pid))
    with caplog.at_level("INFO"):
        sharing._say_how_gpus_are_shared(4)
    assert (
        "through NVIDIA's MPS daemon" if runs else "take turns, because NVIDIA's MPS daemon does not"
    ) in caplog.text


@pytest.mark.parametrize(
    ("override", "dropped"),
    [
        ("hydra/launcher=slurm", True),
        ("hydra.launcher.workers=3", True),
        ("+hydra.launcher.additional_parameters.nice=1", True),
        ("hydra/sweeper=optuna", True),
        ("hydra.mode=MULTIRUN", True),
        ("hydra.sweep.dir=x", True),
        ("hydra.verbose=true", False),
        ("hydra/job_logging=default", False),
        ("hydra.searchpath=[file://x]", False),
    ],
)
def test_a_worker_takes_over_settings_of_hydra_that_are_not_the_launchers(override: str, dropped: bool) -> None:
    assert slurm._of_launcher(override) == dropped


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sharing, "_gpus", lambda: 2)
    monkeypatch.setattr(sharing, "_held", [])
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))


def devices(numbers: Iterable[int]) -> list[str]:
    configs = [OmegaConf.structured(Config()) for _ in numbers]
    for number, config in zip(numbers, configs, strict=True):
        sharing.share(config, number)
    assert {(config.threads, config.progress) for config in configs} == {(1, False)}
    return [config.device for config in configs]


@pytest.mark.usefixtures("two_gpus")
def test_a_process_keeps_a_gpu_for_all_its_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes, in the order in which they ask: the first two have one each, the third takes them in turn."""
    assert devices([0, 1, 3]) == ["cuda:0"] * 3
    first = sharing._held
    monkeypatch.setattr(sharing, "_held", [])
    assert devices([2, 4]) == ["cuda:1"] * 2
    monkeypatch.setattr(sharing, "_held", [])
    assert devices([5, 6]) == ["cuda:1", "cuda:0"]
    first[0][1].release()  # as when the process ends
    assert devices([7, 8]) == ["cuda:0"] * 2


def test_what_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_gpus", lambda: 2)
    config = OmegaConf.structured(Config(device="cpu", threads=3))
    sharing.share(config, 1)
    assert (config.device, config.threads) == ("cpu", 3)


@pytest.mark.usefixtures("two_gpus")
def test_processes_that_see_other_gpus_do_not_count_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    for visible in ("0,1", "2,3", "0,1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        monkeypatch.setattr(sharing, "_held", [])
        held.append((devices([0])[0], sharing._held))  # keeps the locks, as processes at the same time
    assert [device for device, _ in held] == ["cuda:0", "cuda:0", "cuda:1"]


def test_another_user_s_mps_daemon_runs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert not sharing.mps_runs()
    (tmp_path / "nvidia-cuda-mps-control.pid").write_text("1")
    monkeypatch.setattr(os, "kill", refuse)
    assert sharing.mps_runs()


@pytest.mark.parametrize(("number", "first"), [(0, 5), (1, 8), (2, 11)])
def test_each_worker_of_a_sweep_begins_elsewhere(
    number: int, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three workers share nine jobs, whose numbers begin at 5."""
    jobs = Journal(tmp_path).announce([[f"seed={seed}"] for seed in range(9)], 5)
    monkeypatch.setenv(JOBS, str(jobs))
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(number))
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "3")
    monkeypatch.setattr(sharing, "configure_log", lambda *_: None)
    done: list[tuple[int, list[str]]] = []
    monkeypatch.setattr(sharing, "_execute", lambda job, overrides, *_: done.append((job, overrides)))
    monkeypatch.setattr("sparse_bench.workers.carry_out", lambda jobs, *_: [job() for job in jobs])
    hydra = {"launcher": {"runs_per_gpu": 1}, "hydra_logging": {}, "verbose": False}
    launcher = SimpleNamespace(
        config=OmegaConf.create({"hydra": hydra}), joblib={"n_jobs": 1}, hydra_context=None, task_function=None
    )
    sharing.launch(launcher, [], 0)
    assert [job for job, _ in done] == [*range(first, 14), *range(5, first)]
    assert all(overrides == [f"seed={job - 5}"] for job, overrides in done)
