"""Compute the plan from the runs of sweeps and the cost of arms: a table with one line per sweep."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparse_bench.evidence.display import MISSING, DisplayTable, duration, whole
from sparse_bench.plan.timings import CPU, Timing
from sparse_bench.sweeps import Job


@dataclass(frozen=True)
class Estimate:
    """The cost of a sweep.

    Attributes:
        sweep: its name.
        runs: number of its runs.
        left: number of runs that have not finished.
        arms: number of its arms.
        timed: number of arms with measurements.
        seconds: seconds of one worker for all runs; None if no arm was timed.
        seconds_left: seconds of one worker for the runs that are left.
        probed: whether any measurement comes from a probe.
        machines: names of the devices that were measured.
    """

    sweep: str
    runs: int
    left: int
    arms: int
    timed: int
    seconds: float | None
    seconds_left: float | None
    probed: bool
    machines: frozenset[str]


def estimate(jobs: Sequence[Job], timings: Mapping[str, Timing]) -> Estimate:
    """Estimate the cost of one sweep. An arm without measurements counts as the mean of the timed arms."""
    left = [job for job in jobs if job.result() is None]
    arms = {job.arm for job in jobs}
    known = {arm: timings[arm] for arm in arms if arm in timings}
    costs = [timing.seconds for timing in known.values()]
    mean = math.fsum(costs) / len(costs) if costs else None

    def total(chosen: Sequence[Job]) -> float | None:
        if mean is None:
            return None if chosen else 0.0
        return math.fsum(known[job.arm].seconds if job.arm in known else mean for job in chosen)

    return Estimate(
        sweep=jobs[0].sweep,
        runs=len(jobs),
        left=len(left),
        arms=len(arms),
        timed=len(known),
        seconds=total(jobs),
        seconds_left=total(left),
        probed=any(timing.probed for timing in known.values()),
        machines=frozenset(timing.machine for timing in known.values()),
    )


def plan_table(estimates: Sequence[Estimate], workers: int, device: str) -> DisplayTable:
    """The plan as a table, for ``workers`` parallel runs on this type of device."""
    rows = [_row(found.sweep, [found], workers) for found in estimates]
    if len(estimates) > 1:
        rows.append(_row("all", estimates, workers))
    return DisplayTable(
        _caption(estimates, workers, device),
        ["sweep", "runs", "left", "arms timed", "time of all", "time left"],
        rows,
        [False, True, True, True, True, True],
    )


def _row(name: str, estimates: Sequence[Estimate], workers: int) -> list[str]:
    runs, left, timed, arms = (
        sum(getattr(found, field) for found in estimates) for field in ("runs", "left", "timed", "arms")
    )
    times = [_time([getattr(found, field) for found in estimates], workers) for field in ("seconds", "seconds_left")]
    return [name, whole(runs), whole(left), f"{timed} of {arms}", *times]


def _time(seconds: Sequence[float | None], workers: int) -> str:
    known = [value for value in seconds if value is not None]
    if not known:
        return MISSING
    return ("over " if len(known) < len(seconds) else "") + duration(math.fsum(known) / workers)


def _caption(estimates: Sequence[Estimate], workers: int, device: str) -> str:
    machines = sorted(set().union(*(e.machines for e in estimates)))
    kind = f"{workers} CPU core{'' if workers == 1 else 's'}" if device == CPU else device
    parts = [f"Estimated for {kind}, from measurements on {', '.join(machines) or 'nothing yet'}."]
    if any(e.timed < e.arms for e in estimates):
        parts.append("An arm without measurements counts as the mean of its sweep's timed arms; make probe times more.")
    if any(e.probed for e in estimates):
        where = "no run has finished" if device == CPU else "no run has finished, or runs were slow on a shared GPU"
        parts.append(
            f"Where {where}, the estimate comes from timed steps, without evaluations, for all epochs allowed."
        )
    if device != CPU:
        parts.append("Runs may have shared the GPU. Then each takes longer, but all together end sooner.")
    return " ".join(parts)
