"""Runs' folders on disk → one table with a row for each run.

A folder that cannot be read, or a run that never ended, is reported and left out; it never stops a report.
"""

import hashlib
import json
import math
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from sparse_bench.config.nodes import recorded_parameters
from sparse_bench.config.schema import TrainerConfig
from sparse_bench.errors import SparseBenchError, unknown_choice
from sparse_bench.record import FINISHED, SCHEMA, Result, RunFolder

#: A folder that holds one of these is a run's; without a result, the run did not end.
_RUN_FILES = ("result.json", "metrics.jsonl", ".lock")

#: Settings that do not define an arm: the seed, how and where a run was carried out, and names that labels repeat.
NOT_DEFINING = re.compile(
    r"(seed|experiment_name|start_from|logger|point|device|threads|output|progress|force|wait_for_others)(\..*)?"
    r"|trainer\.(checkpoint_seconds|keep)|(.*\.)?(label|_partial_)"
)
_RESULT = TypeAdapter(Result)


class NoResultsError(SparseBenchError):
    """No result was found where a report was asked for."""


@dataclass(frozen=True)
class Problem:
    """A folder that gave no row, or a row that needs a warning.

    Attributes:
        folder: the folder, relative to the directory that was searched.
        reason: what is wrong, as a sentence.
    """

    folder: str
    reason: str


@dataclass(frozen=True)
class Results:
    """Everything that a report is made from.

    Attributes:
        runs: one row a run, stably sorted. Columns: ``experiment``, ``id``, ``status``, ``seed``, ``label:*``,
            ``setting:*`` (configuration values that differ between runs), ``count:*``, ``metric:*``, ``macs:*``,
            ``seconds:*``, ``peak_memory_bytes``, ``tokens_per_second``, ``examples_per_second``, ``epochs``,
            ``steps``, ``made:*`` (code, machine, data), ``error``, and ``warnings`` where any run has one; ``folder``
            (a path) is for reading a run's history and goes into no table.
        records: the result of each row, in the same order.
        problems: folders left out, and warnings.
    """

    runs: pd.DataFrame
    records: Sequence[Result]
    problems: Sequence[Problem] = field(default_factory=tuple)

    @property
    def metrics(self) -> list[str]:
        """Names of all metrics in the results, sorted."""
        return [column.removeprefix("metric:") for column in self.runs.columns if column.startswith("metric:")]


def load(folders: Iterable[Path], experiment: str | None = None) -> Results:
    """Read every run below ``folders``.

    Args:
        folders: directories to search, at any depth.
        experiment: keep this experiment only, or all below it (``rasa`` keeps ``rasa/diet`` and ``rasa/ted``).

    Raises:
        NoResultsError: nothing to report; the message names the folders and what to run.
    """
    folders = list(folders)
    found: dict[tuple[str, str], tuple[Path, Result]] = {}
    problems: list[Problem] = []
    for folder, name in _run_folders(folders):
        try:
            record = read_result(RunFolder(folder).result_path)
        except FileNotFoundError:
            problems.append(Problem(name, "The run has not ended: there is no result.json."))
            continue
        except (OSError, ValueError) as error:
            problems.append(Problem(name, f"The result cannot be read: {error}"))
            continue
        key = (record.experiment, record.id)
        if key in found:
            problems.append(Problem(name, f"Run {key[1]} was already read from another folder; this copy is left out."))
            continue
        found[key] = (folder, record)

    searched = ", ".join(f"'{folder}'" for folder in folders) or "(no folder)"
    if not found:
        unfinished = f" ({len(problems)} folders hold no readable result: {problems[0].reason})" if problems else ""
        raise NoResultsError(
            f"No results found in {searched}{unfinished}. Run an experiment first, for instance "
            "'python -m sparse_bench experiment=NAME', or name the folder that holds its runs with --runs DIR."
        )
    if experiment is not None:
        kept = {key: value for key, value in found.items() if f"{key[0]}/".startswith(f"{experiment.rstrip('/')}/")}
        if not kept:
            raise NoResultsError(
                f"No results in {searched} belong to it. "
                + unknown_choice("experiment", experiment, {name for name, _ in found})
            )
        found = kept
        problems = [problem for problem in problems if f"/{experiment.rstrip('/')}/" in f"/{problem.folder}/"]
    return _tabulate(list(found.values()), problems)


