"""What the scripts share: options from a function's signature, arms that are timed in turn, and tables.

Arms run in turn, so that what else the machine does hits all alike. What is told are medians.
"""

import argparse
import inspect
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
from sparse_bench.evidence.csv_tables import csv_text
from sparse_bench.evidence.display import MISSING, DisplayTable, markdown
from sparse_bench.kernels import kernel_available
from sparse_bench.kernels.linear import triton_available

Step = Callable[[], object]
Row = Mapping[str, Any]

LEAST_ROUNDS = 5


@dataclass
class Times:
    """Seconds of each repetition of one arm: of the clock, and of all threads' processor time.

    Processor time is the steadier of the two on a machine that others use.
    """

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def ms(self, of: str = "clock") -> float:
        """The median in milliseconds."""
        return 1e3 * statistics.median(getattr(self, of))

    def ratios(self, base: "Times", of: str = "clock") -> list[float]:
        """Each round's ratio to another arm. An arm that leaves out rounds leaves out the last ones."""
        return [own / other for own, other in zip(getattr(self, of), getattr(base, of), strict=False)]

    def over(self, base: "Times", of: str = "clock") -> float:
        """The median of the rounds' ratios to another arm."""
        return statistics.median(self.ratios(base, of))

    def quartiles(self, base: "Times", of: str = "clock") -> str:
        """The quartiles of the rounds' ratios to another arm, as text; empty after one round."""
        found = self.ratios(base, of)
        if len(found) < 2:
            return ""
        first, _, third = statistics.quantiles(found, n=4, method="inclusive")
        return f"{first:.2f} to {third:.2f}"


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


def timed(arm: Step, times: Times) -> None:
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

    def product(dtype: torch.dtype) -> Step:
        a, b = torch.ones(1024, 512, dtype=dtype, device=device), torch.ones(512, 512, dtype=dtype, device=device)
        return lambda: torch.mm(a, b)

    times = interleave({"float32": product(torch.float32), "bfloat16": product(torch.bfloat16)}, seconds=0.1)
    return min(times["bfloat16"].clock) < min(times["float32"].clock)


def device_with_kernel(name: str) -> torch.device:
    """A device whose sparse kernel can be used; ends the script where there is none."""
    device = torch.device(name)
    available = kernel_available() if device.type == "cpu" else triton_available()
    if not available:
        raise SystemExit(f"the kernel is not available: {available.reason}")
    return device


def run(*functions: Callable[..., Any]) -> Any:
    """Call the function that the command line names, or the only one; its parameters are options."""
    function, options = _chosen(functions)
    return function(**options)


def measure(*tables: Callable[..., Iterable[Row | str]], wide: Mapping[str, tuple[str, str]] | None = None) -> None:
    """Make the table that the command line names: print it as a page, and write it as CSV with the page beside.

    Args:
        tables: functions. Their parameters are options, and their docstrings are the pages' titles and texts. They
            yield rows, all with the same columns, and notes that stand below these.
        wide: tables that are shown with a column for each value of their first column here, which holds the second
            one's values. The CSV file has long rows.
    """
    table, options = _chosen(tables, output=None)
    output, device = options.pop("output"), options.get("device", "cpu")
    tune_process()
    torch.manual_seed(0)
    if "threads" in options:
        torch.set_num_threads(options["threads"])
    found = list(table(**options))
    notes = [note for note in found if isinstance(note, str)]
    frame = pd.DataFrame([row for row in found if not isinstance(row, str)])
    title, *text = paragraphs(inspect.getdoc(table) or "")
    title = title.rstrip(".") + ("" if device == "cpu" else f": {torch.cuda.get_device_name(device)}")
    default = {name: parameter.default for name, parameter in inspect.signature(table).parameters.items()}
    several = [name for name, value in options.items() if isinstance(value, list) and len(value) > len(default[name])]
    head = [", by ".join([title, *several]), f"Made by `{_command()}`. {_machine(device)}.", *text]
    lines = [*(f"# {line}\n" for line in head), csv_text(frame), *(f"# {note}\n" for note in notes)]
    if wide and table.__name__ in wide:
        columns, values = wide[table.__name__]
        index = list(frame.columns[: list(frame.columns).index(columns)])
        frame = frame.pivot_table(values, index, columns, sort=False).round(2).reset_index()
    shown = table_of(frame.astype(object).where(frame.notna(), None).to_dict("records")).rstrip()
    page = "\n\n".join(filter(None, [f"# {head[0]}", *head[1:], shown, "\n".join(f"- {note}" for note in notes)]))
    write(f"{page}\n", output and output.with_suffix(".md"))
    if output:
        output.with_suffix(".csv").write_text("".join(lines), encoding="utf-8")


def _chosen(functions: Sequence[Callable[..., Any]], **more: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function that the command line names, and its options; ``more`` have all of them."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=sys.modules[functions[0].__module__].__doc__, formatter_class=form)
    parser.set_defaults(function=functions[0])
    commands = parser.add_subparsers(required=True) if len(functions) > 1 else None
    for function in functions:
        about = (inspect.getdoc(function) or "").partition("\n")[0]
        command = parser if commands is None else commands.add_parser(function.__name__, help=about)
        command.set_defaults(function=function)
        own = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
        for name, default in (more | own).items():
            # The default says the type; a tuple takes any number of values, and a truth value is a switch.
            kind: dict[str, Any] = {"type": Path if default is None else type(default)}
            if isinstance(default, bool):
                kind = {"action": "store_true"}
            elif isinstance(default, tuple):
                kind = {"nargs": "*", "type": type(default[0])}
            command.add_argument(f"--{name.replace('_', '-')}", default=default, help="(default: %(default)s)", **kind)
    options = vars(parser.parse_args())
    return options.pop("function"), options


def _machine(device: str) -> str:
    """Device or processor, cores, threads, load, kernel and versions in one line."""
    host, on_cpu = machine(torch.device(device)), device == "cpu"
    kernel = (kernel_available() if on_cpu else triton_available()).reason
    flags = {"products": torch.backends.cuda.matmul.allow_tf32, "cuDNN": torch.backends.cudnn.allow_tf32}
    # With TF32 float32 is computed with ten bits of mantissa; the defaults of cuDNN and of products differ.
    tf32 = f"; TF32 in {' and '.join(name for name, allowed in flags.items() if allowed) or 'nothing'}"
    return (
        f"{'' if on_cpu else host['device'] + '; '}{host['processor']}, {host['cores']} cores, {host['threads']} "
        f"threads, {os.getloadavg()[0]:.1f} programs running on average, kernel with {kernel}, "
        f"torch {torch.__version__}, Python {platform.python_version()}{'' if on_cpu else tf32}"
    )


def _command() -> str:
    """What makes the page. The variable has OpenMP's threads sleep while they wait; they may spin otherwise."""
    waiting = os.environ.get("OMP_WAIT_POLICY")
    return f"{f'OMP_WAIT_POLICY={waiting} ' if waiting else ''}python {shlex.join(sys.argv)}"


def paragraphs(text: str) -> list[str]:
    """Each as one line."""
    return [" ".join(part.split()) for part in text.strip().split("\n\n")]


def table_of(rows: Sequence[Row]) -> str:
    """Rows as a table in Markdown; whole numbers have thousands separators."""
    texts = [[_cell(value) for value in row.values()] for row in rows]
    columns = list(map(str, rows[0]))
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
