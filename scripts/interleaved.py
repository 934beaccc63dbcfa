"""What the timing scripts share: options, arms run in turn, the machine's line, and a page made from its rows.

Arms run in turn, so that what else the machine does hits all alike; what is told are medians.
"""

import argparse
import csv
import io
import os
import platform
import random
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sparse_bench.environment import machine, tune_process
from sparse_bench.evidence.display import MISSING, DisplayTable, markdown
from sparse_bench.kernels import kernel_available
from sparse_bench.kernels.linear import triton_available

Step = Callable[[], object]

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

    @property
    def least(self) -> float:
        """Milliseconds of the fastest repetition by the clock."""
        return 1e3 * min(self.clock)

    def ratios(self, other: "Times", of: str = "processor") -> tuple[list[float], str]:
        """Each round's ratio to another arm, and their quartiles as text.

        An arm that leaves out rounds leaves out the last ones, so equal positions are of one round.
        """
        pairs = zip(getattr(self, of), getattr(other, of), strict=False)
        found = [own / others for own, others in pairs]
        if len(found) < 2:
            return found, ""
        first, _, third = statistics.quantiles(found, n=4, method="inclusive")
        return found, f"{first:.2f} to {third:.2f}"


def interleave(
    arms: Mapping[str, Step], seconds: float, rounds: int = LEAST_ROUNDS, before: Mapping[str, Step] | None = None
) -> dict[str, Times]:
    """Times of each arm.

    Every arm runs once unmeasured. Then all take turns until the time is spent and each has run ``rounds`` times, in
    another order every time, as each finds the caches as the one before leaves them. An arm that alone takes a large
    part of the time is repeated less often than the others, but at least three times, or once where it takes all of it.
    What ``before`` names for an arm comes before each of its runs, unmeasured.
    """
    spent = {name: Times() for name in arms}
    before = before or {}
    for name, arm in arms.items():
        before.get(name, wait_for_gpu)()
        arm()
    start, done, order = time.perf_counter(), 0, random.Random(0)
    while done < rounds or time.perf_counter() - start < seconds:
        for name in order.sample(list(arms), len(arms)):
            clock = spent[name].clock
            least = 1 if sum(clock[:1]) > seconds else 3
            if len(clock) < least or sum(clock) <= seconds / 2:
                before.get(name, wait_for_gpu)()
                timed(arms[name], spent[name])
        done += 1
    return spent


def timed(arm: Callable[[], object], times: Times) -> None:
    """Run an arm once, and add its times."""
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


def parse(description: str, **options: Any) -> argparse.Namespace:
    """Read the options of a script, and prepare the process for training.

    Args:
        description: the script's docstring.
        options: name → default, or (default, help). The default says the type; a list takes any number of values, and
            a truth value is a switch. ``--output`` always exists.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="file to write the page to; none: print it alone")
    for name, option in options.items():
        default, text = option if isinstance(option, tuple) else (option, "")
        settings: dict[str, Any] = {"default": default, "help": f"{text} (default: %(default)s)".strip()}
        if isinstance(default, bool):
            settings["action"] = "store_true"
        elif isinstance(default, list):
            settings |= {"nargs": "*", "type": type(default[0])}
        else:
            settings["type"] = type(default)
        parser.add_argument(f"--{name.replace('_', '-')}", **settings)
    given = parser.parse_args()
    tune_process()
    if isinstance(threads := vars(given).get("threads"), int):
        torch.set_num_threads(threads)
    return given


def device_with_kernel(name: str) -> torch.device:
    """A device whose sparse kernel can be used; ends the script where there is none."""
    device = torch.device(name)
    available = kernel_available() if device.type == "cpu" else triton_available()
    if not available:
        raise SystemExit(f"the kernel is not available: {available.reason}")
    return device


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


def _command() -> str:
    """What makes the page. The variable has OpenMP's threads sleep while they wait; they may spin otherwise."""
    waiting = os.environ.get("OMP_WAIT_POLICY")
    return f"{f'OMP_WAIT_POLICY={waiting} ' if waiting else ''}python {shlex.join(sys.argv)}"


Row = Mapping[str, Any]


def report(
    output: Path | None,
    title: str,
    text: str,
    rows: Sequence[Row],
    *,
    notes: Iterable[str] = (),
    view: Callable[[pd.DataFrame], Iterable[Row]] | None = None,
    device: torch.device | None = None,
) -> None:
    """Print measurements as a page, and write them as CSV with the page as Markdown beside.

    Args:
        output: where, whatever its suffix; None: nowhere.
        title: of the page; a GPU's name is added.
        text: what was measured, in paragraphs, however their lines are broken.
        rows: one a measurement, all with the same columns.
        notes: a list that stands below the table.
        view: turns the rows into those of the page's table, where these are others.
        device: that was measured on.
    """
    on_gpu = device is not None and device.type != "cpu"
    title = f"{title}: {torch.cuda.get_device_name(device)}" if on_gpu else title
    head = [title, f"Made by `{_command()}`. {describe_machine(device)}.", *paragraphs(text)]
    columns = list(rows[0])
    table = io.StringIO()
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    comments = ["".join(f"# {line}\n" for line in lines) for lines in (head, notes)]
    measured = comments[0] + table.getvalue() + comments[1]
    page = page_of(measured, view)
    write(page, output and output.with_suffix(".md"))
    if output:
        output.with_suffix(".csv").write_text(measured, encoding="utf-8")


def paragraphs(text: str) -> list[str]:
    """Each as one line."""
    return [" ".join(part.split()) for part in text.strip().split("\n\n")]


def page_of(measured: str, view: Callable[[pd.DataFrame], Iterable[Row]] | None = None) -> str:
    """The Markdown page of a CSV file that :func:`report` wrote.

    Comments above the rows are title and paragraphs, those below are a list. Cells stand as they are in the file, with
    thousands separators in whole numbers.
    """
    lines = measured.splitlines()
    first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    head, notes = ([line[2:] for line in part if line.startswith("#")] for part in (lines[:first], lines[first:]))
    rows = "\n".join(line for line in lines if not line.startswith("#"))
    shown = list(view(pd.read_csv(io.StringIO(rows)))) if view else list(csv.DictReader(io.StringIO(rows)))
    parts = [f"# {head[0]}", *head[1:], table_of(shown).rstrip()]
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in notes)] if notes else parts) + "\n"


def table_of(rows: Sequence[Row]) -> str:
    """Rows as a table in Markdown."""
    texts = [[_cell(value) for value in row.values()] for row in rows]
    columns = list(rows[0])
    numeric = [not any(line[number][:1].isalpha() for line in texts) for number in range(len(columns))]
    return markdown(DisplayTable("", columns, texts, numeric)).lstrip()


def _cell(value: object) -> str:
    text = MISSING if value is None else str(value) or MISSING
    return f"{int(text):,}" if text.isdecimal() and len(text) > 4 else text


def write(text: str, path: Path | None) -> None:
    """Print a page and write it, if a path is given."""
    print(text)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
