"""Recompute every headline claim from the committed tables, without any code of the ledger.

    python scripts/recheck_claims.py

Reads the rules (``claims.yaml``) and the tables (``runs.csv``, ``curves.csv``, ``settings.csv``, benchmarks), computes
means, 95 % intervals and verdicts, and compares them with ``results/claims.csv``. Exits with 1 if anything differs.
"""

import json
import math
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
PAPERS = ("rasa", "brouns", "demeester", "sparselang", "embeddings")
SCALES = ("paper", "stand-in", "benchmark", "reduced")
Rule = dict[str, Any]


class Case(NamedTuple):
    """One comparison: whether it was run, and its values, one a seed; counts and benchmarks have no error."""

    run: bool
    values: list[float]
    exact: bool


@cache
def scale_of(experiment: str) -> str:
    """The scale that the configuration gives an experiment; the paper's own by default."""
    for path in [*(ROOT / "conf/experiment").rglob("*.yaml"), *(ROOT / "conf/sweep").rglob("*.yaml")]:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if content.get("experiment_name") == experiment:
            return str(content.get("scale", "paper"))
    return "paper"


def same(cell: Any, wanted: Any) -> bool:
    """Whether a cell of a table holds a value of a rule, as a number or as text."""
    if any(isinstance(value, float) and math.isnan(value) for value in (cell, wanted)):
        return False
    try:
        return float(cell) == float(wanted)
    except (TypeError, ValueError):
        return str(cell) == str(wanted)


def side_at(rule: Rule, side: Rule, scale: str) -> tuple[str, str, Rule] | None:
    """Experiment, table and conditions of a side at one scale; None if it has nothing there."""
    where = {**rule.get("where", {}), **side.get("where", {})}
    if "table" in side:
        return ("", side["table"], where) if scale == "benchmark" else None
    named = side.get("experiment", rule.get("experiment"))
    names = named if isinstance(named, dict) else {scale_of(named): named}
    return (names[scale], "", where) if scale in names and scale != "benchmark" else None


def runs_of(experiment: str, where: Rule, any_length: bool) -> tuple[pd.DataFrame, Path] | None:
    """The finished runs of an experiment that fit, as shipped, and their paper's folder.

    Counts also take runs of which the length of training alone was altered, where there are no others.
    """
    for folder in (RESULTS / paper for paper in PAPERS if (RESULTS / paper / "runs.csv").is_file()):
        table = pd.read_csv(folder / "runs.csv", dtype=str)
        table = table[(table["experiment"] == experiment) & (table["status"] == "finished")]
        altered = table["altered"].fillna("") if "altered" in table else pd.Series("", index=table.index)
        length = altered.str.fullmatch(r"((^|; )(trainer\.(epochs|steps)|dataset\.batch_epochs): [^;]*)+")
        settings = pd.read_csv(folder / "settings.csv", keep_default_na=False)
        shared = {row.setting: json.loads(str(row.value)) for row in settings.itertuples()}
        for part in (table[altered == ""], table[length] if any_length else table[:0]):
            found = part
            for name, wanted in where.items():
                column = next((c for c in (f"label:{name}", f"setting:{name}") if c in found), None)
                fits = [same(cell, wanted) for cell in (found[column] if column else [shared.get(name)] * len(found))]
                found = found[np.array(fits, dtype=bool)]
            if len(found):
                return found, folder
    return None


def by_seed(found: tuple[pd.DataFrame, Path], of: str, epochs: str | None) -> dict[int, float]:
    """The value of each seed: a column of the runs, or a mean over the last epochs of the learning curves."""
    runs, folder = found
    if runs["seed"].duplicated().any():
        raise SystemExit(f"several runs of one seed: {', '.join(runs['id'])}")
    if epochs is None:
        column = of if of in runs else f"metric:{of}"
        return {int(row["seed"]): float(row[column]) for _, row in runs.iterrows()}
    last = int(epochs.removeprefix("last "))
    curves = pd.read_csv(folder / "curves.csv", dtype={"seed": str})
    curves = curves[(curves["metric"] == of) & curves["id"].isin(set(runs["id"]))]
    parts = {int(str(seed)): part.sort_values("epoch")["value"] for seed, part in curves.groupby("seed")}
    return {seed: float(part.tail(last).mean()) for seed, part in parts.items() if len(part) >= last}


def measured(rule: Rule, case: Rule, scale: str) -> Case | None:
    """One case of a rule at one scale; None if the rule does not speak of that scale."""
    found = [side_at(rule, case[key], scale) for key in ("first", "second") if key in case]
    sides = [side for side in found if side is not None]
    if len(sides) < len(found):
        return None
    of, exact = rule["of"], rule["of"].startswith(("count:", "macs:"))
    if sides[0][1]:
        table = pd.read_csv(RESULTS / sides[0][1], comment="#")  # comments say how a table was made
        rows = [row for _, row in table.iterrows() if all(same(row[k], v) for k, v in sides[0][2].items())]
        return Case(True, [float(row[of]) for row in rows], True)
    columns = []
    for experiment, _, where in sides:
        runs = runs_of(experiment, where, any_length=of.startswith("count:"))
        if runs is None:
            return Case(False, [], exact)
        columns.append(by_seed(runs, of, case.get("epochs", rule.get("epochs"))))
    seeds = sorted(set.intersection(*map(set, columns)))
    compare = {"value": lambda a: a, "difference": lambda a, b: a - b, "ratio": lambda a, b: a / b}[rule["measure"]]
    return Case(bool(seeds), [compare(*(column[seed] for column in columns)) for seed in seeds], exact)


