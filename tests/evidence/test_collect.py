"""From run folders to committed tables, and from either to the same verdicts."""

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import DictConfig, OmegaConf

from sparse_bench.config.catalog import experiments
from sparse_bench.evidence.__main__ import main
from sparse_bench.evidence.collect import joined
from sparse_bench.evidence.compare import Evidence
from sparse_bench.evidence.verdicts import evaluate
from sparse_bench.papers.claims import read_claims
from sparse_bench.papers.page import read_papers
from sparse_bench.site.__main__ import main as site_main
from sparse_bench.sweeps import jobs, shipped_config
from tests.evidence.runs import write_run

GRID = ((1.0, 4), (1.0, 12), (1.0, 128), (0.2, 8), (0.2, 128), (0.05, 128))


@cache
def sweep() -> list[DictConfig]:
    return [job.config for job in jobs("rasa/diet_density", Path())]


@cache
def shipped(density: float, width: int, seed: int) -> dict[str, Any]:
    """The configuration of a run of the shipped sweep: what claims count."""
    arm = {"density": density, "width": width}
    config = next(config for config in sweep() if config.point == arm and config.seed == seed)
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def write_grid(root: Path, lift: float = 0.0, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    for seed in seeds:
        for density, width in GRID:
            score = 0.8 + 0.002 * seed + (lift if density == 0.2 and width == 128 else 0.0)
            metrics = {"test/intent_f1": score, "test/entity_f1": score - 0.1}
            config = shipped(density, width, seed)
            write_run(root, density=density, width=width, seed=seed, metrics=metrics, epochs=3, config=config)


def test_tables_gather_runs_over_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    for number, seeds in enumerate(((0,), (1, 2))):
        write_grid(tmp_path / f"runs{number}", seeds=seeds)
        assert main(["collect", "--results", str(results), "--runs", str(tmp_path / f"runs{number}")]) == 0
    printed = capsys.readouterr().out
    assert "12 runs read, 18 finished runs in the tables\n" in printed
    assert sorted(path.name for path in (results / "rasa").iterdir()) == ["curves.csv", "runs.csv", "settings.csv"]
    before = (results / "rasa/runs.csv").read_bytes()
    assert main(["collect", "--results", str(results), "--runs", str(tmp_path / "runs0")]) == 0
    assert (results / "rasa/runs.csv").read_bytes() == before
    assert capsys.readouterr().out.endswith("18 finished runs in the tables\n")  # nothing was repeated
    slower = next((tmp_path / "runs0").rglob("result.json"))
    slower.write_text(slower.read_text().replace('"total": ', '"total": 9'))
    assert main(["collect", "--results", str(results), "--runs", str(tmp_path / "runs0")]) == 0
    assert "in the tables; 1 of them repeated, with the same metrics\n" in capsys.readouterr().out
    fresh = ["--results", str(results), "--runs", str(tmp_path / "runs0"), "--fresh", "rasa/diet"]
    assert main(["collect", *fresh]) == 0
    assert "6 runs read, 6 finished runs" in capsys.readouterr().out


def test_runs_are_forgotten_also_where_there_are_no_new_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, other = tmp_path / "results", tmp_path / "other"
    write_grid(tmp_path / "runs", seeds=(0,))
    write_run(other, experiment="brouns/set", history=False)
    main(["collect", "--results", str(results), "--runs", str(tmp_path / "runs")])
    arguments = ["--results", str(results), "--runs", str(other), "--fresh"]
    assert main(["collect", *arguments, "rasa/det"]) == 1
    assert "Did you mean 'rasa/diet'" in capsys.readouterr().err
    assert main(["collect", *arguments, "rasa/diet"]) == 0
    assert "rasa: 0 runs read, 0 finished runs in the tables" in capsys.readouterr().out
    assert sorted(path.name for path in (results / "rasa").iterdir()) == []
    assert (results / "brouns/runs.csv").is_file()


@pytest.mark.parametrize("command", ["claims", "site"])
def test_a_misspelt_folder_of_results_changes_nothing(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("<!-- claims: written by make results -->\nmine\n<!-- end of claims -->\n")
    wrong = ["--results", str(tmp_path / "reslts")]
    if command == "claims":
        assert main(["claims", *wrong]) == 1
    else:
        assert site_main([str(tmp_path / "site"), *wrong, "--readme", str(readme)]) == 1
    assert "No committed results in" in capsys.readouterr().err
    assert "mine" in readme.read_text()
    assert not (tmp_path / "reslts").exists()


@pytest.mark.parametrize("fault", ["unreadable", "gone"])
def test_a_run_without_its_learning_curve_erases_none(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs")]
    write_grid(tmp_path / "runs", seeds=(0,))
    assert main(["collect", *arguments]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "results/rasa").iterdir()}
    assert len(before[tmp_path / "results/rasa/curves.csv"].splitlines()) > 1
    metrics = next((tmp_path / "runs").rglob("metrics.jsonl"))
    if fault == "gone":
        metrics.unlink()
    else:
        metrics.write_text("no JSON\n" + metrics.read_text())
    assert main(["collect", *arguments]) == 0
    assert {path: path.read_bytes() for path in before} == before
    printed = capsys.readouterr().out
    assert "5 runs read, 6 finished runs in the tables\n" in printed
    assert f"warning: rasa/diet/{metrics.parent.name}: The " in printed


def test_claims_with_runs_keep_a_curve_that_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs")]
    write_grid(tmp_path / "runs", seeds=(0,))
    assert main(["collect", *arguments]) == 0
    metrics = next((tmp_path / "runs").rglob("metrics.jsonl"))
    metrics.unlink()
    papers = read_papers(experiments())
    committed = Evidence.committed(tmp_path / "results", papers)
    found, _ = joined(committed, list(papers.values()), [tmp_path / "runs"])
    assert found.tables["rasa"].histories.keys() == committed.tables["rasa"].histories.keys()
    assert main(["claims", *arguments, "--out", str(tmp_path / "out")]) == 0
    assert (
        f"warning: rasa/diet/{metrics.parent.name}: The folder has lost the learning curve" in capsys.readouterr().err
    )


def test_runs_with_settings_of_their_own_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_grid(tmp_path / "runs", seeds=(0,))
    config = shipped(0.2, 8, 0)
    own = config | {"trainer": config["trainer"] | {"epochs": 3}}
    write_run(tmp_path / "runs", experiment="rasa/diet", config=own)
    assert main(["collect", "--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs")]) == 0
    told = "7 runs read, 7 finished runs in the tables; 1 of those read have settings of their own, so claims use"
    assert told in capsys.readouterr().out


def test_tables_are_as_they_were_where_they_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, say, that the second of the three files no longer fits on."""
    results = tmp_path / "results"
    write_grid(tmp_path / "runs0", seeds=(0,))
    write_grid(tmp_path / "runs1", seeds=(1,))
    assert main(["collect", "--results", str(results), "--runs", str(tmp_path / "runs0")]) == 0
    before = {path.name: path.read_bytes() for path in (results / "rasa").iterdir()}

    def full(descriptor: int, calls: list[int] = []) -> None:  # noqa: B006 - it counts
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("sparse_bench.record.os.fsync", full)
    assert main(["collect", "--results", str(results), "--runs", str(tmp_path / "runs1")]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (results / "rasa").iterdir()} == before


def test_runs_of_no_paper_stay_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "runs", experiment="mine/own", history=False)
    assert main(["collect", "--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs")]) == 0
    assert "No run belongs to an experiment of the papers" in capsys.readouterr().out
    assert not (tmp_path / "results").exists()
    assert main(["collect", "--results", str(tmp_path / "results"), "--runs", str(tmp_path / "nothing")]) == 1
    assert "No results found" in capsys.readouterr().err


def test_a_second_stage_is_as_shipped_as_its_first(tmp_path: Path) -> None:
    first, second = "demeester/lm_tiny/dense", "demeester/lm_tiny/dense_finetune"
    for epochs in (30, 1):
        config = shipped_config(first)
        config.trainer.epochs = epochs
        settings: Any = OmegaConf.to_container(config, resolve=True)
        folder = write_run(tmp_path / "runs", experiment=first, config=settings)
        config = shipped_config(second)
        config.start_from = f"{first}/{folder.name}"
        settings = OmegaConf.to_container(config, resolve=True)
        write_run(tmp_path / "runs", experiment=second, config=settings, notes={"start_from": config.start_from})
    assert main(["collect", "--results", str(tmp_path), "--runs", str(tmp_path / "runs")]) == 0
    runs = Evidence.committed(tmp_path, ["demeester"]).tables["demeester"].runs
    found = sorted(
        (experiment.rpartition("/")[2], "" if pd.isna(text) else text)
        for experiment, text in zip(runs["experiment"], runs["altered"], strict=True)
    )
    changed = "trainer.epochs: 1, not 30"
    assert found == [
        ("dense", ""),
        ("dense", changed),
        ("dense_finetune", ""),
        ("dense_finetune", f"started from a run with {changed}"),
    ]


def test_the_first_stage_of_a_second_is_looked_up_in_the_table(tmp_path: Path) -> None:
    first, second = "demeester/lm_tiny/dense", "demeester/lm_tiny/dense_finetune"
    config = shipped_config(first)
    config.trainer.epochs = 1
    folder = write_run(tmp_path / "a", experiment=first, config=OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    for start in (f"{first}/{folder.name}", f"{first}/nowhere"):
        config = shipped_config(second)
        config.start_from = start
        settings: Any = OmegaConf.to_container(config, resolve=True)
        write_run(tmp_path / "b", experiment=second, config=settings, notes={"start_from": start})
    for runs in "aba":  # the last time neither first stage is in the folders that hold the second
        assert main(["collect", "--results", str(tmp_path), "--runs", str(tmp_path / runs)]) == 0
        found = Evidence.committed(tmp_path, ["demeester"]).tables["demeester"].runs
    marks = sorted(found["altered"][found["experiment"] == second])
    assert marks == [
        "started from a run with trainer.epochs: 1, not 30",
        f"started from a run with unknown settings: {first}/nowhere is not at hand",
    ]


def test_folders_and_tables_give_the_same_verdicts(tmp_path: Path) -> None:
    write_grid(tmp_path / "runs")
    papers = read_papers(experiments())
    documents = [document for document in read_claims(experiments()) if document.name == "rasa"]
    from_folders, warnings = joined(Evidence(tmp_path / "results", {}), list(papers.values()), [tmp_path / "runs"])
    assert not warnings
    main(["collect", "--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs")])
    committed = Evidence.committed(tmp_path / "results", papers)
    first, second = evaluate(documents, from_folders), evaluate(documents, committed)
    assert [entry.verdict for entry in first] == [entry.verdict for entry in second]
    assert {entry.verdict for entry in first} >= {"reproduced", "contradicted", "not run"}


def test_the_command_s_verdict_follows_the_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = []
    for number, lift in enumerate((0.0, -0.1)):
        write_grid(tmp_path / f"runs{number}", lift)
        out = tmp_path / f"out{number}"
        runs = ["--runs", str(tmp_path / f"runs{number}")]
        assert main(["claims", "--results", str(tmp_path / "results"), *runs, "--out", str(out)]) == 0
        line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("rasa-80-percent-dropped "))
        verdicts.append(line.split()[-1])
        assert "| not run |" in (out / "claims.md").read_text()
        assert (out / "claims.csv").is_file()
    assert verdicts == ["reproduced", "contradicted"]
    assert not (tmp_path / "results").exists(), "runs that are named are looked at and not committed"
