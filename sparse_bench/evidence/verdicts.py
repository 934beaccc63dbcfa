"""From what was measured to a verdict.

A test is reproduced if the 95 % interval of every case lies in its region. That all have to agree is itself the
protection against many comparisons (an intersection-union test), so nothing is corrected. It is contradicted if any
case lies in the contradicting region after Holm's correction over the cases. Anything else is inconclusive.

A single seed has no interval and decides nothing, and neither do two with equal values; counts and benchmarks are
single numbers and need none.

Several tests at one scale are one: reproduced if all are, contradicted if any is. A claim's verdict is the paper's
scale's. Where that was not run, or has too few seeds to decide anything, it is the first that is decided of a stand-in
for the paper's corpus, a benchmark and a reduced scale, and is labelled so. A scale with intervals that decide neither
way is left undecided: a smaller one does not speak for it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sparse_bench.evidence.compare import Evidence, Sample, SelectionError, Unavailable, measure
from sparse_bench.evidence.statistics import CONFIDENCE, Interval, holm, p_value
from sparse_bench.papers.claims import Claim, Document, Region, Resolved, Test
from sparse_bench.papers.schema import Origin

Verdict = Literal["reproduced", "contradicted", "inconclusive", "not run", "not testable"]
VERDICTS: tuple[Verdict, ...] = ("reproduced", "contradicted", "inconclusive", "not run", "not testable")
DECIDED: tuple[Verdict, ...] = ("reproduced", "contradicted")
#: One-sided level at which "the whole two-sided 95 % interval lies beyond the bound" is decided.
LEVEL = (1.0 - CONFIDENCE) / 2


@dataclass(frozen=True)
class CaseOutcome:
    """One case, decided.

    Attributes:
        label: of the case; empty where there is only one.
        interval: what was measured; None without runs.
        p_reproduced: p-value of lying in the reproducing region; None if that cannot be said.
        p_contradicted: of lying in the contradicting one, after Holm's correction.
        problem: why there is no measurement, or none that decides.
        remark: what has to be known of the runs that were measured.
    """

    label: str
    interval: Interval | None
    p_reproduced: float | None = None
    p_contradicted: float | None = None
    problem: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Outcome:
    """A test at one scale, decided; or a measurement beside it, which no rule judges and which has no verdict."""

    test: Resolved
    cases: Sequence[CaseOutcome]
    verdict: Verdict | None

    @property
    def judged(self) -> bool:
        """Whether a rule judges it; else it stands beside those that are judged."""
        return isinstance(self.test.rule, Test)

    @property
    def seeds(self) -> tuple[int, int] | None:
        """Fewest and most seeds of its cases."""
        counts = [case.interval.n for case in self.cases if case.interval is not None]
        return (min(counts), max(counts)) if counts else None

    @property
    def decidable(self) -> bool:
        """Whether every case was measured well enough to decide it."""
        return all(case.p_reproduced is not None for case in self.cases)


@dataclass(frozen=True)
class Entry:
    """A line of the ledger: a claim with all its outcomes."""

    document: str
    claim: Claim
    outcomes: Sequence[Outcome]

    @property
    def scale(self) -> Origin | None:
        """The scale that the verdict is taken from; None without runs, or if the claim is not testable."""
        if self.claim.untestable:
            return None
        run = [scale for scale in self._by_scale if self._at(scale) != "not run"]
        for scale in run:
            if self._at(scale) in DECIDED:
                return scale
            if all(outcome.decidable for outcome in self._by_scale[scale]):
                break
        return run[0] if run else None

    @property
    def shown(self) -> list[Outcome]:
        """Outcomes worth a line: what was run, and what of the paper's size was not; one line if no test was."""
        tests = [found for found in self.outcomes if found.judged] or list(self.outcomes)
        worth = [found for found in tests if found.verdict != "not run" or found.test.scale != "reduced"]
        if all(found.verdict == "not run" for found in tests):
            worth = tests[:1]
        return [found for found in self.outcomes if found in worth or found.verdict is None]

    @property
    def verdict(self) -> Verdict:
        """The claim's verdict."""
        if self.claim.untestable:
            return "not testable"
        return self._at(self.scale) if self.scale else "not run"

    @property
    def _by_scale(self) -> dict[Origin, list[Outcome]]:
        found: dict[Origin, list[Outcome]] = {}
        for outcome in self.outcomes:
            if outcome.judged:
                found.setdefault(outcome.test.scale, []).append(outcome)
        return found

    def _at(self, scale: Origin) -> Verdict:
        """The verdict of all tests at one scale together."""
        verdicts = {outcome.verdict for outcome in self._by_scale[scale] if outcome.verdict is not None}
        if "contradicted" in verdicts:
            return "contradicted"
        return verdicts.pop() if len(verdicts) == 1 else "inconclusive"


