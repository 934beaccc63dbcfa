"""The ledger: every claim with its published value, its measurements and its verdict, as text."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from sparse_bench.evidence.csv_tables import csv_text
from sparse_bench.evidence.display import MISSING, DisplayTable, interval, markdown, whole
from sparse_bench.evidence.names import quantity
from sparse_bench.evidence.statistics import Interval
from sparse_bench.evidence.verdicts import DECIDED, VERDICTS, CaseOutcome, Entry, Outcome
from sparse_bench.papers.claims import Resolved, Test, is_exact
from sparse_bench.papers.schema import Comparison, Measure, Origin
from sparse_bench.record import write_together

#: Words before a quantity, and the sign between the two sides that are compared.
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
#: Columns of the summary: what decided a verdict, an exact count or measurements at a scale.
_GROUNDS = {"counts": "by counts"} | {str(scale): text[0].lower() + text[1:] for scale, text in _SCALES.items()}
LEDGER_CAPTION = (
    "Measured: mean over seeds ± half-width of the 95 % t-interval. Differences and ratios are paired over seeds. "
    "Counts and benchmarks are single numbers. Rows without a claim belong to the claim above. No rule judges a row "
    "marked “not judged”. Rule: a rule written “before the runs” was committed before the first run that it judges; "
    "every other rule is “post hoc”. Scale: “paper” is the paper's own; a “stand-in” has the paper's size, on another "
    "corpus, because the paper's is not available; “reduced” is smaller."
)
#: How a claim gets its verdict.
VERDICT_RULE = (
    "Each claim is judged at the paper's own scale. Where that was not run, or has too few seeds to decide, the claim "
    "is judged at the first of these scales that decides it, and labelled so: a stand-in for the paper's corpus, a "
    "benchmark, the reduced scale. If a claim has several tests at one scale, all must be reproduced. One contradicted "
    "test contradicts the claim."
)
#: What changed in the verdicts of earlier ledgers.
_VERDICT_REVISED = (
    "This procedure was changed after runs existed. Before, a claim was judged at the first scale with any run, even a "
    "single seed, and by the first of several tests there."
)
#: Verdict of a row that no rule judges.
_NOT_JUDGED = "not judged"


def rule_text(test: Resolved) -> str:
    """A rule at one scale in words: what is compared, and which values confirm or contradict the claim."""
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
        return f"{what} Shown with the claim; no rule judges it."
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
    """Replace hyphens before numbers by minus signs."""
    return re.sub(r"(?<!\w)-(?=[\d.])", "−", text)


def measured(outcome: Outcome, brief: bool = False) -> str:
    """A test's measurements, case by case; ``brief``: without remarks on realised densities."""
    if outcome.verdict == "not run":
        return "not run"
    parts = []
    for case in outcome.cases:
        text = number(case.interval, outcome.test) if case.interval is not None else case.problem
        remark = "; ".join(one for one in case.remark.split("; ") if not (brief and one.startswith("realised density")))
        text += f" ({remark})" if remark else ""
        parts.append(f"{case.label}: {text}" if case.label else text)
    return "; ".join(parts)


def number(found: Interval, test: Resolved) -> str:
    """A measured value: an exact number has no interval, and a count no decimals."""
    signed = test.rule.measure == "difference"
    exact = found.half_width == 0.0 and (test.scale == "benchmark" or test.rule.of.startswith(("count:", "macs:")))
    if not exact:
        return interval(found, signed=signed)
    if abs(found.mean) >= 1000 or found.mean == round(found.mean):
        return whole(found.mean)
    return f"{found.mean:.3g}"


def seeds(outcome: Outcome) -> str:
    """The number of seeds of an outcome; a dash for a benchmark."""
    if outcome.seeds is None or outcome.test.scale == "benchmark":
        return MISSING
    low, high = outcome.seeds
    return str(low) if low == high else f"{low} to {high}"


def rule_written(entry: Entry) -> str:
    """Whether the rule was committed before the first run that it judges; a dash without a rule."""
    if entry.claim.untestable:
        return MISSING
    return "before the runs" if entry.claim.registered else "post hoc"


def revisions(entries: Sequence[Entry]) -> str:
    """How many criteria are older than the runs that they judge, as three sentences that add up."""
    registered = [entry for entry in entries if entry.claim.registered]
    changed = sum(bool(entry.claim.revised) for entry in registered)
    later = [entry for entry in entries if entry.claim.tests and not entry.claim.registered]
    return (
        f"Of {len(entries)} claims, {len(registered)} have a criterion that is older than its runs; {changed} of these "
        f"replaced an earlier one. {len(later)} criteria are post hoc: written or changed after a run. "
        f"{len(entries) - len(registered) - len(later)} claims are not testable."
    )


def verdict_text(entry: Entry) -> str:
    """The verdict, followed by the scale where it is not the paper's own."""
    return entry.verdict if entry.scale in ("paper", None) else f"{entry.verdict} ({entry.scale})"


