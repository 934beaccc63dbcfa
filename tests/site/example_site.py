"""A small site over two invented papers, one of which has not been run."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from sparse_bench.evidence.compare import Evidence
from sparse_bench.evidence.store import write
from sparse_bench.evidence.verdicts import Entry, evaluate
from sparse_bench.papers import FOLDER
from sparse_bench.papers.claims import read_claims
from sparse_bench.papers.page import Paper, read_papers
from sparse_bench.site.pages import build_site
from tests.evidence.by_hand import run, table

KNOWN = {"first/dense", "first/sparse", "first/width", "second/all"}
FIRST = """
title: A <first> paper
short: First
document: Somebody, 2019.
summary: It drops & regrows.
findings:
  - {text: Dropping & regrowing pays., rests_on: {first-better: reproduced}}
  - {text: It harms., rests_on: {first-better: contradicted}}
experiments: ["first/*"]
curves: ["valid/*"]
sections:
  - heading: Two arms
    text: Some words.
    experiments: [first/dense, first/sparse]
    metrics: [valid/sentence_accuracy, test/bleu]
    command: make first
    each_run: {code: "made:commit"}
    figures:
      - kind: epochs
        title: Accuracy per epoch
        of: valid/sentence_accuracy
        published: accuracy
        series:
          - {label: dense, experiment: first/dense, published: original, ink: true}
          - {label: sparse, experiment: first/sparse, published: set}
      - kind: dots
        title: Last epochs
        axis: validation accuracy
        published: final
        rows:
          - {label: dense, of: valid/sentence_accuracy, epochs: last 2, published: original,
             first: {experiment: first/dense}}
          - {label: sparse, of: valid/sentence_accuracy, epochs: last 2, published: set,
             first: {experiment: first/sparse}}
          - {label: transfer, of: valid/sentence_accuracy, published: original_with_transfer}
          - {label: both, of: valid/sentence_accuracy, measure: difference, epochs: last 2,
             first: {experiment: first/sparse}, second: {experiment: second/all}}
  - heading: Widths
    experiments: [first/width]
    metrics: [test/bleu]
    command: make first
    figures:
      - kind: curve
        title: BLEU against weights
        front: How well two widths translate.
        of: test/bleu
        along: count:sparse_layers
        series: [{label: density 20 %, experiment: first/width}]
      - {kind: studies}
"""
SECOND = """
title: A second paper
short: Second
document: Somebody else, 2020.
summary: Nothing of it has been run.
experiments: [second/all]
curves: ["test/*"]
sections:
  - heading: Everything
    experiments: [second/all]
    metrics: [test/f1]
    command: make second
    figures: [{kind: epochs, title: Never drawn, of: test/f1, series: [{label: all, experiment: second/all}]}]
"""
CLAIMS = {
    "first": """
claims:
  - id: first-better
    headline: Dropping pays.
    where: page 3
    quotation: sparse is better
    published: +2 points
    tests:
      - measure: difference
        of: valid/sentence_accuracy
        epochs: last 2
        cases: [{first: {experiment: first/sparse}, second: {experiment: first/dense}}]
        reproduced: above 0
        contradicted: below 0
        note: A note.
""",
    "second": """
claims:
  - id: second-fast
    where: page 1
    paraphrase: It is fast.
    published: 7 times
    tests:
      - measure: value
        of: times
        cases: [{first: {table: performance/speed.csv, where: {arm: sparse}}}]
        reproduced: above 5
        contradicted: below 5
  - id: second-good
    where: page 2
    paraphrase: It is good.
    published: "0.9"
    tests:
      - measure: value
        of: test/f1
        experiment: second/all
        cases: [{first: {}}]
        reproduced: above 0.8
        contradicted: below 0.8
""",
}
SPEED = "# Speed of *things*\n\nMade by `bench.py`.\n\n| arm | times |\n|:--|--:|\n| sparse | 7.5 |\n"


@dataclass(frozen=True)
class Site:
    """A built site: where its results and pages are, and what it was made from."""

    results: Path
    out: Path
    papers: dict[str, Paper]
    entries: list[Entry]
    paths: list[Path]


def write_results(root: Path) -> None:
    """Tables of the first paper, and a benchmark."""
    runs = []
    for seed in (0, 1):
        for name, scheme, density, best in (("dense", "dense", 1.0, 0.68), ("sparse", "set", 0.1, 0.70)):
            best += 0.0001 * seed * (scheme == "set")  # so that the arms' difference has a spread
            curve = [best - 0.4 / epoch + 0.001 * seed for epoch in range(1, 9)]
            metrics = {"valid/sentence_accuracy": curve[-1], "test/bleu": 30.0 + seed}
            counts = {"count:sparse_layers": 1000 * density, "count:trainable": 9000, "count:density": density}
            runs.append(
                run(
                    f"first/{name}", seed, metrics, settings={"model.width": 8, "trainer.epochs": 8},
                    curves={"valid/sentence_accuracy": curve}, columns={**counts, "made:commit": "0123456789ab"},
                    model="transformer", scheme=scheme, density=density,
                )
            )  # fmt: skip
        for width in (8, 16):
            counts = {
                "count:sparse_layers": 200 * width,
                "count:sparse_layers_size": 1000 * width,
                "count:density": 0.2,
            }
            counts |= {"count:trainable": 9000 + 200 * width}
            runs.append(
                run(
                    "first/width", seed, {"test/bleu": 20.0 + width / 4 + seed}, columns=counts,
                    settings={"model.width": width, "trainer.epochs": 8},
                    model="transformer", scheme="random", density=0.2,
                )
            )  # fmt: skip
    write(table(*runs), root / "first")
    (root / "first/calibration.md").write_text("# How close\n\nVery.\n")
    (root / "performance").mkdir()
    (root / "performance/speed.md").write_text(SPEED)
    (root / "performance/speed.csv").write_text("arm,times\nsparse,7.5\n")


def make_site(root: Path) -> Site:
    """Write descriptions, claims and results below ``root``, and build."""
    (root / "results").mkdir()
    for name, text in (("first", FIRST), ("second", SECOND)):
        (root / "papers" / name).mkdir(parents=True)
        (root / f"papers/{name}/page.yaml").write_text(text)
        (root / f"papers/{name}/claims.yaml").write_text(CLAIMS[name])
    for file in ("accuracy.csv", "final.csv"):
        shutil.copy(FOLDER / "brouns" / file, root / "papers/first")
    write_results(root / "results")
    papers = read_papers(KNOWN, root / "papers")
    found = Evidence.committed(root / "results", papers)
    entries = evaluate(read_claims(KNOWN, root / "papers"), found)
    paths = build_site(found, papers, entries, root / "site")
    return Site(root / "results", root / "site", papers, entries, paths)
