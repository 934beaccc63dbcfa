"""What the benchmark's page shows: answers, figures, the heat map, tables; and its tables as files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparse_bench.benchmark import figures, tables
from sparse_bench.benchmark.cells import Cell, Key, cells, density_of, schemes_of
from sparse_bench.benchmark.questions import answers
from sparse_bench.benchmark.rates import Trial, choose, chosen
from sparse_bench.benchmark.statistics import Normal, scores
from sparse_bench.benchmark.tasks import BASELINES, CHOSEN_AT, TASKS, BenchmarkError, baselines, task_of
from sparse_bench.evidence.csv_tables import csv_text, read_rows
from sparse_bench.evidence.display import DisplayTable
from sparse_bench.evidence.store import RunTable, merge, read
from sparse_bench.figures.section import SectionContent
from sparse_bench.figures.style import Figure
from sparse_bench.record import FINISHED

#: Names of the written tables.
CELLS, SUMMARY, LATEX, ANSWERS = "cells.csv", "summary.csv", "summary.tex", "answers.csv"


@dataclass(frozen=True)
class Content:
    """The page's parts, of which the first figure is for the project's README too; and tables as text, by file name."""

    parts: Sequence[SectionContent]
    files: Mapping[str, str]


def content(
    table: RunTable, results: Path, rates: Mapping[str, Mapping[str, float]] | None = None, own: Sequence[str] = ()
) -> Content:
    """Everything that the benchmark's page shows.

    Args:
        table: the runs.
        results: folder of the benchmark's results, for the counted baselines.
        rates: task → scheme → learning rate whose runs count; None: the chosen ones.
        own: schemes to point out.

    Raises:
        BenchmarkError: the counted baselines are missing.
        StatisticsError: a dense model is no better than the baseline.
    """
    found, bottom = cells(table, chosen() if rates is None else rates), baselines(results)
    normal = scores(found, bottom)
    summary, answered = tables.summary_frame(normal), answers(found, normal)
    pairs = {
        str(row["task"]): float(row["value"])
        for row in read_rows(results / BASELINES).to_dict("records")
        if row["counts"] == "pairs"
    }
    overall = [
        figures.overall_figure(normal, own),
        *(figures.profile_figure(normal, density, own) for density in (0.1, 0.01)),
        *(figures.cost_figure(normal, found, column, own) for column in ("macs", "seconds", "held")),
    ]
    first = [figure for figure in overall[:1] if figure is not None]
    over_tasks = SectionContent(
        "All tasks",
        figures=_drawn(overall),
        front=[(figure, figure.caption) for figure in first],
        main=first,
        tables=[tables.summary_table(summary)] if len(summary) else [],
    )
    parts = [
        SectionContent("Answers", tables=[tables.answers_table(answered)]),
        over_tasks,
        SectionContent("Scheme by task and density", tables=[heat_map(found, normal, linked=not own)]),
    ]
    for task in TASKS:
        if any(key[0] == task.name for key in found):
            drawn = _drawn([figures.task_figure(found, task, pairs.get(task.name), own)])
            parts.append(SectionContent(task.title, figures=drawn, tables=[tables.task_table(found, task.name)]))
    parts.append(SectionContent("Left out", tables=[tables.left_out_table()]))
    files = {
        CELLS: csv_text(tables.cells_frame(found, normal)),
        SUMMARY: csv_text(summary),
        LATEX: tables.latex(summary),
        ANSWERS: csv_text(tables.answers_frame(answered)),
    }
    return Content(parts, files)


def compared(table: RunTable, results: Path) -> Content:
    """One's own runs of the benchmark together with the committed ones; their schemes are highlighted.

    A scheme with the name of a committed one replaces it where both ran the same task, density and seed.

    Args:
        table: one's own runs.
        results: folder of the committed results.

    Raises:
        BenchmarkError: none of the runs belongs to the benchmark, or the counted baselines are missing.
        StoreError: there is no table of committed runs.
    """
    mine = [row for row in table.rows() if task_of(str(row["experiment"])) is not None and row["status"] == FINISHED]
    if not mine:
        raise BenchmarkError(
            "None of these runs belongs to the benchmark. Start some: sweep=benchmark/one sparsity=NAME"
        )
    both, known = merge(read(results), table.only({str(row["experiment"]) for row in mine})), chosen()
    own = list(dict.fromkeys(str(row["label:scheme"]) for row in mine))
    fresh = [scheme for scheme in own if not any(scheme in by_scheme for by_scheme in known.values())]
    return content(both, results, own_rates(table, known), fresh or own)


def heat_map(found: Mapping[Key, Cell], normal: Normal, linked: bool) -> DisplayTable:
    """Mean scores, a row a scheme and a column a task and density. Cells are shaded; ``linked``: to their first run."""
    columns = sorted({(key[0], key[2]) for key in normal}, key=lambda one: (_place(one[0]), -one[1]))
    rows, shades, links = [], dict[tuple[int, int], int](), dict[tuple[int, int], str]()
    for line, scheme in enumerate(schemes_of(normal)):
        row = [scheme]
        for place, (task, density) in enumerate(columns, start=1):
            by_seed = normal.get((task, scheme, density))
            if by_seed is None:
                row.append("")
                continue
            score = sum(by_seed.values()) / len(by_seed)
            row.append(f"{score:.2f}")
            shades[line, place] = min(9, max(0, int(10 * score)))
            experiment, run = found[task, scheme, density].runs[min(by_seed)]
            links[line, place] = "runs/" + f"{experiment}-{run}.html".replace("/", "-")
        rows.append(row)
    heads = ["scheme", *(f"{task.replace('_', ' ')} {density:g}" for task, density in columns)]
    caption = (
        "Mean normalised score of each scheme by task and density: 1 is the dense model, 0 what counting the targets "
        f"reaches. {'Each cell links to its run of the first seed. ' if linked else ''}Empty cells were not run; for "
        "those that never will be, the reason is below."
    )
    return DisplayTable(caption, heads, rows, [False, *[True] * len(columns)], shades, links if linked else {})


def own_rates(table: RunTable, known: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """``known`` with the best rate of every missing scheme, by the benchmark's rule, from the runs themselves.

    The rule: the best value of the task's validation metric at density 0.1, with the first seed that was run there.
    """
    found = {task: dict(by_scheme) for task, by_scheme in known.items()}
    tried: dict[tuple[str, str], list[tuple[int, Trial]]] = {}
    for row in table.rows():
        task, scheme = task_of(str(row["experiment"])), str(row["label:scheme"])
        if task is None or row["status"] != FINISHED or scheme in known.get(task.name, {}):
            continue
        value: Any = row.get(f"metric:{task.chosen_by}")
        if value is not None and density_of(row) in (CHOSEN_AT, 1.0):
            trial = Trial(task.name, scheme, float(table.config(row)["optimizer.lr"]), float(value))
            tried.setdefault((task.name, scheme), []).append((int(row["seed"]), trial))
    first = [trial for runs in tried.values() for seed, trial in runs if seed == min(one for one, _ in runs)]
    for name, by_scheme in choose(first).items():
        found.setdefault(name, {}).update(by_scheme)
    return found


def _drawn(found: Sequence[Figure | None]) -> list[Figure]:
    return [figure for figure in found if figure is not None]


def _place(task: str) -> int:
    return [one.name for one in TASKS].index(task)
