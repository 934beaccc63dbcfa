"""The questions and their rules are older than the runs that they judge."""

import ast

import pytest
import yaml

from sparse_bench.benchmark.questions import FILE, read_questions
from sparse_bench.evidence.store import RUNS, read
from tests.papers.test_registered import ROOT, git

REGISTERED = read_questions().registered
RULES = FILE.with_suffix(".py")


@pytest.fixture(autouse=True)
def history() -> None:
    if not REGISTERED or git("cat-file", "-e", f"{REGISTERED}^{{commit}}").returncode:
        pytest.skip("needs the registered commit and the history of the repository")


def test_the_questions_and_the_words_of_their_rules_are_those_that_were_registered() -> None:
    then = {path: git("show", f"{REGISTERED}:{path.relative_to(ROOT).as_posix()}").stdout for path in (FILE, RULES)}
    assert yaml.safe_load(then[FILE])["questions"] == yaml.safe_load(FILE.read_text(encoding="utf-8"))["questions"]
    words = [ast.get_docstring(ast.parse(text)) for text in (then[RULES], RULES.read_text(encoding="utf-8"))]
    assert words[0] == words[1]


def test_every_run_was_made_with_the_rules() -> None:
    folder = ROOT / "results" / "benchmark"
    if not (folder / RUNS).is_file():
        pytest.skip("the benchmark has not run")
    for commit in set(read(folder).finished["made:commit"].dropna()):
        older = git("merge-base", "--is-ancestor", REGISTERED, str(commit))
        assert not older.returncode, f"runs were made at {commit[:8]}, without the rules"
