"""A run's folder and its result. Runs write them and reports read them by this one definition.

<output>/<experiment>/<run id>/
    config.yaml      the resolved configuration
    metrics.jsonl    one JSON object per line; depends on the configuration only, so it contains no times
    topology.jsonl   degrees of every sparse layer, initially and after every epoch that changed the topology; it also
                     depends on the configuration only
    timing.jsonl     seconds and throughput of the same epochs
    checkpoint.pt    the state from which an interrupted run continues
    weights.pt       the final weights, and the scheme's state (``trainer.keep``)
    result.json      written last and atomically; its presence ends the run
    .earlier/1       the previous files of a run that was restarted (``force=true``); then .earlier/2, ...
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal

from sparse_bench.errors import CheckpointError
from sparse_bench.locks import Lock, Owner, lock_of

logger = logging.getLogger(__name__)

SCHEMA = 1
#: What numbers depend on in addition to the settings: part (``data``, ``code``, ``start_from``) → name → SHA-256.
Origin = Mapping[str, Mapping[str, str]]
FINISHED: Literal["finished"] = "finished"
FAILED: Literal["failed"] = "failed"


@dataclass
class Result:
    """Everything that a run measured, in seconds, bytes and counts. Field names are the keys of ``result.json``."""

    id: str
    status: Literal["finished", "failed"]
    experiment: str
    seed: int
    labels: dict[str, Any]
    config: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)
    #: Facts about the metrics that are not numbers, for example the signatures of scores.
    notes: dict[str, str] = field(default_factory=dict)
    #: What a reader of the numbers has to know, one sentence each. See :meth:`warn`.
    warnings: list[str] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)
    macs_per_example: dict[str, float] = field(default_factory=dict)
    #: Of all steps together, ``forward`` and ``backward``; empty if they were not counted.
    macs_of_training: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    tokens_per_second: float | None = None
    examples_per_second: float | None = None
    epochs: int | None = None
    steps: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    git: dict[str, Any] = field(default_factory=dict)
    #: SHA-256 of each source of the data, by name.
    data: dict[str, str] = field(default_factory=dict)
    #: SHA-256 of each module outside the package that the configuration names.
    code: dict[str, str] = field(default_factory=dict)
    #: The run that this one starts from, and the SHA-256 of its weights.
    start_from: dict[str, str] = field(default_factory=dict)
    #: SHA-256 of the values of the trained weights: equal weights have equal hashes.
    weights: str | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    #: Why the run failed; None if it finished.
    error: dict[str, Any] | None = None
    #: SHA-256 of the files of measurements in the same folder, by name.
    files: dict[str, str] = field(default_factory=dict)
    #: SHA-256 of everything else in the file, see :func:`verify`; None in results of earlier versions.
    checksum: str | None = None
    schema: int = SCHEMA

    @property
    def name(self) -> str:
        """Name for messages: experiment, model/density/seed, and id."""
        return f"{self.experiment} {run_name(self.labels, self.seed)} ({self.id})"

    def densities(self) -> str:
        """Describe the requested and the realised density; empty before the model's weights are counted."""
        if not self.counts:
            return ""
        real = f"density {self.counts.get('of_full', self.counts['density']):.4g}"
        asked = self.notes.get("asked")
        return f"{asked} requested, {real} realised" if asked else real

    def warn(self, message: str) -> None:
        """Add ``message`` to the result's warnings and log it, unless it is there already."""
        if message not in self.warnings:
            self.warnings.append(message)
            logger.warning("%s: %s", self.name, message)

    @property
    def origin(self) -> Origin:
        """What the numbers depend on in addition to the settings."""
        return {"data": self.data, "code": self.code, "start_from": self.start_from}


def run_name(labels: Mapping[str, Any], seed: int) -> str:
    """A run's model/density/seed, with the requested density, as the realised one is not known before it is built."""
    density = labels["density"]
    shown = f"{density:g}" if isinstance(density, int | float) else str(density)
    return f"{labels['model']}/{shown}/{seed}"


_NOUNS = {"data": "the data '{}'", "code": "the module '{}'", "start_from": "the weights of '{}'"}


def differences(then: Origin, now: Origin, parts: Sequence[str] = tuple(_NOUNS)) -> str:
    """Describe which of ``parts`` differ between ``then`` and ``now``; empty if none does.

    A part that is not in ``then`` is not compared, because earlier versions did not record it. The same holds for a
    module: a new one is imported by a module that has changed too.
    """
    found = []
    for part in parts:
        before, after = then.get(part, {}), now.get(part, {})
        names = {*before} if part == "code" else {*before, *after}
        for name in sorted(names) if before else ():
            if before.get(name) != after.get(name):
                what = "changed" if name in before and name in after else "gone" if name in before else "new"
                found.append(f"{_NOUNS[part].format(name)} ({what})")
    return " and ".join(found)


def checksum_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of the values in a result, except its ``checksum``; spaces and the order of keys do not count."""
    return _checksum_of_json(json.loads(json.dumps(content)))


def _checksum_of_json(content: Mapping[str, Any]) -> str:
    """The same for what was read from JSON, which needs no conversion."""
    rest = {key: value for key, value in content.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def verify(content: Mapping[str, Any]) -> None:
    """Check a result against its own checksum, if it has one.

    Raises:
        ValueError: it was damaged or changed.
    """
    if content.get("checksum") is not None and content["checksum"] != _checksum_of_json(content):
        raise ValueError(
            "its checksum is wrong, so it was damaged or edited after the run. "
            "If you edited it, remove its key 'checksum'"
        )


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write ``content`` so that, even after a crash, ``path`` holds either the old content or all of the new."""
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes | memoryview]) -> None:
    """Write several files atomically: no file gets its final name before all are written."""
    temporaries = {path: path.with_name(f"{path.name}.{os.getpid()}.tmp") for path in contents}
    try:
        for path, content in contents.items():
            with temporaries[path].open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in temporaries.items():
            temporary.replace(path)
    except BaseException:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)  # on a full disk, this makes room for the result that reports the error
        raise


