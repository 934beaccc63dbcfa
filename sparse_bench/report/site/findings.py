"""What came of a paper's experiments, in sentences; each is told only as long as the verdicts that it names hold."""

from collections.abc import Sequence

from sparse_bench.errors import unknown_choice
from sparse_bench.report.catalog import SCALES
from sparse_bench.report.claims.ledger import verdict_text
from sparse_bench.report.claims.verdicts import VERDICTS, Entry
from sparse_bench.report.papers import Paper, PaperError

#: What a ledger can say of a claim, in which scale the paper's goes without saying.
_SAID = (*VERDICTS, *(f"{verdict} ({scale})" for verdict in VERDICTS for scale in SCALES if scale != "paper"))


def findings(paper: Paper, entries: Sequence[Entry]) -> list[str]:
    """The findings of ``paper`` whose claims have the verdicts that they rest on.

    Args:
        paper: the description that holds them.
        entries: all decided claims.

    Raises:
        PaperError: a finding rests on a claim of another paper, on none, or on what is no verdict; the message has the
            valid choices.
    """
    verdicts = {entry.claim.id: verdict_text(entry) for entry in entries if entry.document == paper.name}
    for finding in paper.findings:
        for claim, verdict in finding.rests_on.items():
            if claim not in verdicts:
                raise PaperError(f"{paper.name}.yaml, findings: {unknown_choice('claim', claim, verdicts)}")
            if verdict not in _SAID:
                raise PaperError(f"{paper.name}.yaml, findings: {unknown_choice('verdict', verdict, _SAID)}")
    return [
        finding.text.strip()
        for finding in paper.findings
        if all(verdicts[claim] == verdict for claim, verdict in finding.rests_on.items())
    ]
