"""Tables of the benchmark: every cell with its interval, summaries over tasks, what was left out, and LaTeX."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from sparse_bench.benchmark.cells import DENSE, RANDOM, SMALL_DENSE, Cell, Key, schemes_of
from sparse_bench.benchmark.questions import Answer
from sparse_bench.benchmark.statistics import Estimate, Normal, improvement, of_scheme, summary
from sparse_bench.benchmark.tasks import TASKS
from sparse_bench.evidence.csv_tables import is_missing
from sparse_bench.evidence.display import MISSING, DisplayTable, decimal, interval, percent, whole
from sparse_bench.papers.schema import Strict, read_description


class LeftOut(Strict):
    """What was left out, and why; no tasks or densities stand for all of them."""

    schemes: list[str]
    tasks: list[str] = Field(default_factory=list)
    densities: list[float] = Field(default_factory=list)
    why: str

    def covers(self, key: Key) -> bool:
        """Whether this is about a cell."""
        task, scheme, density = key
        return (
            scheme in self.schemes
            and (not self.tasks or task in self.tasks)
            and (not self.densities or density in self.densities)
        )


class _All(Strict):
    left_out: list[LeftOut]


def left_out() -> list[LeftOut]:
    """All that was left out.

    Raises:
        DescriptionError: the file does not follow the form.
    """
    return read_description(Path(__file__).with_name("left_out.yaml"), _All).left_out


def cells_frame(found: Mapping[Key, Cell], normal: Normal) -> pd.DataFrame:
    """A row a cell: mean, interval and scores, weights, multiply-accumulates, seconds, learning rate."""
    rows = []
    for key in sorted(found, key=_order(found)):
        cell, scores = found[key], list(normal.get(key, {}).values())
        mean = cell.interval
        rows.append(
            {
                "task": cell.task.name,
                "scheme": cell.scheme,
                "density": cell.density,
                "metric": cell.task.metric,
                "mean": mean.mean,
                "half_width": mean.half_width,
                "seeds": mean.n,
                "score": float(np.mean(scores)) if scores else None,
                "realised_density": _mean(cell.realised),
                "weights": _mean(cell.weights),
                "weights_held": _mean(cell.held),
                "macs_of_training": _mean(cell.macs),
                "processor_seconds": _mean(cell.seconds),
                "processor_seconds_kernel": _mean(cell.kernel_seconds),
                "learning_rate": cell.rate,
            }
        )
    return pd.DataFrame(rows)


def summary_frame(normal: Normal) -> pd.DataFrame:
    """A row a scheme and density: interquartile mean and probabilities of improvement, with bootstrap intervals.

    Only schemes that ran on all tasks at that density have a row.
    """
    rows = []
    for density in sorted({key[2] for key in normal}, reverse=True):
        rivals = {name: of_scheme(normal, name, density) for name in (RANDOM, SMALL_DENSE)}
        for scheme in schemes_of(normal):
            by_task = of_scheme(normal, scheme, density)
            if len(by_task) < len(TASKS):
                continue
            row: dict[str, object] = {"scheme": scheme, "density": density, "runs": sum(map(len, by_task.values()))}
            row |= _columns("iqm", summary(by_task))
            for name, rival in rivals.items():
                if rival and scheme != name:
                    row |= _columns(f"better_than_{name}", improvement(by_task, rival))
            rows.append(row)
    return pd.DataFrame(rows)


def task_table(found: Mapping[Key, Cell], task: str) -> DisplayTable:
    """Metric of each scheme by density, with intervals; and its learning rate."""
    mine = {key: cell for key, cell in found.items() if key[0] == task}
    densities = sorted({key[2] for key in mine if key[1] != DENSE}, reverse=True)
    rows = []
    for scheme in schemes_of(mine):
        cells = {key[2]: cell for key, cell in mine.items() if key[1] == scheme}
        shown = [interval(cells[d].interval) if d in cells else MISSING for d in densities]
        if scheme == DENSE:
            shown = [interval(cells[1.0].interval), *[MISSING] * (len(densities) - 1)]
        held = max((cell.held[0] for cell in cells.values() if cell.held), default=None)
        rate = next(iter(cells.values())).rate
        rows.append([scheme, *shown, f"{rate:g}", whole(held)])
    title = next(one for one in TASKS if one.name == task)
    caption = (
        f"{title.title} ({title.model}): {title.metric}, mean and 95 % t-interval over seeds. The dense model's value "
        "stands in the first column. Rate: chosen learning rate. Held: most weights of these layers in training."
    )
    columns = ["scheme", *(percent(d) for d in densities), "rate", "held"]
    return DisplayTable(caption, columns, rows, [False, *[True] * (len(columns) - 1)])


def summary_table(frame: pd.DataFrame) -> DisplayTable:
    """The summaries over tasks, for readers."""
    names = {"iqm": "IQM", "better_than_random": "P(better than random)", "better_than_small_dense": "P(… small dense)"}
    rows = []
    for row in frame.to_dict("records"):
        shown = [_estimate(row, name) for name in names]
        rows.append([str(row["scheme"]), percent(float(row["density"])), *shown, whole(float(row["runs"]))])
    caption = (
        "Over all tasks: interquartile mean of the normalised scores (1: dense, 0: counted baseline), and the "
        "probability that a run is better than one of static random sparsity, or of a small dense model. In brackets: "
        "95 % bootstrap intervals."
    )
    return DisplayTable(
        caption, ["scheme", "density", *names.values(), "runs"], rows, [False, True, True, True, True, True]
    )


def left_out_table() -> DisplayTable:
    """What was left out, and why."""
    rows = [
        [
            ", ".join(one.schemes),
            ", ".join(one.tasks) or "all",
            ", ".join(map(percent, one.densities)) or "all",
            one.why,
        ]
        for one in left_out()
    ]
    return DisplayTable("What was left out, and why.", ["schemes", "tasks", "densities", "why"], rows, [False] * 4)


def answers_table(answers: Sequence[Answer]) -> DisplayTable:
    """The answers to the questions."""
    rows = [[one.question.question, one.answer, " ".join(one.details)] for one in answers]
    caption = "Questions asked before the runs, answered by rules that were committed before them."
    return DisplayTable(caption, ["question", "answer", "measured"], rows, [False] * 3)


def answers_frame(answers: Sequence[Answer]) -> pd.DataFrame:
    """The answers, a row a question."""
    return pd.DataFrame(
        [{"question": one.question.id, "answer": one.answer, "measured": " ".join(one.details)} for one in answers]
    )


def latex(frame: pd.DataFrame) -> str:
    """The summaries as a LaTeX table (package booktabs): a row a scheme, a column a density; IQM with its interval."""
    densities = sorted(set(frame["density"]) - {1.0}, reverse=True) if len(frame) else []
    by_key = {(row["scheme"], row["density"]): row for row in frame.to_dict("records")}
    lines = [rf"\begin{{tabular}}{{l{'r' * len(densities)}}}", r"\toprule"]
    lines += [" & ".join(["scheme", *(percent(d).replace("%", r"\%") for d in densities)]) + r" \\", r"\midrule"]
    for scheme in dict.fromkeys(str(name) for name in frame["scheme"]) if len(frame) else ():
        cells = [_in_latex(by_key.get((scheme, d))) for d in densities]
        if any(cells):
            lines.append(" & ".join([scheme.replace("_", r"\_"), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _in_latex(row: Mapping[Hashable, Any] | None) -> str:
    return "" if row is None else f"{row['iqm']:.3f} [{row['iqm_low']:.3f}, {row['iqm_high']:.3f}]"


def _columns(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _estimate(row: Mapping[Hashable, Any], name: str) -> str:
    if is_missing(row.get(name)):
        return MISSING
    value, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{decimal(value)} ({decimal(low)} to {decimal(high)})"


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _order(found: Mapping[Key, Cell]) -> Callable[[Key], tuple[int, int, float]]:
    schemes, tasks = schemes_of(found), [task.name for task in TASKS]
    return lambda key: (tasks.index(key[0]), schemes.index(key[1]), -key[2])