def read_result(path: Path) -> Result:
    """Parse and check one ``result.json``.

    Raises:
        ValueError: it is no JSON, of another schema, or a part is missing or of the wrong type; the message says which.
        FileNotFoundError: there is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected an object, found {type(content).__name__}.")
    if content.get("schema") != SCHEMA:
        raise ValueError(f"schema {content.get('schema')!r}; this version reads schema {SCHEMA}.")
    try:
        return _RESULT.validate_python(content)
    except ValidationError as error:
        reasons = [f"'{'.'.join(map(str, problem['loc']))}': {problem['msg']}" for problem in error.errors()]
        raise ValueError(f"{'; '.join(reasons)}.") from error


def read_history(folder: Path) -> pd.DataFrame:
    """What a run logged while it trained: index ``epoch``, one column a metric, the last value of each epoch.

    Lines without an epoch are passed over, and so is an unfinished last line. Empty if there is no history.

    Raises:
        ValueError: a line before the last is no JSON object.
    """
    path = RunFolder(folder).metrics.path
    epochs: dict[int, dict[str, float]] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}, line {number}: not valid JSON ({error})") from error
        if not isinstance(entry, dict):
            raise ValueError(f"{path}, line {number}: expected an object, found {type(entry).__name__}")
        if not isinstance(entry.get("epoch"), int):
            continue
        values = {key: float(value) for key, value in entry.items() if _is_number(value)}
        epochs.setdefault(entry["epoch"], {}).update(values)
    frame = pd.DataFrame.from_dict(epochs, orient="index").sort_index()
    frame.index.name = "epoch"
    return frame.drop(columns=["epoch", "step"], errors="ignore")


def _run_folders(roots: Iterable[Path]) -> list[tuple[Path, str]]:
    """Folders that hold a run, each once, with a name for messages; hidden folders are not searched."""
    seen: set[Path] = set()
    folders: list[tuple[Path, str]] = []
    for root in roots:
        candidates = {path.parent for name in _RUN_FILES for path in root.rglob(name)}
        for folder in sorted(candidates):
            relative = folder.relative_to(root)
            hidden = any(part.startswith(".") for part in relative.parts)
            if not hidden and folder.resolve() not in seen:
                seen.add(folder.resolve())
                folders.append((folder, str(relative) if relative.parts else folder.name))
    return folders


def _tabulate(found: list[tuple[Path, Result]], problems: list[Problem]) -> Results:
    rows = [{**row_of(record), "folder": folder} for folder, record in found]
    table, order = tabulate(rows, completed([flatten(record.config) for _, record in found]))
    for i in order:
        record = found[i][1]
        broken = [name for name, value in record.metrics.items() if not _is_finite(value)]
        name = f"{record.experiment}/{record.id}"
        if broken and record.status == FINISHED:
            problems.append(Problem(name, f"Not a finite number, left out of the means: {', '.join(broken)}."))
        problems += [Problem(name, warning) for warning in record.warnings]
    return Results(table, [found[i][1] for i in order], tuple(problems))


def tabulate(rows: Sequence[Mapping[str, Any]], configs: Sequence[Mapping[str, Any]]) -> tuple[pd.DataFrame, list[int]]:
    """One table from the cells of runs and their flat configurations, stably sorted.

    Args:
        rows: cells by column name, as :func:`row_of` gives them.
        configs: settings by dotted path; those that define a run and differ between runs become columns.

    Returns:
        The table, and for each of its rows the place of the run in ``rows``.
    """
    varying = [path for path, values in defining_settings(configs).items() if len(values) > 1]
    complete = [
        {**row, **{f"setting:{path}": config.get(path) for path in varying}}
        for row, config in zip(rows, configs, strict=True)
    ]
    columns = _ordered_columns(complete)
    keys = [c for c in columns if c == "experiment" or c.startswith(("label:", "setting:"))] + ["seed", "id"]
    order = sorted(range(len(complete)), key=lambda i: [sort_key(complete[i].get(column)) for column in keys])
    return pd.DataFrame({column: _column([complete[i].get(column) for i in order]) for column in columns}), order


def completed(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The flat configurations with the settings that some of them are too old to have.

    A setting that is younger than a run had the code's default there: a default in the code never changes its meaning.
    """
    paths = sorted({path for config in configs for path in config})
    filled = [dict(config) for config in configs]
    for config in filled:
        for path in paths:
            if path not in config and (default := default_of(config, path)) is not MISSING:
                config[path] = default
    return filled


