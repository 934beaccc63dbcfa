"""What is told of each reproduced document: a folder each.

page.yaml      the paper's page: sections, figures, findings, and the sweeps that reproduce it (:mod:`.page`)
claims.yaml    the paper's claims and the rules that decide them (:mod:`.claims`)
NAME.csv       numbers that the paper prints, to be shown beside ours (:mod:`.published`)

Nothing here knows what was measured.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
#: The order of pages and of the ledger.
PAPERS = ("rasa", "brouns", "demeester", "sparselang", "embeddings")
