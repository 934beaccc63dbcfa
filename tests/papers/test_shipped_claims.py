"""The claims and papers that are shipped: complete, valid, and no copy of each other's numbers by mistake."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import OmegaConf

from sparse_bench.config import choices
from sparse_bench.record import Result
from sparse_bench.report.catalog import experiments
from sparse_bench.report.claims.schema import FOLDER, read_documents
from sparse_bench.report.load import Results
from sparse_bench.report.papers import ORDER, read_papers
from sparse_bench.report.published import read_published
from sparse_bench.report.selection import Evidence, Runs, benchmark_rows
from sparse_bench.report.tidy import read, tables_of
from sparse_bench.sweeps import Job, jobs

RESULTS = Path(__file__).resolve().parents[2] / "results"
#: Labels of a run, and the groups that they are of.
GROUPS = {"model": "model", "dataset": "dataset", "scheme": "sparsity"}


def test_the_five_documents_are_there() -> None:
    papers = read_papers(experiments())
    assert tuple(papers) == ORDER
    documents = read_documents(FOLDER, list(papers), experiments())
    assert [document.document for document in documents] == list(ORDER)
    claims = [claim for document in documents for claim in document.claims]
    assert len(claims) >= 25
    assert all(claim.id.startswith(f"{document.document}-") for document in documents for claim in document.claims)


def test_every_tested_experiment_is_collected() -> None:
    papers = read_papers(experiments())
    for document in read_documents(FOLDER, list(papers), experiments()):
        sides = [s for claim in document.claims for test in claim.resolved() for case in test.cases for s in case.sides]
        names = {side.experiment for side in sides if isinstance(side, Runs)}
        assert names <= set(papers[document.document].experiments)


def test_every_side_of_a_claim_is_an_arm_that_a_sweep_starts() -> None:
    """A misspelt value would leave a claim without runs for ever."""
    started = [job for sweep in choices("sweep") for job in jobs(sweep, Path()) if job.config.seed == 0]
    papers = read_papers(experiments())
    tables = {
        name: tables_of(
            Results(pd.DataFrame(), [as_if_finished(job) for job in started if job.experiment in own], []), {}, []
        )
        for name, own in ((paper.name, set(paper.experiments)) for paper in papers.values())
    }
    evidence = Evidence(RESULTS, tables)
    lacking = []
    for document in read_documents(FOLDER, list(papers), experiments()):
        for claim in document.claims:
            measured = [case for test in claim.resolved() for case in test.cases]
            sides = [side for case in measured for side in case.sides if isinstance(side, Runs)]
            lacking += [f"{claim.id}: {side}" for side in sides if evidence.runs(side) is None]
    assert not lacking


def as_if_finished(job: Job) -> Result:
    config: Any = OmegaConf.to_container(job.config, resolve=True)
    labels = {name: config[group].get("label") for name, group in GROUPS.items()}
    labels |= {"density": config["sparsity"].get("density")}
    number = hashlib.sha256(json.dumps(config, default=str).encode()).hexdigest()[:12]
    return Result(number, "finished", job.experiment, config["seed"], labels, config)


def test_no_experiment_stands_in_here_and_is_the_paper_s_own_there() -> None:
    scales: dict[str, set[str]] = {}
    for document in read_documents(FOLDER, list(ORDER), experiments()):
        for test in (test for claim in document.claims for test in claim.resolved()):
            for side in (side for case in test.cases for side in case.sides if isinstance(side, Runs)):
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
    (bigrams,) = (
        row["perplexity (valid)"]
        for row in benchmark_rows(RESULTS / "sparselang/ngram_reference.md")
        if (row["training lines"], row[""]) == ("5%", "bigrams")
    )
    (document,) = (d for d in read_documents(FOLDER, list(ORDER), experiments()) if d.document == "sparselang")
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
                    assert all(read_published(published).get(name) for name in names)


def test_sections_are_about_collected_experiments() -> None:
    for paper in read_papers(experiments()).values():
        for section in paper.sections:
            assert set(section.experiments) <= set(paper.experiments), f"{paper.name}: {section.heading}"
