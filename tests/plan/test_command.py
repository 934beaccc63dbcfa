import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from sparse_bench.config import build
from sparse_bench.plan.__main__ import main
from sparse_bench.plan.probe import probe
from sparse_bench.plan.timings import Probe, fingerprint, read_probes, write_probes
from sparse_bench.streams import Streams
from sparse_bench.sweeps import Job, jobs
from tests.test_shipped_configs import Compose

CPU = torch.device("cpu")


def quickstart(compose_config: Compose, *settings: str) -> Job:
    config = compose_config("sweep=rasa/quickstart", *settings, "dataset.corpus.examples=400")
    return Job("rasa/quickstart", "arm", config, None)


def test_a_probe_times_the_first_and_the_last_epoch(compose_config: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that ticks once a batch, an epoch's seconds are its number of batches."""
    ticks = iter(range(1000))
    monkeypatch.setattr("sparse_bench.plan.probe.time.process_time", lambda: float(next(ticks)))
    job = quickstart(compose_config, "point={density: 0.2, width: 8}", "dataset.batch_size=[10,40]")
    found = probe(job, CPU, seconds=3.0)
    task = build(OmegaConf.to_container(job.config.dataset, resolve=True), _partial_=False)
    steps = [task.epoch_steps(epoch, Streams(0)) for epoch in (0, job.config.trainer.epochs - 1)]
    assert steps[0] > 2 * steps[1]
    assert found.epoch_seconds == sum(steps) / 2
    assert (found.batches, found.sweep, found.arm, found.device) == (2 * 3, "rasa/quickstart", "arm", "cpu")


def test_an_epoch_of_one_batch_is_repeated(compose_config: Compose) -> None:
    settings = ["point={density: 1.0, width: 4}", "dataset.batch_size=[1000,1000]", "trainer.epochs=1"]
    found = probe(quickstart(compose_config, *settings), CPU, seconds=0.0)
    assert found.batches == 2
    assert found.epoch_seconds > 0


def test_the_plan_before_and_after_probing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    assert main([*folders, "rasa/quickstart"]) == 0
    assert "rasa/quickstart    24    24      0 of 8            –          –" in capsys.readouterr().out
    assert main([*folders, "--probe", "--arms", "1", "--seconds", "0.01", "rasa/quickstart"]) == 0
    said = capsys.readouterr().out
    assert "timing rasa/quickstart point={density:1.0,width:4}" in said
    assert "1 of 8" in said
    (timed,) = read_probes(tmp_path / "results/throughput.csv")
    assert timed.arm == jobs("rasa/quickstart", tmp_path)[0].arm
    assert main([*folders, "--probe", "--arms", "1", "rasa/quickstart"]) == 0
    assert "timing" not in capsys.readouterr().out


def test_what_was_timed_on_a_gpu_elsewhere_is_told_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = jobs("rasa/quickstart", tmp_path)[0]
    settings, epochs = fingerprint(known), known.config.trainer.epochs
    timed = Probe(known.sweep, known.arm, settings, 60 / epochs, 9, "NVIDIA Fast", "Chip", "2.13")
    write_probes(tmp_path / "throughput.csv", [timed])
    assert main(["--runs", str(tmp_path), "--results", str(tmp_path), "rasa/quickstart"]) == 0
    here, there = capsys.readouterr().out.split("Estimated for NVIDIA Fast")
    assert "0 of 8            –" in here
    assert re.search(r"1 of 8 +24 min 0 s", there)


def test_an_unknown_sweep_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs", str(tmp_path), "rasa/quick"]) == 1
    assert "error: Unknown sweep 'rasa/quick'" in capsys.readouterr().err


def test_sweeps_of_a_folder_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = tmp_path / "conf" / "sweep" / "mine.yaml"
    sweep.parent.mkdir(parents=True)
    sweep.write_text(
        "# @package _global_\nexperiment_name: mine\nmodel: {transformer_size: 8}\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {sparsity: 'mine_too,dense', seed: '0,1'}}}\n"
    )
    scheme = tmp_path / "conf" / "sparsity" / "mine_too.yaml"
    scheme.parent.mkdir()
    shipped = Path(__file__).resolve().parents[2] / "conf" / "sparsity" / "random.yaml"
    scheme.write_text(shipped.read_text().replace("label: random", "label: mine_too"))
    folders = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    assert main([*folders, "--config-dir", str(tmp_path / "conf"), "mine"]) == 0
    assert "mine      4     4      0 of 2" in capsys.readouterr().out
    found = jobs("mine", tmp_path, tmp_path / "conf")
    assert [job.config.sparsity.label for job in found] == ["mine_too", "mine_too", "dense", "dense"]
    assert main([*folders, "mine"]) == 1
    assert "Unknown sweep 'mine'" in capsys.readouterr().err
    assert main([*folders, "--config-dir", str(tmp_path / "absent"), "mine"]) == 1
