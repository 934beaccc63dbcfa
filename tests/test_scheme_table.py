"""The table of schemes."""

from pathlib import Path

import pytest

from sparse_bench.config import choices
from sparse_bench.errors import SparseBenchError
from sparse_bench.scheme_table import BEGIN, END, main, rows, with_table

ROOT = Path(__file__).resolve().parents[1]


def test_every_scheme_has_a_row_with_a_rule_and_its_own_way_of_change() -> None:
    found = {row["scheme"].strip("`"): row for row in rows()}
    assert list(found) == choices("sparsity")
    assert all(row["rule"].endswith(".") for row in found.values())
    held = {name for name, row in found.items() if row["weights held while training"] == "all"}
    assert {"ste", "top_kast", "powerpropagation"} <= held
    assert not held & {"set", "rigl", "random", "gmp"}
    changes = {name: row["connections change"] for name, row in found.items()}
    assert changes["random"] == "never"
    assert changes["set"] == "after each epoch"
    assert changes["rigl"] == "every 100 steps"
    assert changes["ste"] == changes["top_kast"] == "each step"
    assert "Evci et al. 2020" in found["rigl"]["source"]
    assert "`fraction=0.3`" in found["rigl"]["settings"]


def test_the_document_is_current() -> None:
    document = ROOT / "docs/schemes.md"
    text = document.read_text(encoding="utf-8")
    assert with_table(text) == text, "run `sparse-bench schemes --write docs/schemes.md`"


def test_a_document_needs_the_marking_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SparseBenchError, match="needs the lines"):
        with_table("no table")
    path = tmp_path / "schemes.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert main(["--write", str(path)]) == 0
    assert path.read_text().startswith(f"before\n{BEGIN}\n| scheme |")
    assert path.read_text().endswith(f"\n{END}\nafter\n")
    assert main(["--write", str(tmp_path / "missing.md")]) == 1
    assert "missing.md" in capsys.readouterr().err
