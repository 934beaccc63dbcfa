"""Drawing data of single runs: degree distributions before and after training, and summaries of trained weights.

Run folders are not committed. For each run that a paper's page draws, the paper's ``portraits.json`` keeps the data.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sparse_bench.evidence.compare import Evidence
from sparse_bench.evidence.folders import Problem, json_lines
from sparse_bench.evidence.store import RunKey
from sparse_bench.papers.page import SingleRun
from sparse_bench.record import RunFolder, write_atomically

FILE = "portraits.json"
#: Significant digits of the numbers; a drawing shows fewer.
_DIGITS = 3
#: Data of a drawing, as JSON holds it.
Content = Mapping[str, Any]


@dataclass(frozen=True)
class Portrait:
    """Drawing data of one run.

    Attributes:
        kind: ``degrees`` or ``weights``.
        experiment, id, seed: of the run.
        content: of :func:`read_topology` or :func:`read_summary`.
    """

    kind: str
    experiment: str
    id: str
    seed: int
    content: Content


def read_topology(folder: RunFolder) -> Content | None:
    """Read how training changed a run's topology; None if it did not.

    Returns:
        ``first`` and ``last``, each with its ``epoch`` and its ``layers`` as in ``topology.jsonl``. The last one has as
        many connections as the first if any has: after its last epoch SET may remove some without growing new ones.

    Raises:
        ValueError: a line before the last does not describe a topology, or the file was damaged since the run ended.
    """
    path = folder.topology.path
    found: list[Content] = []
    for number, entry in enumerate(json_lines(path.name, folder.text_of(path)), start=1):
        try:
            found.append({"epoch": int(entry["epoch"]), "layers": dict(entry["layers"])})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path.name}, line {number}: not a description of a topology ({error!r})") from error
    if len(found) < 2:
        return None
    first, *later = found
    same = [one for one in later if connections(one) == connections(first)]
    return {"first": first, "last": (same or later)[-1]}


def connections(snapshot: Content) -> int:
    """Number of connections in all layers of a topology."""
    return sum(int(layer["active"]) for layer in snapshot["layers"].values())


def read_summary(folder: RunFolder) -> Content | None:
    """Read the weight summary of a run; None without a summary or without layers in it.

    Only the layer with most weights keeps its map: no other map is drawn.

    Raises:
        ValueError: the file cannot be read, or a part is missing.
    """
    path = folder.weight_summary
    if not path.exists():
        return None
    try:
        summary = json.loads(folder.text_of(path))
        missing = {"edges", "layers", "small"} - summary.keys()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    if missing:
        raise ValueError(f"{path.name} lacks {', '.join(sorted(missing))}.")
    layers = summary["layers"]
    if not layers:
        return None
    drawn = max(layers, key=lambda name: sum(layers[name]["counts"]))
    rest = {name: {k: v for k, v in layer.items() if k != "map"} for name, layer in layers.items()}
    return {**summary, "layers": {**rest, drawn: layers[drawn]}}


_READ = {"degrees": read_topology, "weights": read_summary}


def first_portrait(
    kind: str,
    runs: pd.DataFrame,
    folders: Mapping[RunKey, Path],
    problems: list[Problem],
    kept: Mapping[tuple[str, str, str], Portrait] | None = None,
) -> Portrait | None:
    """A portrait of the first seed that has data; None if no seed has any.

    Args:
        kind: ``degrees`` or ``weights``.
        runs: rows of a table of runs.
        folders: folders of the runs that are on this machine.
        problems: what cannot be read is added.
        kept: kind, experiment and id → a portrait that is used where a run's folder is missing or damaged.
    """
    rows = runs.sort_values("seed")
    for experiment, run, seed in zip(rows["experiment"], rows["id"], rows["seed"], strict=True):
        folder = folders.get((str(experiment), str(run)))
        try:
            content = _READ[kind](RunFolder(folder)) if folder is not None else None
        except ValueError as error:
            problems.append(Problem(f"{experiment}/{run}", f"It cannot be drawn: {error}"))
            content = None
        key = (kind, str(experiment), str(run))
        if content is not None:
            return Portrait(*key, int(seed), content)
        if kept is not None and key in kept:
            return kept[key]
    return None


def take(
    wanted: Sequence[SingleRun],
    evidence: Evidence,
    folders: Mapping[RunKey, Path],
    old: Sequence[Portrait],
    problems: list[Problem],
) -> list[Portrait]:
    """A portrait for each of the figures ``wanted`` that has data; ``old`` has those kept so far.

    ``folders`` and ``problems`` are as in :func:`first_portrait`.
    """
    kept = {(portrait.kind, portrait.experiment, portrait.id): portrait for portrait in old}
    chosen = [(figure.kind, evidence.runs(figure.target)) for figure in wanted]
    found = [first_portrait(kind, one.runs, folders, problems, kept) for kind, one in chosen if one is not None]
    return list({(one.kind, one.experiment, one.id): one for one in found if one is not None}.values())


def find(figure: SingleRun, evidence: Evidence, portraits: Sequence[Portrait]) -> Portrait | None:
    """The portrait that a figure draws; None if no matching run has one."""
    chosen = evidence.runs(figure.target)
    ids = set() if chosen is None else set(chosen.runs["id"])
    of_kind = [one for one in portraits if (one.kind, one.experiment) == (figure.kind, figure.experiment)]
    return next((portrait for portrait in of_kind if portrait.id in ids), None)


def read(folder: Path) -> list[Portrait]:
    """Read the portraits in a paper's folder; empty without the file."""
    path = folder / FILE
    if not path.is_file():
        return []
    return [Portrait(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]


def write(portraits: Sequence[Portrait], folder: Path) -> None:
    """Write the portraits, in their order; without portraits the file is removed."""
    if not portraits:
        (folder / FILE).unlink(missing_ok=True)
        return
    lines = ",\n".join(json.dumps(_rounded(asdict(portrait)), separators=(",", ":")) for portrait in portraits)
    write_atomically(folder / FILE, f"[\n{lines}\n]\n".encode())


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
