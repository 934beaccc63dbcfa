"""How the numbers were made: versions, commits, machines, data checksums and settings, from the results themselves."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparse_bench.record import Result
from sparse_bench.report.load import NOT_DEFINING, flatten, plain
from sparse_bench.report.tables import setting


@dataclass(frozen=True)
class Fact:
    """A name and the values that the runs have for it, the most frequent first, each with its number of runs."""

    name: str
    values: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Provenance:
    """What stands behind a set of results.

    Attributes:
        software: versions.
        commits: commits of the code; ``unknown`` for runs outside a repository.
        machines: processor, cores, threads, device.
        data: checksum of each data file.
        warnings: what a reader must know before trusting a comparison, as sentences.
        seconds: time of all runs together.
    """

    software: Sequence[Fact]
    commits: Fact
    machines: Fact
    data: Sequence[Fact]
    warnings: Sequence[str]
    seconds: float


def provenance(records: Sequence[Result]) -> Provenance:
    """Collect it over all runs."""
    commits = Fact("commit", _count([str(record.git.get("commit") or "unknown") for record in records]))
    software = _facts([record.versions for record in records])
    data = _facts([record.data for record in records])
    machines = Fact("machine", _count([_machine(record.machine) for record in records]))
    dirty = sum(bool(record.git.get("dirty")) for record in records)
    warnings = []
    if dirty:
        warnings.append(
            f"{dirty} of {len(records)} runs were made with uncommitted changes in the code: "
            "their commit alone does not reproduce them."
        )
    if any(name == "unknown" for name, _ in commits.values):
        warnings.append("Some runs do not know the commit of their code.")
    if len(commits.values) > 1:
        warnings.append(f"The runs were made at {len(commits.values)} different commits of the code.")
    changed = [fact.name for fact in data if len(fact.values) > 1]
    if changed:
        warnings.append(f"Not all runs read the same data: the checksums differ of {', '.join(changed)}.")
    if len(machines.values) > 1:
        warnings.append(
            f"The runs were made on {len(machines.values)} kinds of machine or settings of threads: "
            "compare times and throughput with care."
        )
    seconds = sum(record.seconds.get("total", 0.0) for record in records)
    return Provenance(software, commits, machines, data, tuple(warnings), seconds)


def shared_settings(records: Sequence[Result]) -> list[tuple[str, str]]:
    """Settings on which all runs agree, by dotted path. File paths are left out: they belong to a machine."""
    configs = [flatten(record.config) for record in records]
    common = []
    for path, value in sorted(configs[0].items()):
        same = all(path in config and config[path] == value for config in configs[1:])
        if same and not NOT_DEFINING.fullmatch(path) and not str(value).startswith(("/", "~")):
            common.append((path, setting(plain(value))))
    return common


def duration(seconds: float) -> str:
    """``5 h 12 min``, ``3 min 20 s`` or ``4.2 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours:,} h {minutes_left} min" if hours else f"{minutes} min {rest} s"


def _facts(mappings: Sequence[Mapping[str, Any]]) -> list[Fact]:
    names = sorted({name for mapping in mappings for name in mapping})
    return [Fact(name, _count([str(mapping[name]) for mapping in mappings if name in mapping])) for name in names]


def _machine(machine: Mapping[str, Any]) -> str:
    known = {"processor": "{}", "cores": "{} cores", "threads": "{} threads", "device": "device {}"}
    parts = [form.format(machine[key]) for key, form in known.items() if machine.get(key) is not None]
    other = {key: value for key, value in machine.items() if key not in known}
    return ", ".join([*parts, *([json.dumps(other, sort_keys=True)] if other else [])]) or "unknown"


def _count(values: Sequence[str]) -> list[tuple[str, int]]:
    return sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
