"""Descriptions of the reproduced documents, one folder each.

page.yaml      the paper's page: sections, figures, findings, and the sweeps that reproduce it (:mod:`.page`)
claims.yaml    the paper's claims and the rules that decide them (:mod:`.claims`)
NAME.csv       numbers that the paper prints, shown with our measurements (:mod:`.published`)

Nothing here depends on measurements.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
#: The order of pages and of the ledger.
PAPERS = ("rasa", "brouns", "demeester", "sparselang", "embeddings")


def papers_in(folder: Path) -> list[str]:
    """Names of the papers with a folder below ``folder``, in the order of their pages; others follow by name."""
    found = {path.parent.name for path in folder.glob("*/*.yaml")}
    return [*(name for name in PAPERS if name in found), *sorted(found - set(PAPERS))]