class JsonLines:
    """A file of JSON objects, one per line, that can be cut back to its size at a checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entry: dict[str, Any]) -> None:
        """Add one line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, allow_nan=True) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def size(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def checksum(self, size: int | None = None) -> str:
        """SHA-256 of the first ``size`` bytes; None: of all."""
        content = self.path.read_bytes() if self.path.exists() else b""
        return hashlib.sha256(content[:size]).hexdigest()

    def truncate(self, size: int, checksum: str | None = None) -> None:
        """Cut the file after its first ``size`` bytes.

        Args:
            size: bytes to keep.
            checksum: the SHA-256 that they must have; None: any.

        Raises:
            CheckpointError: the file is shorter, or was damaged, so that measurements from before the checkpoint are
                lost.
        """
        held = self.size()
        problem = f"holds {held} bytes, but it held {size}" if held < size else None
        if problem is None and checksum is not None and self.checksum(size) != checksum:
            problem = "is damaged: it has other content than"
        if problem is not None:
            raise CheckpointError(
                f"{self.path} {problem} when its checkpoint was written. "
                "Delete the run's folder to train it from the start."
            )
        if self.path.exists():
            os.truncate(self.path, size)


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = JsonLines(path / "metrics.jsonl")
        self.topology = JsonLines(path / "topology.jsonl")
        self.timing = JsonLines(path / "timing.jsonl")
        self.logs = (self.metrics, self.topology, self.timing)
        self.config = path / "config.yaml"
        self.checkpoint = path / "checkpoint.pt"
        self.best = path / "best.pt"
        self.weights = path / "weights.pt"
        self.weight_summary = path / "weights.json"
        self._lock: Lock | None = None

    @property
    def result_path(self) -> Path:
        """Path of the result, whether or not it exists yet."""
        return self.path / "result.json"

    def result(self) -> Result | None:
        """Read the result of the run; None if the run has not ended.

        Raises:
            CheckpointError: the file is not a result that this version can read.
        """
        if not self.result_path.exists():
            return None
        try:
            content = json.loads(self.result_path.read_text(encoding="utf-8"))
            verify(content)
            return Result(**content)
        except (TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"This version cannot read the result {self.result_path} ({error}). Delete it to repeat the run."
            ) from error

    def text_of(self, path: Path) -> str:
        """What one of the run's files of measurements holds; empty if there is none.

        Raises:
            ValueError: it is not UTF-8, or not what the run's result says.
        """
        content = path.read_bytes() if path.exists() else b""
        try:
            known = json.loads(self.result_path.read_text(encoding="utf-8"))["files"].get(path.name)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            known = None  # not ended, of an earlier version, or unreadable, which its reader reports
        if content and known is not None and hashlib.sha256(content).hexdigest() != known:
            raise ValueError(f"{path.name} was damaged or edited: its checksum is not that in {self.result_path.name}")
        return content.decode()

    def set_aside(self) -> Path:
        """Move the run's files into a hidden folder, which no report reads.

        The result is moved last. If the process is killed before that, nothing is lost and the run still counts as
        ended.

        Returns:
            The hidden folder.
        """
        numbers = (self.path / ".earlier" / str(number) for number in count(1))
        target = next(folder for folder in numbers if not folder.exists())
        target.mkdir(parents=True)
        if self.config.exists():
            shutil.copy(self.config, target)
        logs = (log.path for log in self.logs)
        for path in (*logs, self.checkpoint, self.best, self.weights, self.weight_summary, self.result_path):
            if path.exists():
                path.replace(target / path.name)
        return target

    def write_config(self, yaml: str) -> None:
        """Write ``config.yaml``."""
        write_atomically(self.config, yaml.encode())

    def write_result(self, result: Result) -> None:
        """Write ``result.json``, which ends the run, with the checksums of its own content and of the measurements.

        Raises:
            LostLockError: another process has taken the run over.
        """
        self.verify()
        measured = [log.path for log in self.logs] + [self.weight_summary]
        result.files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in measured if path.exists()}
        result.checksum = checksum_of(asdict(result))
        write_atomically(self.result_path, (json.dumps(asdict(result), indent=2) + "\n").encode())

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Lock the run; yields False at once if another process has locked it. A killed process loses its lock.

        Raises:
            OSError: the folder cannot be written to.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = lock_of(self.path)
        if not lock.acquire():
            yield False
            return
        self._lock = lock
        try:
            yield True
        finally:
            self._lock = None
            lock.release()

    def owner(self) -> Owner | None:
        """The process that works on the run; None if none does."""
        return lock_of(self.path).owner()

    def outlives(self) -> bool:
        """Whether the process that works on the run is alive. Finding out may take a heartbeat of its lock."""
        return lock_of(self.path).outlives()

    def verify(self) -> None:
        """Check that this process still has the run's lock, if it took it.

        Raises:
            LostLockError: another process has taken the run over.
        """
        if self._lock is not None:
            self._lock.verify()
