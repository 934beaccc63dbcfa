"""Drawing data of single runs: degree distributions before and after training, and summaries of trained weights.

Run folders are not committed. For each run that a paper's page draws, the paper's ``portraits.json`` keeps the data.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparse_bench.evidence.compare import Evidence
from sparse_bench.evidence.store import RunKey
from sparse_bench.papers.page import SingleRun
from sparse_bench.record import RunFolder, write_atomically

FILE = "portraits.json"
#: Significant digits of the numbers; a drawing shows fewer.
_DIGITS = 3


@dataclass(frozen=True)
class Snapshot:
    """The topology of all sparse layers of a run at one moment, as in its ``topology.jsonl``."""

    epoch: int
    layers: Mapping[str, Mapping[str, Any]]

    @property
    def connections(self) -> int:
        """Number of connections in all layers."""
        return sum(int(layer["active"]) for layer in self.layers.values())


@dataclass(frozen=True)
class Change:
    """How training changed a run's topology.

    Attributes:
        first: before the first epoch.
        last: the last snapshot with as many connections as the first, if there is one; else the last snapshot. After
            its last epoch SET may remove connections without growing new ones.
    """

    first: Snapshot
    last: Snapshot


@dataclass(frozen=True)
class Portrait:
    """Drawing data of one run.

    Attributes:
        kind: ``degrees`` or ``weights``.
        experiment: experiment of the run.
        id: id of the run.
        seed: seed of the run.
        content: ``first`` and ``last`` snapshots of the topology, or the summary of the weights.
    """

    kind: str
    experiment: str
    id: str
    seed: int
    content: Mapping[str, Any]


def read_topology(folder: RunFolder) -> Change | None:
    """Read how a run's topology changed; None if it did not. An unfinished last line is skipped.

    Raises:
        ValueError: a line before the last does not describe a topology, or the file was damaged since the run ended.
    """
    path = folder.topology.path
    lines = folder.text_of(path).splitlines()
    first = same = last = None
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            last = Snapshot(int(entry["epoch"]), dict(entry["layers"]))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path.name}, line {number}: not valid JSON ({error})") from error
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path.name}, line {number}: not a description of a topology ({error!r})") from error
        if first is None:
            first = last
        elif last.connections == first.connections:
            same = last
    return None if first is None or last is None or last is first else Change(first, same or last)


def read_summary(folder: RunFolder) -> Mapping[str, Any] | None:
    """Read the weight summary of a run; None without a summary or without layers in it.

    Raises:
        ValueError: the file cannot be read, or a part is missing.
    """
    path = folder.weight_summary
    if not path.exists():
        return None
    try:
        summary: Mapping[str, Any] = json.loads(folder.text_of(path))
        missing = {"edges", "layers", "small"} - summary.keys()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    if missing:
        raise ValueError(f"{path.name} lacks {', '.join(sorted(missing))}.")
    return summary if summary["layers"] else None


def take(
    wanted: Sequence[SingleRun], evidence: Evidence, folders: Mapping[RunKey, Path], old: Sequence[Portrait]
) -> list[Portrait]:
    """A portrait for each figure of a single run, from the first seed that has data.

    Args:
        wanted: the figures.
        evidence: the tables of all runs.
        folders: folders of the runs that are on this machine.
        old: the portraits kept so far, used where a run's folder is missing.
    """
    kept = {(portrait.kind, portrait.experiment, portrait.id): portrait for portrait in old}
    found: dict[tuple[str, str, str], Portrait] = {}
    for figure in wanted:
        chosen = evidence.runs(figure.target)
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


def find(figure: SingleRun, evidence: Evidence, portraits: Sequence[Portrait]) -> Portrait | None:
    """The portrait that a figure draws; None if no matching run has one."""
    chosen = evidence.runs(figure.target)
    ids = set() if chosen is None else set(chosen[1]["id"])
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
    lines = ",\n".join(json.dumps(asdict(portrait), separators=(",", ":")) for portrait in portraits)
    write_atomically(folder / FILE, f"[\n{lines}\n]\n".encode())


def _content(kind: str, folder: RunFolder) -> Mapping[str, Any] | None:
    if kind == "degrees":
        change = read_topology(folder)
        return None if change is None else _rounded(asdict(change))
    summary = read_summary(folder)
    if summary is None:
        return None
    # Only the map of the layer with most weights is drawn, so only this map is kept.
    layers = summary["layers"]
    drawn = max(layers, key=lambda name: sum(layers[name]["counts"]))
    rest = {name: {k: v for k, v in layer.items() if k != "map"} for name, layer in layers.items()}
    return _rounded({**summary, "layers": {**rest, drawn: layers[drawn]}})


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
