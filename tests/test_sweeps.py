from pathlib import Path

import pytest

from sparse_bench.config import choices, run_id
from sparse_bench.config.catalog import experiments
from sparse_bench.errors import ConfigError
from sparse_bench.papers.page import read_papers
from sparse_bench.record import Result, RunFolder
from sparse_bench.sweeps import jobs, overrides
from tests.test_shipped_configs import Compose

#: Sweeps whose axes are single values, points, and files.
KINDS = ["sparselang/fixed_size", "rasa/quickstart", "embeddings/small"]


@pytest.mark.parametrize("sweep", KINDS)
def test_runs_are_those_that_hydra_would_start(sweep: str, compose_config: Compose, tmp_path: Path) -> None:
    found = jobs(sweep, tmp_path)
    assert len(found) == len(overrides(sweep)) == len({job.id for job in found})
    for place in (0, len(found) // 2, len(found) - 1):
        composed = compose_config(f"sweep={sweep}", *overrides(sweep)[place])
        assert found[place].id == run_id(composed)
        assert found[place].experiment == composed.experiment_name


def test_an_arm_is_what_its_seeds_share(tmp_path: Path) -> None:
    found = jobs("sparselang/fixed_size", tmp_path)
    assert [job.arm for job in found[:2]] == ["sparsity.density=0.001", "sparsity.density=0.0005"]
    assert {job.config.seed for job in found if job.arm == "sparsity.density=0.002"} == {0, 1, 2}
    assert found[0].config.sparsity.density == 0.001


def test_a_second_stage_has_no_name_before_the_first_has_finished(tmp_path: Path) -> None:
    assert {job.id for job in jobs("demeester/lm_small_finetune", tmp_path)} == {None}


def test_a_result_is_found_where_the_run_would_write_it(tmp_path: Path) -> None:
    first, second, *_ = jobs("sparselang/fixed_size", tmp_path)
    for job, status in ((first, "finished"), (second, "failed")):
        folder = RunFolder(tmp_path / job.experiment / str(job.id))
        folder.path.mkdir(parents=True)
        folder.write_result(Result(str(job.id), status, job.experiment, 0, {}, {}))
    found = first.result()
    assert found is not None
    assert found.id == first.id
    assert second.result() is None


def test_a_folder_of_runs_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "a,b (c)=[d]"
    first, *_ = jobs("sparselang/fixed_size", folder)
    assert first.config.output == str(folder)
    assert first.id == jobs("sparselang/fixed_size", tmp_path)[0].id


def test_a_second_stage_that_fits_several_runs_is_not_one_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def several(config: object) -> None:
        raise ConfigError("fits several runs")

    monkeypatch.setattr("sparse_bench.sweeps.find_source", several)
    with pytest.raises(ConfigError, match="fits several runs"):
        jobs("demeester/lm_small_finetune", tmp_path)


def test_an_unknown_sweep(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'rasa/diet_density'"):
        jobs("rasa/diet_densty", tmp_path)


def test_the_papers_run_every_shipped_sweep_once() -> None:
    """What Make runs, and plans are made of, leaves no sweep out but those of no paper."""
    sizes = [paper.sweeps for paper in read_papers(experiments()).values()]
    named = [sweep for size in sizes for sweep in (*size.full, *size.small)]
    assert sorted(named) == sorted({*choices("sweep")} - {"rasa/quickstart", "lottery/diet", "benchmark/one"})
