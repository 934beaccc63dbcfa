"""The time that a run of each arm takes, from finished runs and from probes that timed a few steps.

Costs are seconds of one worker: a CPU core, or a GPU. A finished run gives its total time. A probe gives the time of
one training epoch, without evaluations and early stopping.
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
from sparse_bench.evidence.csv_tables import csv_text, read_rows
from sparse_bench.evidence.store import key_of
from sparse_bench.record import FINISHED, write_atomically
from sparse_bench.sweeps import Job

#: Columns of committed tables of runs from which a cost is computed.
_SECONDS, _THREADS, _DEVICE, _PROCESSOR = "seconds:total", "made:threads", "made:device", "made:processor"
CPU = "cpu"


class TimingsError(SparseBenchError):
    """A table of probes cannot be read."""


@dataclass(frozen=True)
class Probe:
    """The timed steps of an arm.

    Attributes:
        sweep: the sweep's name.
        arm: the arm's overrides, as in :class:`Job`.
        settings: fingerprint of the arm's settings; if they have changed since, the probe is out of date.
        epoch_seconds: seconds of a training epoch, the mean of the first and the last one, because batches may grow.
        batches: number of timed batches.
        device: ``cpu`` (one thread, processor time) or a GPU's name (wall-clock time).
        processor: the CPU's name.
        torch: torch's version.
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
        seconds: seconds of one worker.
        probed: whether it comes from a probe, not from finished runs.
        device: ``cpu`` or a GPU's name.
        machine: names of the processors or GPUs that were measured.
    """

    seconds: float
    probed: bool
    device: str
    machine: str


def gpus(tables: Iterable[pd.DataFrame] = (), probes: Iterable[Probe] = ()) -> list[str]:
    """Names of the GPUs with measurements."""
    known = {probe.device for probe in probes}
    for table in tables:
        if _DEVICE in table.columns:
            known |= set(table.loc[table["status"] == FINISHED, _DEVICE].dropna())
    return sorted(known - {CPU})


def timings(
    jobs: Sequence[Job], device: str, tables: Iterable[pd.DataFrame] = (), probes: Iterable[Probe] = ()
) -> dict[str, Timing]:
    """Arm → the cost of one run of it, for the arms of a sweep with measurements on this type of device.

    Finished runs of any seed take precedence over probes. But on a GPU, a finished run may have shared it with others.
    So there the smaller of the two counts.

    Args:
        jobs: the runs of one sweep.
        device: ``cpu`` or the name of a GPU.
        tables: committed tables of runs, whose folders may be on another machine.
        probes: probes of any sweep.
    """
    # First the probes that are still valid.
    finished = _finished(jobs, tables)
    found: dict[str, Timing] = {}
    for probe in probes:
        job = next((job for job in jobs if (job.sweep, job.arm) == (probe.sweep, probe.arm)), None)
        if job is not None and probe.device == device and probe.settings == fingerprint(job):
            seconds = probe.epoch_seconds * job.config.trainer.epochs
            found[job.arm] = Timing(seconds, True, device, _machine(probe.processor, device))
    # Then the finished runs of each arm, which replace its probe.
    by_arm: dict[str, list[Timing]] = {}
    for job in jobs:
        for name in _names(job, finished):
            cost = finished.get((job.experiment, name))
            if cost is not None and cost.device == device:
                by_arm.setdefault(job.arm, []).append(cost)
    for arm, costs in by_arm.items():
        mean = sum(cost.seconds for cost in costs) / len(costs)
        if device != CPU and arm in found and found[arm].seconds < mean:
            continue
        found[arm] = Timing(mean, False, device, " and ".join(sorted({cost.machine for cost in costs})))
    return found


def fingerprint(job: Job) -> str:
    """A hash of all settings that define a run, except its seed; starts with a letter, so tables read it as text."""
    settings = {key: value for key, value in identity(job.config).items() if key != "seed"}
    return "c" + hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def _names(job: Job, finished: Iterable[tuple[str, str | None]]) -> list[str]:
    """Possible names of the run. The name of a second stage depends on its first one, of which several may exist."""
    if job.id is not None:
        return [job.id]
    firsts = [f"{experiment}/{name}" for experiment, name in finished if experiment == job.config.start_from]
    return [run_id(job.config, first) for first in firsts]


def _finished(jobs: Sequence[Job], tables: Iterable[pd.DataFrame]) -> Mapping[tuple[str, str | None], Timing]:
    """(experiment, id) → the cost of a finished run, from the tables and from the jobs' own folders."""
    found: dict[tuple[str, str | None], Timing] = {}
    for table in tables:
        if not {_SECONDS, _THREADS, _DEVICE, _PROCESSOR} <= set(table.columns):
            continue
        for row in table[table["status"] == FINISHED].dropna(subset=[_SECONDS, _THREADS]).to_dict("records"):
            device, processor = str(row[_DEVICE]), str(row[_PROCESSOR])
            seconds = {str(c).removeprefix("seconds:"): v for c, v in row.items() if str(c).startswith("seconds:")}
            cost = _worker_seconds(seconds, device, int(row[_THREADS]))
            found[key_of(row)] = Timing(cost, False, device, _machine(processor, device))
    for job in jobs:
        result = job.result()
        if result is not None:
            machine = result.machine
            cost = _worker_seconds(result.seconds, machine["device"], int(machine["threads"]))
            name = _machine(machine["processor"], machine["device"])
            found[job.experiment, job.id] = Timing(cost, False, machine["device"], name)
    return found


def _worker_seconds(seconds: Mapping[str, float], device: str, threads: int) -> float:
    """Seconds of one worker for a whole run. On a CPU, processor time corrects for other load, if it is known."""
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
    """The probes in a file; none if the file does not exist.

    Raises:
        TimingsError: the file is not a table of probes.
    """
    if not path.is_file():
        return []
    names = {field.name for field in fields(Probe)}
    found = []
    for row in read_rows(path).to_dict("records"):
        if row.keys() != names:
            raise TimingsError(f"'{path}' is not a table of probes: its columns must be {', '.join(sorted(names))}.")
        found.append(Probe(**{**row, "torch": str(row["torch"]), "epoch_seconds": float(row["epoch_seconds"])}))  # type: ignore[arg-type]
    return found


def write_probes(path: Path, probes: Iterable[Probe]) -> None:
    """Write probes, sorted; a later probe replaces an earlier one of the same arm on the same machine."""
    kept = {(probe.sweep, probe.arm, probe.device, probe.processor): probe for probe in probes}
    rows = [asdict(kept[key]) for key in sorted(kept)]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = csv_text(pd.DataFrame(rows, columns=[field.name for field in fields(Probe)]))
    write_atomically(path, text.encode())
