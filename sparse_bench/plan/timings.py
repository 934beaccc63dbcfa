"""How long arms of sweeps take: from finished runs, and from probes that timed a few steps.

Costs are seconds of one worker: a CPU core, or a GPU. Finished runs say how long they took as a whole; a probe says how
long an epoch of training takes, without evaluations and without an early end.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd

from sparse_bench.config import identity, run_id
from sparse_bench.errors import SparseBenchError
from sparse_bench.evidence.store import csv_text, read_rows
from sparse_bench.record import FINISHED, write_atomically
from sparse_bench.sweeps import Job

#: Columns of committed tables of runs that a cost is made of.
_SECONDS, _THREADS, _DEVICE, _PROCESSOR = "seconds:total", "made:threads", "made:device", "made:processor"
CPU = "cpu"


class TimingsError(SparseBenchError):
    """A table of probes that cannot be read."""


@dataclass(frozen=True)
class Probe:
    """Steps of an arm that were timed.

    Attributes:
        sweep: the sweep's name.
        arm: the arm's overrides, as in :class:`Job`.
        settings: fingerprint of the arm's settings then; with others the probe is out of date.
        epoch_seconds: of training; the mean of the first and the last epoch, because batches may grow.
        batches: how many were timed.
        device: ``cpu`` (one thread, seconds of the processor) or a GPU's name (seconds of the clock).
        processor: the CPU's name.
        torch: its version.
    """

    sweep: str
    arm: str
    settings: str
    epoch_seconds: float
    batches: int
    device: str
    processor: str
    torch: str


@dataclass(frozen=True)
class Timing:
    """The cost of one run of an arm.

    Attributes:
        seconds: of one worker.
        probed: whether it comes from a probe, not from finished runs.
        machine: what it was measured on.
    """

    seconds: float
    probed: bool
    machine: str


def gpus(tables: Iterable[pd.DataFrame] = (), probes: Iterable[Probe] = ()) -> list[str]:
    """Names of the GPUs that something was timed on."""
    known = {probe.device for probe in probes}
    for table in tables:
        if _DEVICE in table.columns:
            known |= set(table.loc[table["status"] == FINISHED, _DEVICE].dropna())
    return sorted(known - {CPU})


@dataclass(frozen=True)
class _Cost:
    """What a finished run cost."""

    seconds: float
    device: str
    machine: str


def timings(
    jobs: Sequence[Job], device: str, tables: Iterable[pd.DataFrame] = (), probes: Iterable[Probe] = ()
) -> dict[str, Timing]:
    """The cost of one run, by arm, for the arms of a sweep that something is known of.

    Finished runs of any seed count before probes; each on a device of this kind alone. On a GPU the clock counts, and
    runs may have shared it with others: there a probe counts where it says less.

    Args:
        jobs: the runs of one sweep.
        device: ``cpu`` or the name of a GPU.
        tables: committed tables of runs, whose folders may be elsewhere.
        probes: of any sweep.
    """
    finished = _finished(jobs, tables)
    found: dict[str, Timing] = {}
    for probe in probes:
        job = next((job for job in jobs if (job.sweep, job.arm) == (probe.sweep, probe.arm)), None)
        if job is not None and probe.device == device and probe.settings == fingerprint(job):
            seconds = probe.epoch_seconds * job.config.trainer.epochs
            found[job.arm] = Timing(seconds, True, _machine(probe.processor, probe.device))
    by_arm: dict[str, list[_Cost]] = {}
    for job in jobs:
        for name in _names(job, finished):
            cost = finished.get((job.experiment, name))
            if cost is not None and cost.device == device:
                by_arm.setdefault(job.arm, []).append(cost)
    for arm, costs in by_arm.items():
        mean = sum(cost.seconds for cost in costs) / len(costs)
        if device != CPU and arm in found and found[arm].seconds < mean:
            continue
        found[arm] = Timing(mean, False, " and ".join(sorted({cost.machine for cost in costs})))
    return found


def fingerprint(job: Job) -> str:
    """Of all settings that define a run but its seed. Begins with a letter: no table takes it for a number."""
    settings = {key: value for key, value in identity(job.config).items() if key != "seed"}
    return "c" + hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def _names(job: Job, finished: Iterable[tuple[str, str | None]]) -> list[str]:
    """What the run is called. A second stage is named after its first: where that has not run, after any that has."""
    if job.id is not None:
        return [job.id]
    firsts = [f"{experiment}/{name}" for experiment, name in finished if experiment == job.config.start_from]
    return [run_id(job.config, first) for first in firsts]


def _finished(jobs: Sequence[Job], tables: Iterable[pd.DataFrame]) -> Mapping[tuple[str, str | None], _Cost]:
    """What finished runs have cost, by experiment and id: those in the tables, and those in the jobs' own folders."""
    found: dict[tuple[str, str | None], _Cost] = {}
    for table in tables:
        if not {_SECONDS, _THREADS, _DEVICE, _PROCESSOR} <= set(table.columns):
            continue
        for row in table[table["status"] == FINISHED].dropna(subset=[_SECONDS, _THREADS]).to_dict("records"):
            device, processor = str(row[_DEVICE]), str(row[_PROCESSOR])
            seconds = {str(c).removeprefix("seconds:"): v for c, v in row.items() if str(c).startswith("seconds:")}
            key = (str(row["experiment"]), str(row["id"]))
            cost = _worker_seconds(seconds, device, int(row[_THREADS]))
            found[key] = _Cost(cost, device, _machine(processor, device))
    for job in jobs:
        result = job.result()
        if result is not None:
            machine = result.machine
            cost = _worker_seconds(result.seconds, machine["device"], int(machine["threads"]))
            name = _machine(machine["processor"], machine["device"])
            found[job.experiment, job.id] = _Cost(cost, machine["device"], name)
    return found


def _worker_seconds(seconds: Mapping[str, float], device: str, threads: int) -> float:
    """Of a whole run; as if the machine had had nothing else to do, where the run knows its processor time."""
    total, train, processor = (seconds.get(name) for name in ("total", "train", "train_processor"))
    assert total is not None
    if device != CPU:
        return float(total)
    if not train or not processor or math.isnan(processor):
        return float(total) * threads
    return float(total) * processor / train


def _machine(processor: str, device: str) -> str:
    return processor if device == CPU else device


def read_probes(path: Path) -> list[Probe]:
    """The probes that a file holds; none if there is no file.

    Raises:
        TimingsError: it is no such table.
    """
    if not path.is_file():
        return []
    names = {field.name for field in fields(Probe)}
    found = []
    for row in read_rows(path).to_dict("records"):
        if row.keys() != names:
            raise TimingsError(f"'{path}' is no table of probes: its columns have to be {', '.join(sorted(names))}.")
        found.append(Probe(**{**row, "torch": str(row["torch"]), "epoch_seconds": float(row["epoch_seconds"])}))  # type: ignore[arg-type]
    return found


def write_probes(path: Path, probes: Iterable[Probe]) -> None:
    """Write probes, sorted; of two of the same arm on the same machine the later one counts."""
    kept = {(probe.sweep, probe.arm, probe.device, probe.processor): probe for probe in probes}
    rows = [asdict(kept[key]) for key in sorted(kept)]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = csv_text(pd.DataFrame(rows, columns=[field.name for field in fields(Probe)]))
    write_atomically(path, text.encode())
