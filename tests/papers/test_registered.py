"""A rule that is said to be older than the runs that it judges is."""

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparse_bench.config.catalog import experiments
from sparse_bench.evidence.compare import Evidence
from sparse_bench.papers.claims import Claim, Test, read_claims
from sparse_bench.papers.page import read_papers

ROOT = Path(__file__).resolve().parents[2]
#: Where the claims of a document are, and where they were before.
PLACES = ("sparse_bench/papers/{name}/claims.yaml", "sparse_bench/report/claims/{name}.yaml")
REGISTERED = [
    pytest.param(document.name, claim, id=claim.id)
    for document in read_claims(experiments())
    for claim in document.claims
    if claim.registered
]


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, cwd=ROOT)


@cache
def claims_of(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(text)["claims"]
    return found


def rules(text: str, claim: str) -> str:
    """A claim's tests in a file of claims, without their notes."""
    tests: list[dict[str, Any]] = next(one["tests"] for one in claims_of(text) if one["id"] == claim)
    without = [{key: value for key, value in test.items() if key != "note"} for test in tests]
    # A benchmark's table was Markdown alone before it was a table of values too.
    return re.sub(r"(performance/\w+)\.(md|csv)", r"\1", json.dumps(without, sort_keys=True))


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return Evidence.committed(ROOT / "results", read_papers(experiments()))


@pytest.mark.parametrize(("name", "claim"), REGISTERED)
def test_the_rule_is_older_than_its_runs(name: str, claim: Claim, evidence: Evidence) -> None:
    if git("cat-file", "-e", f"{claim.registered}^{{commit}}").returncode:
        pytest.skip(f"needs the history of the repository: commit {claim.registered[:8]} is not here")
    texts = [git("show", f"{claim.registered}:{place.format(name=name)}") for place in PLACES]
    then = next(found.stdout for found in texts if not found.returncode)
    now = (ROOT / PLACES[0].format(name=name)).read_text(encoding="utf-8")
    assert rules(then, claim.id) == rules(now, claim.id), "the rule was changed after it was registered"
    for commit in made(claim, evidence):
        older = git("merge-base", "--is-ancestor", claim.registered, commit)
        assert not older.returncode, f"a run that the rule judges was made at {commit[:8]}, without the rule"


def made(claim: Claim, evidence: Evidence) -> set[str]:
    """Commits at which the runs were made that a claim's tests compare."""
    commits: set[str] = set()
    for test in claim.resolved():
        for _, comparison in test.cases if isinstance(test.rule, Test) else ():
            for side in comparison.sides:
                found = evidence.runs(side, any_length=comparison.of.startswith("count:")) if side.experiment else None
                commits |= set() if found is None else set(found.runs["made:commit"].dropna())
    return commits
