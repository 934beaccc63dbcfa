import math
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from sparse_bench.config import run_id
from sparse_bench.plan.estimate import estimate, plan_table
from sparse_bench.plan.timings import Probe, TimingsError, fingerprint, gpus, read_probes, timings, write_probes
from sparse_bench.record import Result, RunFolder
from sparse_bench.sweeps import Job, jobs


def job(arm: str, seed: int, runs: Path, epochs: int = 10) -> Job:
    config = {"experiment_name": "toy", "output": str(runs), "seed": seed, "trainer": {"epochs": epochs}}
    return Job("a/sweep", arm, OmegaConf.create(config), f"{arm}{seed}")


@pytest.fixture
def sweep(tmp_path: Path) -> list[Job]:
    """Three arms with two seeds each."""
    return [job(arm, seed, tmp_path) for seed in (0, 1) for arm in ("a", "b", "c")]


def finish(found: Job, seconds: float, device: str = "cpu", threads: int = 1) -> None:
    folder = RunFolder(Path(found.config.output) / "toy" / str(found.id))
    folder.path.mkdir(parents=True)
    machine = {"processor": "Chip", "device": device, "threads": threads}
    folder.write_result(
        Result(str(found.id), "finished", "toy", 0, {}, {}, seconds={"total": seconds}, machine=machine)
    )


def probe(arm: str, epoch_seconds: float, device: str = "cpu", processor: str = "Chip") -> Probe:
    settings = fingerprint(job(arm, 0, Path("anywhere")))
    return Probe("a/sweep", arm, settings, epoch_seconds, 9, device, processor, "2.13")


def test_finished_runs_count_before_probes(sweep: list[Job]) -> None:
    finish(sweep[0], 100.0)
    finish(sweep[3], 200.0, threads=2)
    found = timings(sweep, "cpu", probes=[probe("a", 1.0), probe("b", 3.0), probe("unknown", 5.0)])
    assert {arm: timing.seconds for arm, timing in found.items()} == {"a": 250.0, "b": 30.0}
    assert {arm: timing.probed for arm, timing in found.items()} == {"a": False, "b": True}


def test_on_a_busy_machine_processor_time_counts(sweep: list[Job]) -> None:
    """Trained for 80 of 100 seconds with two threads that got 40 seconds of processor: half of it was waiting."""
    seconds = {"seconds:total": 100.0, "seconds:train": 80.0, "seconds:train_processor": 40.0}
    machine = {"made:threads": 2, "made:device": "cpu", "made:processor": "Chip"}
    row = {"experiment": "toy", "id": "b1", "status": "finished"} | seconds | machine
    older = row | {"id": "a1", "seconds:train_processor": math.nan}
    found = timings(sweep, "cpu", [pd.DataFrame([row, older])])
    assert {arm: timing.seconds for arm, timing in found.items()} == {"b": 50.0, "a": 200.0}


def test_a_probe_of_other_settings_is_out_of_date(sweep: list[Job], tmp_path: Path) -> None:
    changed = [job("a", 0, tmp_path), job("b", 0, tmp_path)]
    changed[0].config.trainer.accumulate = 2
    changed[1].config.seed = 5
    found = timings(changed, "cpu", probes=[probe("a", 1.0), probe("b", 3.0)])
    assert {arm: timing.seconds for arm, timing in found.items()} == {"b": 30.0}


def test_only_the_same_kind_of_device_counts(sweep: list[Job]) -> None:
    finish(sweep[0], 100.0, device="NVIDIA H100", threads=16)
    probes = [probe("b", 3.0)]
    assert {arm: timing.seconds for arm, timing in timings(sweep, "cpu", probes=probes).items()} == {"b": 30.0}
    on_gpu = timings(sweep, "NVIDIA H100", probes=probes)
    assert {arm: (timing.seconds, timing.machine) for arm, timing in on_gpu.items()} == {"a": (100.0, "NVIDIA H100")}


