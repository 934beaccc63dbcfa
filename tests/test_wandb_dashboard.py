"""The W&B dashboard: a panel for each metric of each paper, under names that runs really log."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from omegaconf import OmegaConf

from scripts import wandb_dashboard
from sparse_bench.config import CONF, target_of
from sparse_bench.config.catalog import experiments
from sparse_bench.papers import PAPERS
from sparse_bench.papers.page import Paper, read_papers
from sparse_bench.run import run
from sparse_bench.tracking.base import DENSITY, WEIGHTS, RunInfo, Tracker
from sparse_bench.tracking.wandb import axis_of, summary_name
from tests.test_shipped_configs import Compose, brief

pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed")


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No account of this machine's user, and a server that does not exist."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


class Recorder(Tracker):
    """Notes the names that a run logs."""

    followed: ClassVar[set[str]] = set()
    summed_up: ClassVar[set[str]] = set()

    def start(self, info: RunInfo) -> None:
        """Nothing to note."""

    def log(self, metrics: dict[str, float], step: int, epoch: int) -> None:
        self.followed.update(metrics)

    def finish(self, status: str, summary: dict[str, Any]) -> None:
        self.summed_up.update(summary)


def grids(found: dict[str, Any]) -> Iterator[tuple[list[str], list[dict[str, Any]]]]:
    """The experiments and the panels of each grid of a specification."""
    for block in found["spec"]["blocks"]:
        if block["type"] == "panel-grid":
            (runs,) = block["metadata"]["runSets"]
            (group,) = runs["filters"]["filters"]
            assert group["key"] == {"section": "run", "name": "group"}
            yield group["value"], block["metadata"]["panelBankSectionConfig"]["panels"]


def of_paper(paper: Paper) -> list[tuple[list[str], list[dict[str, Any]]]]:
    return list(grids(wandb_dashboard.specification(wandb_dashboard.dashboard(paper, "sparse_bench"))))


@pytest.mark.parametrize("name", PAPERS)
def test_every_paper_has_its_metrics_against_density_and_weights(name: str) -> None:
    paper = read_papers(experiments())[name]
    found = of_paper(paper)
    assert [names for names, _ in found] == [section.experiments for section in paper.sections]
    for section, (_, panels) in zip(paper.sections, found, strict=True):
        configs = [panel["config"] for panel in panels if panel["viewType"] == "Scatter Plot"]
        drawn = {(config["xAxis"], config["yAxis"]) for config in configs}
        assert drawn == {
            (f"summary:{axis}", f"summary:{summary_name(metric)}")
            for axis in (DENSITY, WEIGHTS)
            for metric in section.metrics
        }
        places = [(panel["layout"]["x"], panel["layout"]["y"]) for panel in panels]
        assert len(set(places)) == len(places), "panels lie upon each other"


def shown(paper: Paper) -> set[str]:
    """Every name that a panel reads, as W&B knows it."""
    names = set()
    for _, panels in of_paper(paper):
        for config in (panel["config"] for panel in panels):
            names |= set(config.get("metrics") or (config["xAxis"], config["yAxis"]))
    return names


def logged() -> set[str]:
    """Every name that runs have logged, as W&B knows it."""
    last = {summary_name(metric) for metric in Recorder.followed if axis_of(metric) == "step"}
    final = {metric if metric in (DENSITY, WEIGHTS) else summary_name(metric) for metric in Recorder.summed_up}
    return Recorder.followed | {f"summary:{name}" for name in last | final}


@pytest.mark.parametrize("name", PAPERS)
def test_panels_show_what_runs_really_log(name: str, compose_config: Compose, tmp_path: Path) -> None:
    """Experiments of every task and scheme of a paper run for two steps, until all names in its panels were logged."""
    paper = read_papers(experiments())[name]
    kinds: set[tuple[str, str]] = set()
    Recorder.followed.clear()
    Recorder.summed_up.clear()
    for experiment in paper.experiments:
        if shown(paper) <= logged():
            break
        if not (CONF / "experiment" / f"{experiment}.yaml").is_file():
            continue
        whole = compose_config(f"experiment={experiment}")
        plain: Any = OmegaConf.to_container(whole)
        dataset, scheme = (target_of(plain[group], group).__name__ for group in ("dataset", "sparsity"))
        if (dataset, scheme) in kinds:
            continue
        kinds.add((dataset, scheme))
        config = brief([f"experiment={experiment}", "trainer.evaluate_every=1"], whole, compose_config, tmp_path)
        config.logger = {"recorder": {"_target_": f"{__name__}.Recorder"}}
        result = run(config)
        assert result is not None
        assert result.status == "finished", result.error
    assert shown(paper) <= logged()


def test_without_an_account_the_specifications_are_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "below/reports"
    assert wandb_dashboard.main(output=folder, project="mine") == 0
    papers = read_papers(experiments())
    assert f"Specifications of {len(papers)} reports, not published: {folder}" in capsys.readouterr().out
    found = {path.stem: json.loads(path.read_text()) for path in folder.iterdir()}
    assert sorted(found) == sorted(papers)
    for name, content in found.items():
        assert content["projectName"] == "mine"
        assert content["displayName"] == papers[name].title
        assert list(grids(content))


def test_publishing_without_an_account_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert wandb_dashboard.main(publish=True) == 1
    assert "error: There is no W&B account: log in with `wandb login`" in capsys.readouterr().err


def test_without_the_library_the_message_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    assert wandb_dashboard.main(output=tmp_path / "x") == 1
    assert "pip install 'sparse_bench[wandb-dashboard]'" in capsys.readouterr().err
