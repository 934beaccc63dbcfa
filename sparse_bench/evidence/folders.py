"""Reads run folders: a row for each run, and its learning curves.

A folder that cannot be read, or whose run has not ended, is reported and skipped. It never stops a report.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sparse_bench.evidence.csv_tables import flatten, is_finite, is_number, plain
from sparse_bench.record import SCHEMA, Result, RunFolder, verify

#: A folder with one of these files is a run folder. Without a result, the run has not ended.
_RUN_FILES = ("result.json", "metrics.jsonl", ".lock")
_RESULT = TypeAdapter(Result)
_LARGEST = 2**63
#: Measurements of a run that are a column of their own.
PLAIN = ("tokens_per_second", "examples_per_second", "peak_memory_bytes", "epochs", "steps")


@dataclass(frozen=True)
class Problem:
    """A folder without a readable run, or a run with a warning.

    Attributes:
        folder: path relative to the searched directory, or the run's name.
        reason: the problem, as a sentence.
    """

    folder: str
    reason: str


def read_runs(folders: Iterable[Path], problems: list[Problem]) -> Iterator[tuple[Path, Result]]:
    """Yield every run below ``folders`` with a readable result, each once. Others are added to ``problems``."""
    seen: set[tuple[str, str]] = set()
    for folder, name in _run_folders(folders):
        try:
            record = read_result(RunFolder(folder).result_path)
        except FileNotFoundError:
            problems.append(Problem(name, "The run has not ended: result.json is missing."))
            continue
        except (OSError, ValueError) as error:
            problems.append(Problem(name, f"The result cannot be read: {error}"))
            continue
        if (record.experiment, record.id) in seen:
            problems.append(Problem(name, f"Run {record.id} was read from another folder. This copy is skipped."))
            continue
        seen.add((record.experiment, record.id))
        yield folder, record


def read_result(path: Path) -> Result:
    """Parse and check one ``result.json``.

    Raises:
        ValueError: it is not JSON or has another schema, or a part is missing, of the wrong type or too large. The
            message names the fault.
        FileNotFoundError: the file does not exist.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        if "\\u" in text:
            json.dumps(content, ensure_ascii=False).encode()  # lone surrogates cannot be written as UTF-8
    except (json.JSONDecodeError, UnicodeError) as error:
        raise ValueError(f"not valid JSON ({error}).") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply.") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected an object, found {type(content).__name__}.")
    verify(content)
    if content.get("schema") != SCHEMA:
        raise ValueError(f"schema {content.get('schema')!r}; this version reads schema {SCHEMA}.")
    try:
        record = _RESULT.validate_python(content)
    except ValidationError as error:
        reasons = [f"'{'.'.join(map(str, problem['loc']))}': {problem['msg']}" for problem in error.errors()]
        raise ValueError(f"{'; '.join(reasons)}.") from error
    counts = {name: value for name, value in flatten(record.counts).items() if value != {}}
    wrong = [name for name, value in counts.items() if not is_number(value)]
    if wrong:
        raise ValueError(f"not a number: {', '.join(f'counts.{name}' for name in wrong)}.")
    whole = {"seed": record.seed, "epochs": record.epochs, "steps": record.steps, **counts}
    large = [name for name, value in whole.items() if value is not None and abs(value) >= _LARGEST]
    if large:
        raise ValueError(f"too large for a table: {', '.join(large)}.")
    return record


def read_curves(folder: Path, wanted: Callable[[str], bool] = lambda metric: True) -> dict[str, dict[int, float]]:
    """Read a run's learning curves: metric → epoch → the epoch's last value.

    Lines without an epoch and an unfinished last line are skipped.

    Args:
        folder: the run's folder.
        wanted: whether to read the metric of a name.

    Raises:
        ValueError: a line before the last is not a JSON object, or the file was damaged since the run ended.
    """
    path = RunFolder(folder).metrics.path
    curves: dict[str, dict[int, float]] = {}
    for entry in json_lines(path.name, RunFolder(folder).text_of(path)):
        epoch = entry.get("epoch")
        if isinstance(epoch, int):
            for key, value in entry.items():
                if key not in ("epoch", "step") and wanted(key) and is_number(value):
                    curves.setdefault(key, {})[epoch] = float(value)
    return curves


def json_lines(name: str, text: str) -> list[dict[str, Any]]:
    """The objects of the file ``name`` of JSON lines, without an unfinished last line.

    Raises:
        ValueError: a line before the last is not a JSON object.
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line]
    try:
        entries = json.loads(f"[{','.join(line for _, line in lines)}]")  # five times as fast as line by line
    except (json.JSONDecodeError, RecursionError):
        entries = []
    if len(entries) == len(lines) and all(isinstance(entry, dict) for entry in entries):
        return list(entries)
    entries = []
    for number, line in lines:
        try:
            entry = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            if (number, line) == lines[-1]:
                break
            raise ValueError(f"{name}, line {number}: not valid JSON ({error})") from error
        if not isinstance(entry, dict):
            raise ValueError(f"{name}, line {number}: expected an object, found {type(entry).__name__}")
        entries.append(entry)
    return entries


def row_of(record: Result) -> dict[str, Any]:
    """The cells of one run by column, without its settings. A metric that is not finite is an empty cell."""

    def part(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
        return {f"{prefix}:{key}": value for key, value in flatten(values).items()}

    error = f"{record.error['type']}: {record.error['message']}" if record.error else None
    cells = {
        "experiment": record.experiment,
        "id": record.id,
        "status": record.status,
        "seed": record.seed,
        **part("label", record.labels),
        **part("count", record.counts),
        **{key: value if is_finite(value) else None for key, value in part("metric", record.metrics).items()},
        **part("macs", record.macs_per_example),
        **part("macs", {f"training_{key}": value for key, value in record.macs_of_training.items()}),
        **part("seconds", record.seconds),
        **{key: getattr(record, key) for key in PLAIN},
        **_made(record),
        "error": error,
        **({"warnings": " ".join(record.warnings)} if record.warnings else {}),
    }
    return {key: plain(value) for key, value in cells.items()}


def _made(record: Result) -> dict[str, Any]:
    """The provenance of a run: code, machine, and a digest of all checksums of its data."""
    data = json.dumps(record.data, sort_keys=True, default=str)
    known = {
        **{key: record.git.get(key) for key in ("commit", "dirty")},
        **{key: record.versions.get(key) for key in ("python", "torch")},
        **{key: record.machine.get(key) for key in ("processor", "vectors", "cores", "threads", "device")},
        "data": hashlib.sha256(data.encode()).hexdigest()[:12] if record.data else None,
    }
    return {f"made:{key}": value for key, value in known.items() if value is not None}


def _run_folders(roots: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Yield each run folder once, with a name for messages. Hidden folders are not searched."""
    seen: set[Path] = set()
    for root in roots:
        candidates = {path.parent for name in _RUN_FILES for path in root.rglob(name)}
        for folder in sorted(candidates):
            relative = folder.relative_to(root)
            hidden = any(part.startswith(".") for part in relative.parts)
            if not hidden and folder.resolve() not in seen:
                seen.add(folder.resolve())
                yield folder, str(relative) if relative.parts else folder.name
