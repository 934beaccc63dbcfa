"""Fixtures of the runs by hand, and claims by hand."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from sparse_bench.papers.claims import Document, read_claims
from tests.evidence.fixtures import compared, drawn, loaded, results, sweep

__all__ = ["KNOWN", "compared", "drawn", "loaded", "results", "sweep"]

#: Experiments that claims by hand speak of.
KNOWN = {"p/x", "p/y", "p/x_small", "p/y_small"}


@pytest.fixture
def documents(tmp_path: Path) -> Callable[..., list[Document]]:
    """A function that makes the document of one claim from its tests."""

    def make(*tests: str, extra: str = "published: more") -> list[Document]:
        listed = "\n".join(f"- {textwrap.dedent(test).strip()}".replace("\n", "\n  ") for test in tests)
        claim = f"id: one\nwhere: here\nquotation: x is better\n{extra}\n"
        claim += f"tests:\n{textwrap.indent(listed, '  ')}\n" if tests else ""
        (tmp_path / "p").mkdir(exist_ok=True)
        (tmp_path / "p/claims.yaml").write_text("claims:\n- " + claim.strip().replace("\n", "\n  ") + "\n")
        return read_claims(KNOWN, tmp_path)

    return make