def ledger_table(entries: Sequence[Entry], titles: Mapping[str, str]) -> DisplayTable:
    """One row a measurement. Only the first row of a claim repeats the claim.

    Args:
        entries: the decided claims.
        titles: the documents' short titles, by name.
    """
    rows = []
    for entry in entries:
        known = [titles[entry.document], entry.claim.text, entry.claim.where, entry.claim.published]
        found = [[MISSING, entry.claim.untestable, MISSING, entry.verdict, MISSING]] if entry.claim.untestable else []
        for outcome in entry.shown:
            judged = [outcome.verdict or _NOT_JUDGED, rule_written(entry)] if outcome.judged else [_NOT_JUDGED, MISSING]
            found.append([outcome.test.scale, measured(outcome), seeds(outcome), *judged])
        rows += [[*(known if place == 0 else [""] * len(known)), *cells] for place, cells in enumerate(found)]
    columns = ["document", "claim", "where", "published", "scale", "measured", "seeds", "verdict", "rule"]
    return DisplayTable(LEDGER_CAPTION, columns, rows, [False] * 6 + [True, False, False])


def summary_table(entries: Sequence[Entry], titles: Mapping[str, str]) -> DisplayTable:
    """The number of claims by document and verdict, and what decided the decided ones."""
    rows = []
    named = {titles[entry.document]: [e for e in entries if e.document == entry.document] for entry in entries}
    for title, found in {**named, "all": list(entries)}.items():
        verdicts = Counter(entry.verdict for entry in found)
        grounds = Counter(_ground(entry) for entry in found)
        counts = [*(verdicts[v] for v in VERDICTS), len(found), *(grounds[g] for g in _GROUNDS)]
        rows.append([title, *map(str, counts)])
    caption = (
        f"Claims by verdict. {VERDICT_RULE} The last columns say what decided the reproduced and contradicted claims: "
        "a count, or measurements at a scale. A count follows from the configuration. It is weak evidence where a size "
        "that the document does not give was chosen to fit its counts, as Rasa's widths were."
    )
    columns = ["document", *VERDICTS, "claims", *_GROUNDS.values()]
    return DisplayTable(caption, columns, rows, [False] + [True] * (len(columns) - 1))


def _deciding(entry: Entry) -> list[Outcome]:
    """The judged outcomes at the scale that decides a claim."""
    return [outcome for outcome in entry.outcomes if outcome.judged and outcome.test.scale == entry.scale]


def _ground(entry: Entry) -> str | None:
    """What decided a claim, one of ``_GROUNDS``; None for an undecided claim."""
    if entry.verdict not in DECIDED:
        return None
    counted = entry.scale != "benchmark" and all(is_exact(outcome.test.rule.of) for outcome in _deciding(entry))
    return "counts" if counted else entry.scale


def headline_table(entries: Sequence[Entry], titles: Mapping[str, str], *, brief: bool = False) -> DisplayTable:
    """The headline claims in plain English, a row each, with the measurements behind the verdict.

    Args:
        entries: the decided claims.
        titles: the documents' short titles, by name.
        brief: for the project's README: fewer words, no realised densities, the scale with the verdict.
    """
    rows = []
    for entry in (entry for entry in entries if entry.claim.headline):
        deciding = _deciding(entry)
        texts = dict.fromkeys(_told(outcome, entry.claim.unit, brief) for outcome in deciding)
        ours = "; ".join(texts) or (MISSING if brief else "not run")
        counted = seeds(deciding[0]) if deciding else MISSING
        notes = [str(entry.scale)] if brief and entry.scale not in ("paper", None) else []
        notes += [] if entry.claim.registered or (brief and entry.verdict == "not run") else ["post hoc"]
        verdict = f"{entry.verdict} ({', '.join(notes)})" if notes else entry.verdict
        scale = [] if brief else [entry.scale or MISSING]
        rows.append(
            [titles[entry.document], entry.claim.headline, entry.claim.published, ours, *scale, counted, verdict]
        )
    columns = ["paper" if brief else "document", "claim", "published", "ours"]
    columns += [*([] if brief else ["scale"]), "seeds", "verdict"]
    return DisplayTable("", columns, rows, [column == "seeds" for column in columns])


def _told(outcome: Outcome, unit: str, brief: bool) -> str:
    """A judged test's measurements after their quantity, such as "perplexity (valid), ratio: 1.02 ± 0.01"."""
    rule = outcome.test.rule
    name = quantity(rule.of)
    if brief:  # a difference is recognised by its sign
        short = name.partition(" (")[0].partition(",")[0] + (" ratio" if rule.measure == "ratio" else "")
        return f"{unit + ':' if unit else short} {measured(outcome, brief=True)}"
    kind = {"value": "", "difference": ", difference", "ratio": ", ratio"}[rule.measure]
    return "not run" if outcome.verdict == "not run" else f"{unit or name + kind}: {measured(outcome)}"


def ledger_markdown(entries: Sequence[Entry], titles: Mapping[str, str]) -> str:
    """The whole ledger as a Markdown document."""
    summary, table = summary_table(entries, titles), ledger_table(entries, titles)
    rules = [f"- **{entry.claim.id}** " + " ".join(_rules(entry)) for entry in entries]
    head = ["# Claims", "", revisions(entries), "", markdown(summary), _VERDICT_REVISED, ""]
    return "\n".join([*head, "## Ledger", "", markdown(table), "## Rules", "", *rules, ""])


def _rules(entry: Entry) -> list[str]:
    claim = entry.claim
    texts = [f"Not testable: {claim.untestable}."] if claim.untestable else []
    for rule in claim.rules:
        texts += [*map(rule_text, rule.resolved()), rule.note]
    texts += [claim.note, f"Revised: {claim.revised}" if claim.revised else ""]
    return [text for text in texts if text]


def write_ledger(entries: Sequence[Entry], titles: Mapping[str, str], folder: Path) -> None:
    """Write ``claims.md`` and ``claims.csv`` into an existing ``folder``."""
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