def p_in(case: Case, region: str) -> float:
    """One-sided p-value for the mean to lie in a region; 1 if the seeds are too few to say."""
    words = region.split()
    low, high = {
        "above": (words[1], "inf"),
        "below": ("-inf", words[1]),
        "exactly": (words[1], words[1]),
    }.get(words[0], (words[1], words[-1]))
    bounds = float(low), float(high)
    values = np.array(case.values)
    if case.exact:
        inside = bounds[0] <= values.mean() <= bounds[1]
        if math.isinf(bounds[0]) or math.isinf(bounds[1]):
            inside = bounds[0] < values.mean() < bounds[1]
        return 0.0 if bool(inside) != (words[0] == "outside") else 1.0
    if len(values) < 2 or (np.ptp(values) == 0 and len(values) < 3):
        return 1.0
    error = values.std(ddof=1) / math.sqrt(len(values))
    p_above, p_below = (
        float(stats.t.sf(sign * (values.mean() - bound) / error, len(values) - 1))
        for sign, bound in zip((1, -1), bounds, strict=True)
    )
    # Outside means wholly below the lower or wholly above the upper border.
    return min(1 - p_above, 1 - p_below) if words[0] == "outside" else max(p_above, p_below)


def decide(rule: Rule, cases: list[Case]) -> str:
    """A rule's verdict: all cases inside the one region, or any inside the other after Holm's correction."""
    if not any(case.run for case in cases):
        return "not run"
    against = sorted(p_in(case, rule["contradicted"]) if case.run else 1.0 for case in cases)
    if against[0] * len(against) <= 0.025:
        return "contradicted"
    inside = [case.run and p_in(case, rule["reproduced"]) <= 0.025 for case in cases]
    return "reproduced" if all(inside) else "inconclusive"


def main() -> int:
    """Recompute, print a line a claim, and compare."""
    ledger = pd.read_csv(RESULTS / "claims.csv", keep_default_na=False)
    faults = 0
    for paper in PAPERS:
        text = (ROOT / f"sparse_bench/papers/{paper}/claims.yaml").read_text(encoding="utf-8")
        for claim in (claim for claim in yaml.safe_load(text)["claims"] if claim.get("headline")):
            verdicts: dict[str, set[str]] = {}
            enough: dict[str, bool] = {}
            for scale in SCALES:
                for rule in claim["tests"]:
                    cases = [measured(rule, case, scale) for case in rule["cases"]]
                    known = [case for case in cases if case is not None]
                    if not known or len(known) < len(cases):
                        continue
                    verdicts.setdefault(scale, set()).add(decide(rule, known))
                    several = [case.run and (case.exact or len(case.values) > 1) for case in known]
                    enough[scale] = enough.get(scale, True) and all(several)
                    faults += differing(ledger, claim["id"], scale, rule, known)
            verdict = joint(verdicts, enough)
            rows = ledger[ledger["claim"] == claim["id"]]
            told = str(rows["claim_verdict"].iloc[0])
            faults += told != verdict
            print(f"{claim['id']}: {verdict}{'' if told == verdict else f', and the ledger says {told}'}")
    print(f"{faults} differences between this computation and results/claims.csv")
    return 1 if faults else 0


def joint(verdicts: dict[str, set[str]], enough: dict[str, bool]) -> str:
    """A claim's verdict: that of the first decided scale, unless an earlier one had runs enough and did not decide."""
    run = [scale for scale in SCALES if verdicts.get(scale, {"not run"}) != {"not run"}]
    first = "not run"
    for scale in run:
        found = verdicts[scale]
        verdict = "contradicted" if "contradicted" in found else found.pop() if len(found) == 1 else "inconclusive"
        first = verdict if scale == run[0] else first
        if verdict in ("reproduced", "contradicted"):
            return verdict
        if enough[scale]:
            break
    return first


def differing(ledger: pd.DataFrame, claim: str, scale: str, rule: Rule, cases: list[Case]) -> int:
    """How many means and intervals of one rule differ from the ledger's, which are printed."""
    faults = 0
    rows = ledger[(ledger["claim"] == claim) & (ledger["scale"] == scale)]
    for case, spec in zip(cases, rule["cases"], strict=True):
        if not case.run:
            continue
        values = np.array(case.values)
        half = 0.0 if case.exact or len(values) < 2 else stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
        wanted = [values.mean(), values.mean() - half, values.mean() + half]
        told = [
            [float(row[column] or row["mean"]) for column in ("mean", "low", "high")]  # one seed has no interval
            for _, row in rows.iterrows()
            if row["case"] == spec.get("label", "") and row["mean"] != ""
        ]
        if not any(np.allclose(found, wanted, rtol=1e-5, atol=1e-9) for found in told):
            faults += 1
            print(f"  {claim}, {scale}, {spec.get('label', '')}: {wanted} here, {told} in the ledger")
    return faults


if __name__ == "__main__":
    sys.exit(main())
