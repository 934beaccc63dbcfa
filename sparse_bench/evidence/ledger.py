"""The ledger: every claim with its published value, what was measured, and the verdict, as text."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from sparse_bench.evidence.display import MISSING, DisplayTable, interval, markdown, whole
from sparse_bench.evidence.names import quantity
from sparse_bench.evidence.statistics import Interval
from sparse_bench.evidence.store import csv_text
from sparse_bench.evidence.verdicts import DECIDED, VERDICTS, CaseOutcome, Entry, Outcome
from sparse_bench.papers.claims import Resolved, Test, is_exact
from sparse_bench.papers.schema import Comparison, Measure, Origin
from sparse_bench.record import write_together

#: What is said before a quantity, and between the two sides that are compared in it.
_MEASURES: dict[Measure, tuple[str, str]] = {
    "value": ("", ""),
    "difference": ("difference in ", " − "),
    "ratio": ("ratio of ", " / "),
}
_SCALES: dict[Origin, str] = {
    "paper": "At the paper's scale",
    "stand-in": "On a stand-in",
    "benchmark": "In a benchmark",
    "reduced": "At reduced scale",
}
#: What decided a verdict, an exact count or measurements at a scale, as the summary's columns say it.
_GROUNDS = {"counts": "by counts"} | {str(scale): text[0].lower() + text[1:] for scale, text in _SCALES.items()}
LEDGER_CAPTION = (
    "Measured: mean over seeds ± half-width of the 95 % t-interval, differences and ratios paired over seeds; counts "
    "and benchmarks are single numbers. A rule is post hoc where it was written or changed after a run that it judges. "
    "Scales: the paper's; a stand-in, of its size on another corpus, as its own is not to be had; a benchmark; reduced."
)
#: How a claim's verdict comes about, as a sentence or two that start with it.
VERDICT_RULE = (
    "A verdict is the paper's scale's. Where that was not run, or has too few seeds to decide anything, it is the "
    "first decided one of a stand-in for the paper's corpus, a benchmark and the reduced scale, and says so. Of "
    "several tests at one scale all have to be reproduced; one that is contradicted contradicts."
)
#: What a reader of an earlier ledger has to know of it.
_VERDICT_REVISED = (
    "How verdicts come about was revised when runs were there: a verdict had been that of the first scale with any "
    "run, be it a single seed, and of several tests there the first."
)


def rule_text(test: Resolved) -> str:
    """A rule at one scale in words: what is compared, and where the interval has to lie."""
    rule = test.rule
    before, between = _MEASURES[rule.measure]
    what = f"{before}{quantity(rule.of)}" if test.scale != "benchmark" else f"{before}column “{rule.of}”"
    if rule.biases:
        what += f" and {rule.biases:,} biases"
    each = {comparison.epochs for _, comparison in test.cases}
    if len(each) == 1 and (epochs := each.pop()):
        what += f", {_epochs(epochs)}"
    compared = "; ".join(_sides(comparison, between, rule.epochs) for _, comparison in test.cases)
    what = f"{_SCALES[test.scale]}, {what}: {compared}."
    if not isinstance(rule, Test):
        return f"{what} Measured beside the claim, judged by no rule."
    every = " in every case" if len(rule.cases) > 1 else ""
    some = " in any, Holm-corrected" if len(rule.cases) > 1 else ""
    return (
        f"{what} Reproduced {minus(rule.reproduced.text)}{every}, contradicted {minus(rule.contradicted.text)}{some}."
    )


def _sides(comparison: Comparison, between: str, epochs: str | None) -> str:
    sides = between.join(map(str, comparison.sides))
    own = comparison.epochs if comparison.epochs != epochs else None
    return f"{sides} at {_epochs(own)}" if own else sides


def _epochs(epochs: str) -> str:
    if epochs in ("lowest", "highest"):
        return f"{epochs} of all epochs"
    kind, number = epochs.split()
    if kind == "epoch":
        return epochs
    return "last epoch" if number == "1" else f"mean of the last {number} epochs"


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
        text += f" ({case.remark})" if case.remark else ""
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


def rule_written(entry: Entry) -> str:
    """Whether the rule is older than every run that it judges."""
    if entry.claim.untestable:
        return MISSING
    return "before the runs" if entry.claim.registered else "post hoc"


def verdict_text(entry: Entry) -> str:
    """The verdict, with the scale where it is not the paper's."""
    return entry.verdict if entry.scale in ("paper", None) else f"{entry.verdict} ({entry.scale})"


def ledger_table(entries: Sequence[Entry], titles: Mapping[str, str]) -> DisplayTable:
    """One row a claim and scale.

    Args:
        entries: the decided claims.
        titles: of the documents, by name.
    """
    rows = []
    for entry in entries:
        known = [titles[entry.document], entry.claim.text, entry.claim.where, entry.claim.published]
        if entry.claim.untestable:
            rows.append([*known, MISSING, entry.claim.untestable, MISSING, entry.verdict, MISSING])
        written = rule_written(entry)
        rows += [[*known, o.test.scale, measured(o), seeds(o), o.verdict or MISSING, written] for o in entry.shown]
    columns = ["document", "claim", "where", "published", "scale", "measured", "seeds", "verdict", "rule"]
    return DisplayTable(LEDGER_CAPTION, columns, rows, [False] * 6 + [True, False, False])


