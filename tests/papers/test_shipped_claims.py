"""The claims and papers that are shipped: complete, valid, and no copy of each other's numbers by mistake."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import OmegaConf

from sparse_bench.config import choices
from sparse_bench.config.catalog import experiments
from sparse_bench.evidence.compare import Evidence
from sparse_bench.evidence.folders import row_of
from sparse_bench.evidence.settings import completed, defining
from sparse_bench.evidence.store import CURVE_COLUMNS, assembled, read
from sparse_bench.papers import BENCHMARK, PAPERS
from sparse_bench.papers.claims import Claim, read_claims, targets
from sparse_bench.papers.page import read_papers
from sparse_bench.papers.published import read_published
from sparse_bench.papers.schema import Target
from sparse_bench.record import Result
from sparse_bench.sweeps import Job, jobs

RESULTS = Path(__file__).resolve().parents[2] / "results"
#: Labels of a run, and the groups that they are of.
GROUPS = {"model": "model", "dataset": "dataset", "scheme": "sparsity"}


def test_the_five_documents_are_there() -> None:
    papers = read_papers(experiments())
    assert tuple(papers) == (BENCHMARK, *PAPERS)
    documents = read_claims(experiments())
    assert [document.name for document in documents] == list(PAPERS)
    claims = [claim for document in documents for claim in document.claims]
    assert len(claims) >= 25
    assert all(claim.id.startswith(f"{document.name}-") for document in documents for claim in document.claims)


def test_every_tested_experiment_is_collected() -> None:
    papers = read_papers(experiments())
    for document in read_claims(experiments()):
        names = {side.experiment for claim in document.claims for side in sides_of(claim)}
        assert names <= set(papers[document.name].experiments)


@pytest.mark.slow
def test_every_side_of_a_claim_is_an_arm_that_a_sweep_starts() -> None:
    """A misspelt value would leave a claim without runs for ever."""
    started = [job for sweep in choices("sweep") for job in jobs(sweep, Path()) if job.config.seed == 0]
    papers = read_papers(experiments())
    tables = {}
    for paper in papers.values():
        records = [as_if_finished(job) for job in started if job.experiment in set(paper.experiments)]
        configs = completed([defining(record.config) for record in records])
        empty = pd.DataFrame(columns=list(CURVE_COLUMNS))
        tables[paper.name] = assembled([row_of(record) for record in records], configs, empty)
    evidence = Evidence(RESULTS, tables)
    lacking = []
    for document in read_claims(experiments()):
        for claim in document.claims:
            lacking += [f"{claim.id}: {side}" for side in sides_of(claim) if evidence.runs(side) is None]
    assert not lacking


def sides_of(claim: Claim) -> list[Target]:
    """The sides of a claim's tests that are runs."""
    return [side for side in targets(claim.resolved()) if side.experiment]


def as_if_finished(job: Job) -> Result:
    config: Any = OmegaConf.to_container(job.config, resolve=True)
    labels = {name: config[group].get("label") for name, group in GROUPS.items()}
    labels |= {"density": config["sparsity"].get("density")}
    number = hashlib.sha256(json.dumps(config, default=str).encode()).hexdigest()[:12]
    return Result(number, "finished", job.experiment, config["seed"], labels, config)


def test_no_experiment_stands_in_here_and_is_the_paper_s_own_there() -> None:
    scales: dict[str, set[str]] = {}
    for document in read_claims(experiments()):
        for test in (test for claim in document.claims for test in claim.resolved()):
            for side in (side for side in targets([test]) if side.experiment):
                scales.setdefault(side.experiment, set()).add(test.scale)
    assert not {name: found for name, found in scales.items() if len(found) > 1}
    assert {name for name, found in scales.items() if found == {"stand-in"}} == {
        "demeester/pos_density",
        "embeddings/dense",
        "embeddings/sparse",
    }


@pytest.mark.skipif(not RESULTS.is_dir(), reason="needs the repository's results")
def test_reduced_lstms_are_still_worse_than_counted_pairs() -> None:
    """SparseLang's claims at reduced scale say so, with this number."""
    lines = (RESULTS / "sparselang/ngram_reference.md").read_text(encoding="utf-8").splitlines()
    head, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    found = [dict(zip(head, row, strict=True)) for row in rows]
    (bigrams,) = (
        float(row["perplexity (valid)"]) for row in found if (row["training lines"], row[""]) == ("5%", "bigrams")
    )
    (document,) = (d for d in read_claims(experiments()) if d.name == "sparselang")
    assert f"(validation perplexity {bigrams}" in document.caveats[0].text
    runs = read(RESULTS / "sparselang").runs
    small = runs["experiment"].str.endswith("small") & (runs["setting:model.recurrence"] == "trained")
    assert small.any()
    assert (runs.loc[small, "metric:valid/perplexity"] > bigrams).all()


def test_figures_name_series_that_exist() -> None:
    for paper in read_papers(experiments()).values():
        for section in paper.sections:
            for figure in section.figures:
                published = getattr(figure, "published", None)
                if published is not None:
                    parts = getattr(figure, "series", None) or getattr(figure, "rows", ())
                    names = [part.published for part in parts if part.published]
                    assert names
                    assert all(read_published(paper.folder, published).get(name) for name in names)


def test_sections_are_about_collected_experiments() -> None:
    for paper in read_papers(experiments()).values():
        for section in paper.sections:
            assert set(section.experiments) <= set(paper.experiments), f"{paper.name}: {section.heading}"