def evaluate(documents: Sequence[Document], evidence: Evidence) -> list[Entry]:
    """Decide every claim.

    Raises:
        SelectionError: results know no such name; the message holds every claim that this happens to.
    """
    entries, faults = [], []
    for document in documents:
        for claim in document.claims:
            outcomes = []
            for test in claim.resolved():
                try:
                    outcomes.append(decide(test, evidence))
                except SelectionError as error:
                    faults.append(f"claim '{claim.id}': {error}")
            entries.append(Entry(document.name, claim, outcomes))
    if faults:
        raise SelectionError("\n".join(faults))
    return entries


def decide(test: Resolved, evidence: Evidence) -> Outcome:
    """Decide one test from what was measured."""
    rule = test.rule
    measured = [measure(comparison, evidence) for _, comparison in test.cases]
    if not isinstance(rule, Test):
        return _beside(test, measured)
    p_contradicted: list[float | None] = [_p(sample, rule.contradicted) for sample in measured]
    # A case without a p-value is a comparison that was made (or will be), so it counts in the correction.
    corrected = holm([1.0 if p is None else p for p in p_contradicted])
    cases = []
    for (label, _), sample, before, after in zip(test.cases, measured, p_contradicted, corrected, strict=True):
        if isinstance(sample, Unavailable):
            cases.append(CaseOutcome(label, None, problem=sample.reason))
        else:
            alone = before is None
            few = "a single seed has no interval" if sample.interval.n == 1 else "two equal values have no spread"
            problem = few if alone else ""
            p_reproduced = _p(sample, rule.reproduced)
            p_corrected = None if alone else after
            cases.append(CaseOutcome(label, sample.interval, p_reproduced, p_corrected, problem, sample.remark))
    if any(case.p_contradicted is not None and case.p_contradicted <= LEVEL for case in cases):
        verdict: Verdict = "contradicted"
    elif all(case.p_reproduced is not None and case.p_reproduced <= LEVEL for case in cases):
        verdict = "reproduced"
    elif all(isinstance(sample, Unavailable) and not sample.run for sample in measured):
        verdict = "not run"
    else:
        verdict = "inconclusive"
    return Outcome(test, cases, verdict)


def _beside(test: Resolved, measured: Sequence[Sample | Unavailable]) -> Outcome:
    """What was measured beside a claim."""
    cases = [
        CaseOutcome(label, None, problem=sample.reason)
        if isinstance(sample, Unavailable)
        else CaseOutcome(label, sample.interval, remark=sample.remark)
        for (label, _), sample in zip(test.cases, measured, strict=True)
    ]
    return Outcome(test, cases, None if any(case.interval for case in cases) else "not run")


def _p(sample: Sample | Unavailable, where: Region) -> float | None:
    """One-sided p-value of the mean lying in a region.

    Of a region between two borders the larger of two, as it has to lie on the right side of both; of what is outside
    them the smaller.
    """
    if isinstance(sample, Unavailable):
        return None
    if sample.exact:
        return 0.0 if where.holds(sample.interval.mean) else 1.0
    if where.inverted:
        below_low, above_high = p_value(sample.values, where.low, "less"), p_value(sample.values, where.high, "greater")
        return None if below_low is None or above_high is None else min(below_low, above_high)
    above_low = 0.0 if where.low == -math.inf else p_value(sample.values, where.low, "greater")
    below_high = 0.0 if where.high == math.inf else p_value(sample.values, where.high, "less")
    return None if above_low is None or below_high is None else max(above_low, below_high)