def summary_table(entries: Sequence[Entry], titles: Mapping[str, str]) -> DisplayTable:
    """How many claims of each document have each verdict, and on what ground those were decided that are."""
    rows = []
    named = {titles[entry.document]: [e for e in entries if e.document == entry.document] for entry in entries}
    for title, found in {**named, "all": list(entries)}.items():
        verdicts = Counter(entry.verdict for entry in found)
        grounds = Counter(_ground(entry) for entry in found)
        counts = [*(verdicts[v] for v in VERDICTS), len(found), *(grounds[g] for g in _GROUNDS)]
        rows.append([title, *map(str, counts)])
    caption = (
        f"Claims by verdict. {VERDICT_RULE} The last columns say what decided those that are reproduced or "
        "contradicted: a count, which follows from the configuration (and says little where sizes that a document does "
        "not give were chosen to fit its counts, as Rasa's widths were), or measurements at a scale."
    )
    columns = ["document", *VERDICTS, "claims", *_GROUNDS.values()]
    return DisplayTable(caption, columns, rows, [False] + [True] * (len(columns) - 1))


def _ground(entry: Entry) -> str | None:
    """What decided a claim, one of ``_GROUNDS``; None if nothing has."""
    if entry.verdict not in DECIDED or entry.scale is None:
        return None
    rules = [o.test.rule for o in entry.outcomes if o.judged and o.test.scale == entry.scale]
    counted = entry.scale != "benchmark" and all(is_exact(rule.of) for rule in rules)
    return "counts" if counted else entry.scale


def headline_table(entries: Sequence[Entry], titles: Mapping[str, str]) -> DisplayTable:
    """The headline claims in plain English, a row each, with the outcome that gave the verdict."""
    rows = []
    for entry in (entry for entry in entries if entry.claim.headline):
        judged = [o for o in entry.outcomes if o.judged and o.test.scale == entry.scale]
        ours = "; ".join(dict.fromkeys(map(measured, judged))) or "not run"
        counted = next((seeds(outcome) for outcome in judged), MISSING)
        known = [titles[entry.document], entry.claim.headline, entry.claim.published]
        rows.append([*known, ours, entry.scale or MISSING, counted, entry.verdict, rule_written(entry)])
    columns = ["document", "claim", "published", "ours", "scale", "seeds", "verdict", "rule written"]
    return DisplayTable("", columns, rows, [False] * 5 + [True, False, False])


def ledger_markdown(entries: Sequence[Entry], titles: Mapping[str, str]) -> str:
    """The whole ledger as a document."""
    summary, table = summary_table(entries, titles), ledger_table(entries, titles)
    rules = [f"- **{entry.claim.id}** " + " ".join(_rules(entry)) for entry in entries]
    head = ["# Claims", "", markdown(summary), _VERDICT_REVISED, ""]
    return "\n".join([*head, "## Ledger", "", markdown(table), "## Rules", "", *rules, ""])


def _rules(entry: Entry) -> list[str]:
    claim = entry.claim
    texts = [f"Not testable: {claim.untestable}."] if claim.untestable else []
    for rule in (*claim.tests, *claim.beside):
        texts += [*map(rule_text, rule.resolved()), rule.note]
    texts += [claim.note, f"Revised: {claim.revised}" if claim.revised else ""]
    return [text for text in texts if text]


def write_ledger(entries: Sequence[Entry], titles: Mapping[str, str], folder: Path) -> None:
    """``claims.md`` and ``claims.csv`` in ``folder``, which is there."""
    texts = {"claims.md": ledger_markdown(entries, titles), "claims.csv": ledger_csv(entries)}
    write_together({folder / name: text.encode() for name, text in texts.items()})


def ledger_csv(entries: Sequence[Entry]) -> str:
    """A tidy table: a row for each claim, scale and case."""
    rows: list[dict[str, object]] = []
    for entry in entries:
        claim: dict[str, object] = {
            "document": entry.document,
            "claim": entry.claim.id,
            "published": entry.claim.published,
            "claim_verdict": entry.verdict,
            "claim_scale": entry.scale,
        }
        if entry.claim.untestable:
            rows.append({**claim, "problem": entry.claim.untestable})
        for outcome in entry.outcomes:
            test = {
                "scale": outcome.test.scale,
                "rule": rule_text(outcome.test),
                "verdict": outcome.verdict,
            }
            rows += [{**claim, **test, **_case(case)} for case in outcome.cases]
    columns = ["document", "claim", "published", "claim_verdict", "claim_scale", "scale", "rule", "verdict", "case"]
    columns += ["mean", "low", "high", "seeds", "p_reproduced", "p_contradicted", "problem"]
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
        "problem": "; ".join(filter(None, [case.problem, case.remark])),
    }
