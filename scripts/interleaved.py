"""What the timing scripts share: arms run in turn, so that what else the machine does hits all alike, and medians."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

LEAST_ROUNDS = 5


def interleave(
    arms: Mapping[str, Callable[[], object]], seconds: float, rounds: int = LEAST_ROUNDS
) -> dict[str, float]:
    """Median seconds of each arm.

    Every arm runs once unmeasured, then all in turn until the time is spent and each has run ``rounds`` times. An arm
    that alone takes a large part of the time is repeated less often than the others, but at least three times.
    """
    spent: dict[str, list[float]] = {name: [] for name in arms}
    for arm in arms.values():
        arm()
    start, done = time.perf_counter(), 0
    while done < rounds or time.perf_counter() - start < seconds:
        for name, arm in arms.items():
            if len(spent[name]) >= 3 and sum(spent[name]) > seconds / 2:
                continue
            begin = time.perf_counter()
            arm()
            spent[name].append(time.perf_counter() - begin)
        done += 1
    return {name: statistics.median(times) for name, times in spent.items()}


def describe_machine() -> str:
    """Processor, cores, threads and versions in one line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )
