"""What is kept of single runs for the pages that draw them."""

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sparse_bench.record import RunFolder
from sparse_bench.report import collect
from sparse_bench.report.catalog import experiments
from sparse_bench.report.papers import OneRun, read_papers
from sparse_bench.report.portraits import FILE, portrait_figure, read
from sparse_bench.report.selection import Evidence
from sparse_bench.sweeps import shipped_config
from tests.report.runs import write_run
from tests.report.test_topology import LINES
from tests.report.test_weights import SUMMARY

SET, SPARSE = "brouns/small/set", "sparselang/sparse"


def write(root: Path, experiment: str, seed: int) -> RunFolder:
    config = shipped_config(experiment)
    OmegaConf.update(config, "seed", seed)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    labels = {"density": plain["sparsity"].get("density") or 0.1}
    found = write_run(root, experiment=experiment, seed=seed, config=plain, metrics={"valid/loss": 1.0}, **labels)
    return RunFolder(found)


def write_all(root: Path, seeds: tuple[int, ...]) -> None:
    for seed in seeds:
        folder = write(root, SET, seed)
        folder.topology.path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
        write(root, SPARSE, seed).weight_summary.write_text(json.dumps(SUMMARY))


def collected(results: Path, runs: Path) -> dict[str, list[tuple[str, str, int]]]:
    assert collect.main(["--results", str(results), "--runs", str(runs)]) == 0
    return {
        paper: [(p.kind, p.experiment, p.seed) for p in read(results / paper)] for paper in ("brouns", "sparselang")
    }


def test_the_first_seed_is_kept_also_when_its_folder_is_gone(tmp_path: Path) -> None:
    results = tmp_path / "results"
    write_all(tmp_path / "later", (1, 2))
    kept = collected(results, tmp_path / "later")
    assert kept == {"brouns": [("degrees", SET, 1)], "sparselang": [("weights", SPARSE, 1)]}
    write_all(tmp_path / "first", (0,))
    kept = collected(results, tmp_path / "first")
    assert kept == {"brouns": [("degrees", SET, 0)], "sparselang": [("weights", SPARSE, 0)]}
    before = (results / "brouns" / FILE).read_bytes()
    assert collected(results, tmp_path / "later") == kept
    assert (results / "brouns" / FILE).read_bytes() == before


def test_runs_that_left_nothing_to_draw_leave_no_file(tmp_path: Path) -> None:
    write(tmp_path / "runs", SET, 0)
    assert collected(tmp_path / "results", tmp_path / "runs") == {"brouns": [], "sparselang": []}
    assert not (tmp_path / "results/brouns" / FILE).exists()


def test_a_page_draws_them(tmp_path: Path) -> None:
    write_all(tmp_path / "runs", (0,))
    collected(tmp_path, tmp_path / "runs")
    papers = read_papers(experiments())
    evidence = Evidence.committed(tmp_path, papers)
    for name, kind, title in (("brouns", "degrees", "SET, 64 units"), ("sparselang", "weights", "density .001")):
        spec = next(figure for figure in papers[name].single_runs if figure.title == title)
        assert spec.kind == kind
        figure = portrait_figure(spec, evidence, read(tmp_path / name), name)
        assert figure is not None
        assert title in figure.title
        assert "seed 0" in figure.caption.lower()
    missing = OneRun(kind="degrees", title="none", experiment="brouns/set")
    assert portrait_figure(missing, evidence, read(tmp_path / "brouns"), "brouns") is None