def test_on_a_gpu_that_runs_may_have_shared_the_shorter_time_counts(sweep: list[Job]) -> None:
    gpu = "NVIDIA H100"
    finish(sweep[0], 100.0, device=gpu)
    finish(sweep[1], 20.0, device=gpu)
    found = timings(sweep, gpu, probes=[probe("a", 3.0, gpu), probe("b", 3.0, gpu)])
    assert {arm: (timing.seconds, timing.probed) for arm, timing in found.items()} == {
        "a": (30, True),
        "b": (20, False),
    }


def test_gpus_that_something_was_timed_on() -> None:
    table = pd.DataFrame(
        [{"status": "finished", "made:device": "B"}, {"status": "finished"}, {"status": "failed", "made:device": "C"}]
    )
    assert gpus([table, pd.DataFrame()], [probe("a", 1.0), probe("a", 1.0, "A")]) == ["A", "B"]


def test_committed_tables_tell_of_runs_whose_folders_are_elsewhere(sweep: list[Job]) -> None:
    row = {"experiment": "toy", "id": "b1", "status": "finished", "seconds:total": 50.0}
    machine = {"made:threads": 2, "made:device": "cpu", "made:processor": "Chip"}
    table = pd.DataFrame([row | machine, row | machine | {"id": "a0", "status": "failed"}])
    found = timings(sweep, "cpu", [table, pd.DataFrame([{"id": "b1"}])])
    assert {arm: timing.seconds for arm, timing in found.items()} == {"b": 100.0}


def test_a_second_stage_is_known_where_its_first_has_not_run(tmp_path: Path) -> None:
    stages = jobs("demeester/lm_tiny_finetune", tmp_path)
    machine = {"made:threads": 1, "made:device": "cpu", "made:processor": "Chip"}
    first = {
        "experiment": "demeester/lm_tiny/dense",
        "id": "f1",
        "status": "finished",
        "seconds:total": 500.0,
    } | machine
    name = run_id(
        next(job.config for job in stages if job.experiment.endswith("dense_finetune")), f"{first['experiment']}/f1"
    )
    second = first | {"experiment": "demeester/lm_tiny/dense_finetune", "id": name, "seconds:total": 50.0}
    found = timings(stages, "cpu", [pd.DataFrame([first, second])])
    assert {arm: timing.seconds for arm, timing in found.items()} == {
        "experiment=demeester/lm_tiny/dense_finetune": 50.0
    }


def test_an_arm_that_was_not_timed_counts_as_the_mean_of_the_others(sweep: list[Job]) -> None:
    finish(sweep[0], 100.0)
    found = estimate(sweep, timings(sweep, "cpu", probes=[probe("b", 30.0)]))
    assert (found.runs, found.left, found.arms, found.timed, found.probed) == (6, 5, 3, 2, True)
    assert found.seconds == 2 * (100 + 300 + 200)
    assert found.seconds_left == found.seconds - 100


def test_the_plan_names_what_it_does_not_know(sweep: list[Job]) -> None:
    finish(sweep[0], 3600.0)
    known, unknown = estimate(sweep, timings(sweep, "cpu")), estimate(sweep, {})
    table = plan_table([known, unknown], 2, "cpu")
    assert table.rows == [
        ["a/sweep", "6", "5", "1 of 3", "3 h 0 min", "2 h 30 min"],
        ["a/sweep", "6", "5", "0 of 3", "–", "–"],
        ["all", "12", "10", "1 of 6", "over 3 h 0 min", "over 2 h 30 min"],
    ]
    assert "Estimated for 2 CPU cores, from measurements on Chip." in table.caption
    assert "Runs may have shared the GPU" in plan_table([known], 1, "NVIDIA H100").caption


def test_probes_are_kept_in_a_table(tmp_path: Path) -> None:
    path = tmp_path / "below/throughput.csv"
    assert read_probes(path) == []
    write_probes(path, [probe("b, {x: 1}", 3.0), probe("a", 1.0), probe("b, {x: 1}", 4.0)])
    assert read_probes(path) == [probe("a", 1.0), probe("b, {x: 1}", 4.0)]
    path.write_text("sweep,arm\nx,y\n")
    with pytest.raises(TimingsError, match="is not a table of probes: its columns must be arm, batches"):
        read_probes(path)
