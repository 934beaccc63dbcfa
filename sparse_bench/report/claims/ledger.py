"""The ledger: every claim with its published value, what was measured, and the verdict, as text."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from sparse_bench.report.claims.schema import Resolved, Test
from sparse_bench.report.claims.verdicts import VERDICTS, CaseOutcome, Entry, Outcome
from sparse_bench.report.measure import quantity
from sparse_bench.report.statistics import Interval
from sparse_bench.report.tables import MISSING, DisplayTable, csv_text, interval, markdown, whole

_MEASURES = {
    "value": "",
    "difference": "difference in ",
    "ratio": "ratio of ",
    "share_above": "share of epochs ahead in ",
}
LEDGER_CAPTION = (
    "Measured: mean over seeds ± half-width of the 95 % t-interval, differences and ratios paired over seeds; counts "
    "and benchmarks are single numbers. A rule that was changed after what it judges had been measured says so."
)


def rule_text(test: Test) -> str:
    """A rule in words."""
    what = f"{_MEASURES[test.measure]}{quantity(test.of)}"
    if test.epochs and test.epochs != "all":
        what += f", mean of the {test.epochs} epochs" if test.epochs.startswith("last") else f", {test.epochs}"
    if test.along:
        what += f", averaged along {quantity(test.along)}"
    every = " in every case" if len(test.cases) > 1 else ""
    some = " in any, Holm-corrected" if len(test.cases) > 1 else ""
    return (
        f"{what[0].upper()}{what[1:]}: reproduced {minus(test.reproduced.text)}{every}, "
        f"contradicted {minus(test.contradicted.text)}{some}."
    )


def minus(text: str) -> str:
    """Numbers with a real minus sign."""
    return re.sub(r"(?<!\w)-(?=[\d.])", "−", text)


def measured(outcome: Outcome) -> str:
    """What a test measured, case by case."""
    if outcome.verdict == "not run":
        return "not run"
    parts = []
    for case in outcome.cases:
        text = number(case.interval, outcome.test) if case.interval is not None else case.problem
        parts.append(f"{case.label}: {text}" if case.label else text)
    return "; ".join(parts)


def number(found: Interval, test: Resolved) -> str:
    """A measured value: a count without decimals, an exact number without an interval."""
    signed = test.rule.measure == "difference"
    exact = found.half_width == 0.0 and (test.scale == "benchmark" or test.rule.of.startswith(("count:", "macs:")))
    if not exact:
        return interval(found, signed=signed)
    if abs(found.mean) >= 1000 or found.mean == round(found.mean):
        return whole(found.mean)
    return f"{found.mean:.3g}"


def seeds(outcome: Outcome) -> str:
    """How many seeds stand behind an outcome."""
    if outcome.seeds is None or outcome.test.scale == "benchmark":
        return MISSING
    low, high = outcome.seeds
    return str(low) if low == high else f"{low} to {high}"


def claim_text(entry: Entry) -> str:
    """The claim in the document's words, in quotation marks, or its sense."""
    return f"“{entry.claim.quotation}”" if entry.claim.quotation else entry.claim.paraphrase


def verdict_text(entry: Entry) -> str:
    """The verdict, with the scale where it is not the paper's."""
    scale = entry.decisive.test.scale if entry.decisive else "paper"
    return entry.verdict if scale == "paper" else f"{entry.verdict} ({scale})"


def ledger_table(entries: Sequence[Entry], titles: Mapping[str, str]) -> DisplayTable:
    """One row a claim and scale.

    Args:
        entries: the decided claims.
        titles: of the documents, by name.
    """
    rows = []
    for entry in entries:
        known = [titles[entry.document], claim_text(entry), entry.claim.where, entry.claim.published]
        if entry.claim.untestable:
            rows.append([*known, MISSING, entry.claim.untestable, MISSING, entry.verdict])
        rows += [[*known, o.test.scale, measured(o), seeds(o), o.verdict] for o in entry.shown]
    columns = ["document", "claim", "where", "published", "scale", "measured", "seeds", "verdict"]
    return DisplayTable(LEDGER_CAPTION, columns, rows, [False] * 6 + [True, False])


def summary_table(entries: Sequence[Entry], titles: Mapping[str, str]) -> DisplayTable:
    """How many claims of each document have each verdict."""
    rows = []
    for name in dict.fromkeys(entry.document for entry in entries):
        verdicts = Counter(entry.verdict for entry in entries if entry.document == name)
        rows.append([titles[name], *(str(verdicts[v]) for v in VERDICTS), str(verdicts.total())])
    verdicts = Counter(entry.verdict for entry in entries)
    rows.append(["all", *(str(verdicts[verdict]) for verdict in VERDICTS), str(verdicts.total())])
    caption = "Claims by verdict; a verdict is the paper's scale's where that was run, else the reduced scale's."
    return DisplayTable(caption, ["document", *VERDICTS, "claims"], rows, [False] + [True] * (len(VERDICTS) + 1))


def ledger_markdown(entries: Sequence[Entry], titles: Mapping[str, str]) -> str:
    """The whole ledger as a document."""
    summary, table = summary_table(entries, titles), ledger_table(entries, titles)
    rules = [f"- **{entry.claim.id}** " + " ".join(_rules(entry)) for entry in entries]
    return "\n".join(["# Claims", "", markdown(summary), "## Ledger", "", markdown(table), "## Rules", "", *rules, ""])


def _rules(entry: Entry) -> list[str]:
    if entry.claim.untestable:
        return [f"Not testable: {entry.claim.untestable}."]
    claim = entry.claim
    notes = ([claim.note] if claim.note else []) + ([f"Revised: {claim.revised}"] if claim.revised else [])
    return [text for test in entry.claim.tests for text in (rule_text(test), test.note) if text] + notes


def ledger_csv(entries: Sequence[Entry]) -> str:
    """A tidy table: a row for each claim, scale and case."""
    rows: list[dict[str, object]] = []
    for entry in entries:
        claim: dict[str, object] = {
            "document": entry.document,
            "claim": entry.claim.id,
            "published": entry.claim.published,
            "claim_verdict": entry.verdict,
        }
        if not entry.outcomes:
            rows.append({**claim, "problem": entry.claim.untestable})
        for outcome in entry.outcomes:
            test = {
                "scale": outcome.test.scale,
                "rule": rule_text(outcome.test.rule),
                "verdict": outcome.verdict,
            }
            rows += [{**claim, **test, **_case(case)} for case in outcome.cases]
    columns = ["document", "claim", "published", "claim_verdict", "scale", "rule", "verdict", "case", "mean", "low"]
    columns += ["high", "seeds", "p_reproduced", "p_contradicted", "problem"]
    frame = pd.DataFrame(rows, columns=columns).astype({"seeds": "Int64"})
    return csv_text(frame)


def _case(case: CaseOutcome) -> dict[str, object]:
    found = case.interval
    known = found is not None and found.half_width is not None
    return {
        "case": case.label,
        "mean": found.mean if found else None,
        "low": found.low if found and known else None,
        "high": found.high if found and known else None,
        "seeds": found.n if found else None,
        "p_reproduced": case.p_reproduced,
        "p_contradicted": case.p_contradicted,
        "problem": case.problem,
    }
