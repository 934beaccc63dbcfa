"""The journal of a sweep: its jobs, the folders of their runs, and how they ended, for all processes that share it.

<sweep folder>/
    multirun.yaml        written by Hydra
    jobs-0.json          the overrides of each job, from job 0; another file for each further batch of a search
    journal-HOST.jsonl   a line when a job begins and when it ends; a file a machine, because only lines of one machine
                         can be appended to a file that machines share
"""

import json
import math
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sparse_bench.record import FINISHED, Result, write_atomically

#: Environment variable that names the list of jobs of a worker: a process that shares them with others.
JOBS = "SPARSE_BENCH_JOBS"
#: Statuses of jobs without a result: an error before any work; another process works on the run; not begun, or
#: interrupted.
REFUSED, ELSEWHERE, LEFT = "refused", "elsewhere", "left"


class Ended(NamedTuple):
    """How a job of a sweep ended.

    Attributes:
        status: the status of its result.
        elsewhere: the run's folder if another process works on the run, else None.
        warned: whether its result contains warnings.
        objective: the metric that the task monitors; None without a result.
        error: first line of the error; empty without one.
    """

    status: str
    elsewhere: Path | None = None
    warned: bool = False
    objective: float | None = None
    error: str = ""

    def __float__(self) -> float:
        """What a search optimises."""
        if self.objective is None:
            raise ValueError(f"the run has no result: {self.status}")
        return self.objective


@dataclass
class Entry:
    """What the journal holds of a job.

    Attributes:
        folder: folder of its run; None before it began.
        ended: how it ended; None if it has not.
    """

    folder: Path | None = None
    ended: Ended | None = None


@dataclass
class Journal:
    """The journal in the folder of a sweep."""

    sweep: Path
    _entries: dict[int, Entry] = field(default_factory=dict)
    _read: dict[Path, int] = field(default_factory=dict)
    _looked: float = -math.inf

    def announce(self, overrides: Sequence[Sequence[str]], first: int) -> Path:
        """Write the list of jobs, whose numbers begin with ``first``, and return its file."""
        self.sweep.mkdir(parents=True, exist_ok=True)
        path = self.sweep / f"jobs-{first}.json"
        write_atomically(path, json.dumps([list(one) for one in overrides], indent=0).encode())
        return path

    def jobs(self) -> dict[int, list[str]]:
        """The overrides of each job by its number."""
        found: dict[int, list[str]] = {}
        for path in self.sweep.glob("jobs-*.json"):
            first, overrides = read_jobs(path)
            found.update(enumerate(overrides, first))
        return dict(sorted(found.items()))

    def begin(self, job: int, folder: Path) -> None:
        """Note the folder of a job's run."""
        self._append({"job": job, "folder": str(folder.absolute())})

    def end(self, job: int, how: Ended) -> None:
        """Note how a job ended."""
        self._append({"job": job, "ended": how._replace(elsewhere=None)._asdict()})

    def entries(self, age: float = 0.0) -> dict[int, Entry]:
        """What is known of each job, by its number. Lines that came since the last call are read.

        Args:
            age: seconds since the last reading within which nothing is read; spares a file system that many share.
        """
        if time.monotonic() - self._looked < age:
            return self._entries
        self._looked = time.monotonic()
        for path in sorted(self.sweep.glob("journal-*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                lines = file.read()
            whole = lines.rpartition(b"\n")[0]  # the last line may still be written
            self._read[path] = self._read.get(path, 0) + (len(whole) + 1 if whole else 0)
            for line in whole.splitlines():
                self._note(line)
        return self._entries

    def _note(self, line: bytes) -> None:
        try:
            note = json.loads(line)
            ended = Ended(**note["ended"]) if "ended" in note else None
            entry = self._entries.setdefault(note["job"], Entry())
        except (ValueError, LookupError, TypeError):
            return  # a machine that crashed leaves bytes of zero, another version other fields
        if "folder" in note:
            entry.folder = Path(note["folder"])
        entry.ended = ended or entry.ended

    def _append(self, note: dict[str, Any]) -> None:
        path = self.sweep / f"journal-{socket.gethostname()}.jsonl"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(file, json.dumps(note).encode() + b"\n")
        finally:
            os.close(file)


def how_it_ended(result: Result, monitored: str | None = None) -> Ended:
    """How a run ended, from its result. ``monitored`` names the metric that a search optimises."""
    objective = result.metrics.get(monitored or "") if result.status == FINISHED else None
    error = first_line(f"{result.error['type']}: {result.error['message']}") if result.error else ""
    return Ended(result.status, None, bool(result.warnings), objective, error)


def first_line(text: str) -> str:
    """The first line of a text, at most 300 characters."""
    return text.partition("\n")[0][:300]


def read_jobs(path: Path) -> tuple[int, list[list[str]]]:
    """The number of the first job in a list of jobs, and the overrides of each."""
    return int(path.stem.rpartition("-")[2]), json.loads(path.read_text())
