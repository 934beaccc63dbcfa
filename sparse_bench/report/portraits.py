"""What is kept of single runs beside their numbers, for the pages to show: degrees at first and at last, weights.

A run's folder stays where it was made. Of the runs that a paper's page draws one by one, ``portraits.json`` beside the
paper's tables keeps what the drawing needs.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparse_bench.record import FINISHED, RunFolder, write_atomically
from sparse_bench.report.load import Results
from sparse_bench.report.papers import OneRun, Paper
from sparse_bench.report.selection import Evidence, Runs, remarks_on
from sparse_bench.report.style import Figure, file_stem
from sparse_bench.report.topology import Change, Snapshot, degree_figure, read_topology
from sparse_bench.report.weights import KIND, read_summary, weight_figure

FILE = "portraits.json"
#: Numbers are kept to so many digits: a drawing shows fewer.
_DIGITS = 3


@dataclass(frozen=True)
class Portrait:
    """What one run looks like.

    Attributes:
        kind: ``degrees`` or ``weights``.
        experiment: the run's.
        id: the run's.
        seed: the run's.
        content: ``first`` and ``last`` snapshots of the topology, or the summary of the weights.
    """

    kind: str
    experiment: str
    id: str
    seed: int
    content: Mapping[str, Any]


def read(folder: Path) -> list[Portrait]:
    """The portraits beside a paper's tables; none where there is no file."""
    path = folder / FILE
    if not path.is_file():
        return []
    return [Portrait(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]


def write(portraits: Sequence[Portrait], folder: Path) -> None:
    """Write them, in their order; no portraits leave no file."""
    if not portraits:
        (folder / FILE).unlink(missing_ok=True)
        return
    lines = ",\n".join(json.dumps(asdict(portrait), separators=(",", ":")) for portrait in portraits)
    write_atomically(folder / FILE, f"[\n{lines}\n]\n".encode())


def take(paper: Paper, evidence: Evidence, results: Results, old: Sequence[Portrait]) -> list[Portrait]:
    """A portrait for each figure of one run, of the first seed that there is anything of.

    Args:
        paper: whose page asks for them.
        evidence: tables that know all runs.
        results: runs whose folders are at hand.
        old: what was kept before; it serves where a run's folder is no longer there.
    """
    done = results.runs["status"] == FINISHED
    columns = ("experiment", "id", "folder")
    folders = {(e, i): folder for e, i, folder in zip(*(results.runs[done][c] for c in columns), strict=True)}
    kept = {(portrait.kind, portrait.experiment, portrait.id): portrait for portrait in old}
    found: dict[tuple[str, str, str], Portrait] = {}
    for figure in paper.single_runs:
        chosen = evidence.runs(Runs(figure.experiment, figure.where))
        if chosen is None:
            continue
        runs = chosen[1].sort_values("seed")
        for run, seed in zip(runs["id"], runs["seed"], strict=True):
            key = (figure.kind, figure.experiment, str(run))
            folder = folders.get((figure.experiment, str(run)))
            content = _content(figure.kind, RunFolder(folder)) if folder is not None else None
            if content is not None:
                found[key] = Portrait(*key, int(seed), content)
            elif key in kept:
                found[key] = kept[key]
            if key in found:
                break
    return list(found.values())


def portrait_figure(figure: OneRun, evidence: Evidence, portraits: Sequence[Portrait], paper: str) -> Figure | None:
    """The drawing; None where nothing is kept of such a run."""
    chosen = evidence.runs(Runs(figure.experiment, figure.where))
    if chosen is None:
        return None
    ids, title = set(chosen[1]["id"]), ", ".join([figure.title, *remarks_on(chosen[1])])
    for portrait in portraits:
        if (portrait.kind, portrait.experiment) == (figure.kind, figure.experiment) and portrait.id in ids:
            if figure.kind == "weights":
                stem = file_stem(KIND, paper, figure.title)
                return weight_figure(stem, title, portrait.content, portrait.seed)
            first, last = (Snapshot(**portrait.content[moment]) for moment in ("first", "last"))
            return degree_figure(file_stem("degrees", paper, figure.title), title, Change(first, last), portrait.seed)
    return None


def _content(kind: str, folder: RunFolder) -> Mapping[str, Any] | None:
    if kind == "weights":
        summary = read_summary(folder)
        if summary is None:
            return None
        # The map that is drawn is that of the layer with most weights.
        layers = summary["layers"]
        drawn = max(layers, key=lambda name: sum(layers[name]["counts"]))
        rest = {name: {k: v for k, v in layer.items() if k != "map"} for name, layer in layers.items()}
        return _rounded({**summary, "layers": {**rest, drawn: layers[drawn]}})
    change = read_topology(folder)
    return None if change is None else _rounded(asdict(change))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
