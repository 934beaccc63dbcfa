"""Answers to the questions that were asked before the runs, by the rules below.

Differences are of normalised scores, paired over the seeds that both sides have. A mean over tasks weighs all tasks
alike. Its 95 % interval and its p-value are those of Welch's t: tasks are strata, seeds the repetitions in them. A
difference is shown if its p-value, one-sided and after Holm's correction over the question's comparisons, is at most
0.025. A question that lacks the runs of a part is answered "not run".

    better    For each scheme and density: is the mean difference to ``against`` shown to be above zero? The tasks are
              named whose own 95 % interval lies above zero. "yes" if any is shown; "no" if none is, and the interval of
              each lies below 0.02; else "open".
    explains  Over ``densities``: G, the first scheme's gain over ``against``; C, its lead over the second scheme, which
              lacks the suspected cause; R, the second scheme's gain. "no gain" unless G is shown. "yes" if C is shown
              and R is not, "in part" if both are, "no" if R is shown and C is not; else "open".
    faster    For each task: the largest density from which on the mean processor seconds of training, computed with
              existing weights only, are below the dense model's; at all smaller densities too.
    best      For each density: the scheme of highest interquartile mean among those with three seeds on all tasks,
              and all from which it is not shown to differ: the interval of its probability of improvement reaches 0.5
              or less.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field
from scipy import stats

from sparse_bench.benchmark.cells import DENSE, Cell, Key
from sparse_bench.benchmark.statistics import Normal, improvement, of_scheme, paired, summary
from sparse_bench.benchmark.tasks import TASKS
from sparse_bench.evidence.display import decimal, percent
from sparse_bench.evidence.statistics import CONFIDENCE, ENOUGH, Interval, holm, mean_interval
from sparse_bench.papers.schema import Strict, read_description

FILE = Path(__file__).with_name("questions.yaml")
#: One-sided level at which a difference is shown.
_LEVEL = (1 - CONFIDENCE) / 2
#: A gain below this share of the distance between the dense model and the baseline counts as none.
_NONE = 0.02


class Question(Strict):
    """A question; see the module for its kinds."""

    id: str = Field(pattern=r"[a-z0-9]+(-[a-z0-9]+)*")
    question: str
    kind: Literal["better", "explains", "faster", "best"]
    schemes: list[str] = Field(min_length=1)
    against: str
    densities: list[float] = Field(min_length=1)


class Questions(Strict):
    """The file of questions."""

    registered: str = Field(default="", pattern=r"^([0-9a-f]{40})?$")
    questions: list[Question]


@dataclass(frozen=True)
class Answer:
    """An answer: in a word or two, and the measurements that it rests on, a sentence each."""

    question: Question
    answer: str
    details: Sequence[str]


def read_questions() -> Questions:
    """The questions, checked.

    Raises:
        DescriptionError: the file does not follow the form.
    """
    return read_description(FILE, Questions)


def answers(found: Mapping[Key, Cell], normal: Normal) -> list[Answer]:
    """Answer all questions from the cells and their normalised scores."""
    kinds: dict[str, Callable[[Question, Mapping[Key, Cell], Normal], Answer]] = {
        "better": _better,
        "explains": _explains,
        "faster": _faster,
        "best": _best,
    }
    return [kinds[question.kind](question, found, normal) for question in read_questions().questions]


def over_strata(parts: Sequence[np.ndarray]) -> tuple[Interval, float | None]:
    """Mean over strata of equal weight, with its 95 % interval, and the one-sided p-value of a mean above zero.

    Args:
        parts: the values of each stratum; those with fewer than three seeds give no interval.

    Returns:
        The interval, and the p-value; None without an interval.
    """
    mean, n = math.fsum(float(part.mean()) for part in parts) / len(parts), sum(map(len, parts))
    if any(len(part) < ENOUGH for part in parts):
        return Interval(mean, None, n), None
    variances = [float(part.var(ddof=1)) / len(part) for part in parts]
    error = math.sqrt(math.fsum(variances)) / len(parts)
    if error == 0.0:
        return Interval(mean, 0.0, n), 0.0 if mean > 0 else 1.0
    # Welch and Satterthwaite's degrees of freedom.
    degrees = math.fsum(variances) ** 2 / math.fsum(v**2 / (len(p) - 1) for v, p in zip(variances, parts, strict=True))
    half = float(stats.t.ppf(1 - _LEVEL, degrees)) * error
    return Interval(mean, half, n), float(stats.t.sf(mean / error, degrees))


def _better(question: Question, found: Mapping[Key, Cell], normal: Normal) -> Answer:
    compared = []
    for scheme, density in product(question.schemes, question.densities):
        if by_task := paired(normal, scheme, question.against, density):
            compared.append((scheme, density, by_task, *over_strata(list(by_task.values()))))
    known = [one for one in compared if one[4] is not None]
    if not known:
        return Answer(question, "not run", ())
    corrected = holm([p for *_, p in known if p is not None])
    details, shown = [], 0
    for (scheme, density, by_task, interval, _), p in zip(known, corrected, strict=True):
        if p > _LEVEL:
            continue
        shown += 1
        where = [task for task, values in by_task.items() if mean_interval(list(values)).low > 0]
        tasks = f"; by itself on {', '.join(where)}" if where else ""
        details.append(f"{scheme} at {percent(density)}: {_text(interval)} over {len(by_task)} tasks{tasks}.")
    small = all(interval.high < _NONE for _, _, _, interval, _ in known)
    details.append(f"Shown in {shown} of {len(known)} comparisons.")
    return Answer(question, "yes" if shown else "no" if small else "open", details)


def _explains(question: Question, found: Mapping[Key, Cell], normal: Normal) -> Answer:
    with_cause, without = question.schemes
    pairs = {
        "gain": (with_cause, question.against),
        "lead": (with_cause, without),
        "rest": (without, question.against),
    }
    measured = {}
    for name, (first, second) in pairs.items():
        by_task = [paired(normal, first, second, density) for density in question.densities]
        parts = [values for one in by_task for values in one.values()]
        if not parts or over_strata(parts)[1] is None:
            return Answer(question, "not run", ())
        measured[name] = over_strata(parts)
    corrected = holm([p for _, p in measured.values() if p is not None])
    shown = {name: p <= _LEVEL for name, p in zip(measured, corrected, strict=True)}
    details = [f"{pairs[name][0]} − {pairs[name][1]}: {_text(interval)}." for name, (interval, _) in measured.items()]
    if not shown["gain"]:
        return Answer(question, "no gain", details)
    kinds = {(True, False): "yes", (True, True): "in part", (False, True): "no", (False, False): "open"}
    return Answer(question, kinds[shown["lead"], shown["rest"]], details)


def _faster(question: Question, found: Mapping[Key, Cell], normal: Normal) -> Answer:
    (scheme,), details = question.schemes, []
    for task in TASKS:
        dense = found.get((task.name, DENSE, 1.0))
        timed = {
            d: found[task.name, scheme, d].kernel_seconds for d in question.densities if (task.name, scheme, d) in found
        }
        if dense is None or len(timed) < len(question.densities) or not all(timed.values()):
            continue
        ratios = {d: float(np.mean(seconds)) / float(np.mean(dense.seconds)) for d, seconds in sorted(timed.items())}
        begin = None
        for density, ratio in ratios.items():  # from the smallest density on
            if ratio >= 1:
                break
            begin = density
        least = min(ratios, key=lambda density: ratios[density])
        where = f"from {percent(begin)} on" if begin is not None else "nowhere"
        details.append(f"{task.title}: {where}; at {percent(least)} {ratios[least]:.2f} of the dense model's seconds.")
    if len(details) < len(TASKS):
        return Answer(question, "not run", details)
    number = sum("nowhere" not in one for one in details)
    return Answer(question, f"on {number} of {len(TASKS)} tasks", details)


def _best(question: Question, found: Mapping[Key, Cell], normal: Normal) -> Answer:
    picks, details = [], []
    for density in question.densities:
        by_scheme = {scheme: of_scheme(normal, scheme, density) for scheme in question.schemes}
        ran = {
            scheme: by_task
            for scheme, by_task in by_scheme.items()
            if len(by_task) == len(TASKS) and min(map(len, by_task.values())) >= ENOUGH
        }
        if question.against not in ran:
            return Answer(question, "not run", ())
        means = {scheme: summary(by_task) for scheme, by_task in ran.items()}
        best = max(means, key=lambda scheme: means[scheme].value)
        like = [s for s in ran if s != best and not improvement(ran[best], ran[s]).above(0.5)]
        picks.append(f"{best} at {percent(density)}")
        one = means[best]
        others = f"not shown to differ: {', '.join(like)}" if like else "shown to differ from all others"
        details.append(f"{percent(density)}: {best}, {one.value:.3f} ({one.low:.3f} to {one.high:.3f}); {others}.")
    return Answer(question, ", ".join(picks), details)


def _text(interval: Interval) -> str:
    return f"{decimal(interval.mean, signed=True)} ± {decimal(interval.half_width)}"
