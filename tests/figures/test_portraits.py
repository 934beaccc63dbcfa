"""What is kept of single runs for the pages that draw them."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sparse_bench.config.catalog import experiments
from sparse_bench.evidence.collect import collect
from sparse_bench.evidence.compare import Evidence
from sparse_bench.evidence.single_runs import FILE, find, read
from sparse_bench.figures.single_run import portrait_figure
from sparse_bench.papers.page import SingleRun, read_papers
from sparse_bench.record import RunFolder
from sparse_bench.sweeps import shipped_config
from tests.evidence.runs import write_run
from tests.figures.records import write_lines, write_summary

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
        write_lines(write(root, SET, seed).path)
        write_summary(write(root, SPARSE, seed).path)


def collected(results: Path, runs: Path) -> dict[str, list[tuple[str, str, int]]]:
    collect(results, list(read_papers(experiments()).values()), [runs])
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


def test_a_damaged_record_is_named_and_what_was_kept_stays(tmp_path: Path) -> None:
    folder = write_lines(write(tmp_path / "runs", SET, 0).path)
    kept = collected(tmp_path / "results", tmp_path / "runs")
    folder.topology.path.write_text("nonsense\n{}\n")
    lines = collect(tmp_path / "results", list(read_papers(experiments()).values()), [tmp_path / "runs"])
    assert any("It cannot be drawn: topology.jsonl, line 1" in line for line in lines)
    assert [portrait.seed for portrait in read(tmp_path / "results/brouns")] == [kept["brouns"][0][2]]


def test_a_page_draws_them(tmp_path: Path) -> None:
    write_all(tmp_path / "runs", (0,))
    collected(tmp_path, tmp_path / "runs")
    papers = read_papers(experiments())
    evidence = Evidence.committed(tmp_path, papers)
    for name, kind, title in (("brouns", "degrees", "SET, 64 units"), ("sparselang", "weights", "density .001")):
        spec = next(figure for figure in papers[name].single_runs if figure.title == title)
        assert spec.kind == kind
        kept = find(spec, evidence, read(tmp_path / name))
        assert kept is not None
        figure = portrait_figure(kept, spec.title, name)
        assert title in figure.title
        assert "seed 0" in figure.caption.lower()
    missing = SingleRun(kind="degrees", title="none", experiment="brouns/set")
    assert find(missing, evidence, read(tmp_path / "brouns")) is None