def default_of(config: Mapping[str, Any], path: str) -> Any:
    """What the code takes for a setting that a configuration lacks; MISSING if it belongs to nothing in it."""
    node, _, name = path.rpartition(".")
    if node == "trainer":
        return {field.name: field.default for field in fields(TrainerConfig)}.get(name, MISSING)
    target = config.get(f"{node}._target_")
    if not isinstance(target, str):
        return MISSING
    return _defaults(target).get(name, MISSING)


@cache
def _defaults(target: str) -> Mapping[str, Any]:
    """Defaults of a target's arguments, as a configuration would hold them, where they can be known."""
    found = {
        name: list(one.default) if isinstance(one.default, tuple) else one.default
        for name, one in recorded_parameters(target).items()
    }
    return {name: value for name, value in found.items() if isinstance(value, bool | int | float | str | list | None)}


def defining_settings(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The different values of each setting that defines a run, by dotted path; None where a run lacks it."""
    found = {}
    for path in sorted({path for config in configs for path in config}):
        if not NOT_DEFINING.fullmatch(path):
            values = {sort_key(config.get(path)): config.get(path) for config in configs}
            found[path] = list(values.values())
    return found


def row_of(record: Result) -> dict[str, Any]:
    """The cells of one run, without its settings."""

    def part(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
        return {f"{prefix}:{key}": value for key, value in flatten(values).items()}

    return {
        "experiment": record.experiment,
        "id": record.id,
        "status": record.status,
        "seed": record.seed,
        **part("label", record.labels),
        **part("count", record.counts),
        **{key: value if _is_finite(value) else None for key, value in part("metric", record.metrics).items()},
        **part("macs", record.macs_per_example),
        **part("seconds", record.seconds),
        **{key: getattr(record, key) for key in _PLAIN},
        **_made(record),
        "error": f"{record.error['type']}: {record.error['message']}" if record.error else None,
        **({"warnings": " ".join(record.warnings)} if record.warnings else {}),
    }


def _made(record: Result) -> dict[str, Any]:
    """What a number has to be traced back with: the code, the machine, the data (a digest of all its checksums)."""
    data = hashlib.sha256(_canonical(record.data).encode()).hexdigest()[:12] if record.data else None
    known = {
        **{key: record.git.get(key) for key in ("commit", "dirty")},
        **{key: record.versions.get(key) for key in ("python", "torch")},
        **{key: record.machine.get(key) for key in ("processor", "vectors", "cores", "threads", "device")},
        "data": data,
    }
    return {f"made:{key}": value for key, value in known.items() if value is not None}


_PLAIN = ("tokens_per_second", "examples_per_second", "peak_memory_bytes", "epochs", "steps")
_COLUMN_ORDER = (
    *("experiment", "id", "status", "label:", "seed", "setting:", "count:", "metric:", "macs:", "seconds:"),
    *(*_PLAIN, "made:"),
)


def _ordered_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns in a fixed order of kinds; labels keep the order of the results, other kinds are sorted by name."""
    seen = list(dict.fromkeys(column for row in rows for column in row))

    def key(column: str) -> tuple[int, str]:
        for rank, start in enumerate(_COLUMN_ORDER):
            if column == start or (start.endswith(":") and column.startswith(start)):
                return rank, "" if start == "label:" else column
        return len(_COLUMN_ORDER), ""

    return sorted(seen, key=key)


def _column(values: list[Any]) -> pd.Series:
    """A column of whole numbers (with gaps), of floats, or of anything else as it is."""
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, int) and not isinstance(value, bool) for value in present):
        return pd.Series(values, dtype="Int64")
    if present and all(_is_number(value) for value in present):
        return pd.Series([math.nan if value is None else float(value) for value in values], dtype="float64")
    return pd.Series([plain(value) for value in values], dtype="object")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted paths; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        flat |= flatten(value, path) if isinstance(value, Mapping) and value else {path: value}
    return flat


def plain(value: Any) -> Any:
    """Lists and mappings as JSON text, so that a table's cell can hold and compare them."""
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value


def sort_key(value: Any) -> tuple[int, float, str]:
    """Orders missing values, then numbers by size, then everything else by its text."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return 0, 0.0, ""
    if _is_number(value):
        return 1, float(value), ""
    return 2, 0.0, str(plain(value))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)
