"""What the timing scripts share: arms run in turn, so that what else the machine does hits all alike, and medians."""

import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from sparse_bench.environment import machine
from sparse_bench.kernels import kernel_available
from sparse_bench.kernels.linear import triton_available

LEAST_ROUNDS = 5


@dataclass
class Times:
    """Seconds of each repetition of one arm: of the clock, and of all threads' processor time."""

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """By the clock."""
        return statistics.median(self.clock)

    @property
    def median_processor(self) -> float:
        """By the processor: the steadier of the two on a machine that others use."""
        return statistics.median(self.processor)

    @property
    def milliseconds(self) -> float:
        """The median by the clock."""
        return 1e3 * self.median


def interleave(
    arms: Mapping[str, Callable[[], object]], seconds: float, rounds: int = LEAST_ROUNDS
) -> dict[str, Times]:
    """Times of each arm.

    Every arm runs once unmeasured. Then all take turns until the time is spent and each has run ``rounds`` times, in
    another order every time, as each finds the caches as the one before leaves them. An arm that alone takes a large
    part of the time is repeated less often than the others, but at least three times, or once where it takes all of it.
    """
    spent = {name: Times() for name in arms}
    for arm in arms.values():
        arm()
    start, done, order = time.perf_counter(), 0, random.Random(0)
    while done < rounds or time.perf_counter() - start < seconds:
        for name in order.sample(list(arms), len(arms)):
            clock = spent[name].clock
            least = 1 if sum(clock[:1]) > seconds else 3
            if len(clock) < least or sum(clock) <= seconds / 2:
                _run(arms[name], spent[name])
        done += 1
    return spent


def _run(arm: Callable[[], object], times: Times) -> None:
    wait_for_gpu()
    begin, begin_processor = time.perf_counter(), time.process_time()
    arm()
    wait_for_gpu()
    times.clock.append(time.perf_counter() - begin)
    times.processor.append(time.process_time() - begin_processor)


def wait_for_gpu() -> None:
    """Until it has done all that it was given, if this process uses one: calls return before that."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def bf16_is_native(device: torch.device) -> bool:
    """Whether products in bfloat16 are faster there than in float32; some processors only emulate them."""

    def product(dtype: torch.dtype) -> Callable[[], object]:
        a, b = torch.ones(1024, 512, dtype=dtype, device=device), torch.ones(512, 512, dtype=dtype, device=device)
        return lambda: torch.mm(a, b)

    times = interleave({"float32": product(torch.float32), "bfloat16": product(torch.bfloat16)}, seconds=0.1)
    return min(times["bfloat16"].clock) < min(times["float32"].clock)


def titled(title: str, device: torch.device) -> str:
    """The title of a table, with the GPU's name if it is of one."""
    return title if device.type == "cpu" else f"{title}: {torch.cuda.get_device_name(device)}"


def describe_machine(device: torch.device | None = None) -> str:
    """Device or processor, cores, threads, load, kernel and versions in one line."""
    host = machine(device or torch.device("cpu"))
    on_cpu = host["device"] == "cpu"
    gpu = "" if on_cpu else f"{host['device']}; "
    kernel = (kernel_available() if on_cpu else triton_available()).reason
    return (
        f"{gpu}{host['processor']}, {host['cores']} cores, {torch.get_num_threads()} threads, "
        f"{os.getloadavg()[0]:.1f} programs running on average, kernel with {kernel}, "
        f"torch {torch.__version__}, Python {platform.python_version()}{'' if on_cpu else _tf32()}"
    )


def _tf32() -> str:
    """Where float32 is computed with ten bits of mantissa: cuDNN's choice and that of products differ by default."""
    flags = {"products": torch.backends.cuda.matmul.allow_tf32, "cuDNN": torch.backends.cudnn.allow_tf32}
    return f"; TF32 in {' and '.join(name for name, allowed in flags.items() if allowed) or 'nothing'}"


def write(text: str, path: Path | None) -> None:
    """Print a page and write it, if a path is given."""
    print(text)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
