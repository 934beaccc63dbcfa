"""Verdicts on claims, from measurements.

A test is reproduced if the 95 % interval of every case lies in its region. All cases must agree, which already guards
against multiple comparisons (an intersection-union test), so nothing is corrected. A test is contradicted if any case
lies in the contradicting region after Holm's correction over the cases. Otherwise it is inconclusive.

A single seed has no interval and decides nothing. Two seeds with equal values decide nothing either. Counts and
benchmarks are single numbers and need no interval.

Several tests at one scale are reproduced if all are, and contradicted if any is. Each claim is judged at the paper's
own scale. Where that was not run, or has too few seeds, the claim is judged at the first decided one of these scales,
and labelled so: a stand-in for the paper's corpus, a benchmark, a reduced scale. If the runs at a scale are enough
but decide neither way, the claim is inconclusive: a smaller scale does not overrule them.
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
#: One-sided level at which the whole two-sided 95 % interval lies beyond a bound.
LEVEL = (1.0 - CONFIDENCE) / 2


@dataclass(frozen=True)
class CaseOutcome:
    """The outcome of one case.

    Attributes:
        label: label of the case; empty if the test has a single case.
        interval: the measurement; None without runs.
        p_reproduced: p-value for the reproducing region; None if it cannot be computed.
        p_contradicted: p-value for the contradicting region, after Holm's correction.
        problem: why there is no measurement, or none that can decide.
        remark: what a reader has to know of the runs.
    """

    label: str
    interval: Interval | None
    p_reproduced: float | None = None
    p_contradicted: float | None = None
    problem: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a test at one scale; the verdict is None for a measurement that no rule judges."""

    test: Resolved
    cases: Sequence[CaseOutcome]
    verdict: Verdict | None

    @property
    def judged(self) -> bool:
        """Whether a rule judges the measurement."""
        return isinstance(self.test.rule, Test)

    @property
    def seeds(self) -> tuple[int, int] | None:
        """Fewest and most seeds of the cases; None without a measurement."""
        counts = [case.interval.n for case in self.cases if case.interval is not None]
        return (min(counts), max(counts)) if counts else None

    @property
    def decidable(self) -> bool:
        """Whether every case has a p-value."""
        return all(case.p_reproduced is not None for case in self.cases)


@dataclass(frozen=True)
class Entry:
    """An entry of the ledger: a claim with all its outcomes."""

    document: str
    claim: Claim
    outcomes: Sequence[Outcome]

    @property
    def scale(self) -> Origin | None:
        """The scale that decides the verdict; None without runs, or if the claim is not testable."""
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
        """The outcomes to show, judged ones first.

        A test that was not run is shown unless it is of the reduced scale. If no test was run, one is shown.
        """
        tests = [found for found in self.outcomes if found.judged] or list(self.outcomes)
        worth = [found for found in tests if found.verdict != "not run" or found.test.scale != "reduced"]
        if all(found.verdict == "not run" for found in tests):
            worth = tests[:1]
        shown = [found for found in self.outcomes if found in worth or found.verdict is None]
        return sorted(shown, key=lambda found: not found.judged)

    @property
    def verdict(self) -> Verdict:
        """The claim's verdict, from the outcomes at :attr:`scale`."""
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
        """The joint verdict of all tests at one scale."""
        verdicts = {outcome.verdict for outcome in self._by_scale[scale] if outcome.verdict is not None}
        if "contradicted" in verdicts:
            return "contradicted"
        return verdicts.pop() if len(verdicts) == 1 else "inconclusive"


def evaluate(documents: Sequence[Document], evidence: Evidence) -> list[Entry]:
    """Decide every claim.

    Raises:
        SelectionError: a claim uses a name that is not in the results; the message lists every such claim.
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
    """Decide one test from its measurements. A measurement without a rule has no verdict, unless it was not run."""
    rule = test.rule
    measured = [measure(comparison, evidence) for _, comparison in test.cases]
    reproduced = [_p(sample, rule.reproduced) if isinstance(rule, Test) else None for sample in measured]
    contradicted = [_p(sample, rule.contradicted) if isinstance(rule, Test) else None for sample in measured]
    # A case without a p-value is still a planned comparison, so it counts in the correction.
    corrected = holm([1.0 if p is None else p for p in contradicted])
    cases = []
    for (label, _), sample, first, second, after in zip(
        test.cases, measured, reproduced, contradicted, corrected, strict=True
    ):
        if isinstance(sample, Unavailable):
            cases.append(CaseOutcome(label, None, problem=sample.reason))
            continue
        problem = ""
        if isinstance(rule, Test) and second is None:
            one = sample.interval.n == 1
            problem = "a single seed has no interval" if one else "two equal values have no spread"
        cases.append(
            CaseOutcome(label, sample.interval, first, None if second is None else after, problem, sample.remark)
        )
    verdict: Verdict | None
    if not isinstance(rule, Test):
        verdict = None if any(case.interval for case in cases) else "not run"
    elif any(case.p_contradicted is not None and case.p_contradicted <= LEVEL for case in cases):
        verdict = "contradicted"
    elif all(case.p_reproduced is not None and case.p_reproduced <= LEVEL for case in cases):
        verdict = "reproduced"
    elif all(isinstance(sample, Unavailable) and not sample.run for sample in measured):
        verdict = "not run"
    else:
        verdict = "inconclusive"
    return Outcome(test, cases, verdict)


def _p(sample: Sample | Unavailable, where: Region) -> float | None:
    """One-sided p-value for the mean to lie in a region; None if it cannot be computed.

    For a region between two borders it is the larger of two p-values, as the mean must clear both borders. For the
    region outside of them it is the smaller.
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
