"""Descriptions of the reproduced documents and of the benchmark, one folder each.

page.yaml      the paper's page: sections, figures, findings, and the sweeps that reproduce it (:mod:`.page`)
claims.yaml    the paper's claims and the rules that decide them (:mod:`.claims`)
NAME.csv       numbers that the paper prints, shown with our measurements (:mod:`.published`)

Nothing here depends on measurements.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
#: The project's own comparison, which has a page and no claims.
BENCHMARK = "benchmark"
#: The order of pages and of the ledger.
PAPERS = ("rasa", "brouns", "demeester", "sparselang", "embeddings")


def papers_in(folder: Path) -> list[str]:
    """Names with a folder below ``folder``, in the order of their pages: the benchmark, the papers, others by name."""
    found, known = {path.parent.name for path in folder.glob("*/*.yaml")}, (BENCHMARK, *PAPERS)
    return [*(name for name in known if name in found), *sorted(found - set(known))]
