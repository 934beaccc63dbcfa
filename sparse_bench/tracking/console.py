"""Metrics as lines of the log."""

import logging
from collections.abc import Sequence
from typing import Any

from sparse_bench.tracking.base import RunInfo, Status, Tracker

logger = logging.getLogger(__name__)


#: Longest line, with the time of day in front of it.
WIDTH, _TIME = 120, len("00:00:00 ")
#: Which metrics come first where there is no room for all: the loss, then those of held-out data.
_FIRST = ("train/loss", "valid/", "test/", "train/")
#: The same at a run's end.
_FIRST_AT_THE_END = ("test/", "valid/")


def aligned(metrics: dict[str, Any], room: int = WIDTH, first: Sequence[str] = _FIRST) -> str:
    """``name value`` pairs, padded so that lines with the same names align their values in columns.

    Args:
        metrics: name → value.
        room: largest number of characters. Metrics that do not fit are left out; ``…`` stands for them.
        first: beginnings of the names that come first, in this order.
    """
    ranks = {name: next((n for n, start in enumerate(first) if name.startswith(start)), len(first)) for name in metrics}
    cells: list[str] = []
    for name in sorted(metrics, key=lambda name: ranks[name]):
        value = metrics[name]
        shown = f"{value:.5g}" if isinstance(value, float) else str(value)
        cells.append(f"{name} {shown:<10}")
    line = "  ".join(cells).rstrip()
    while len(line) > room and len(cells) > 1:
        cells.pop()
        line = "  ".join([*cells, "…"])
    return line


class ConsoleTracker(Tracker):
    """One aligned line of at most 120 characters for each epoch or evaluation, and one at the end.

    ``metrics.jsonl`` in the run's folder has all metrics.

    Args:
        quiet: leave out the lines during training.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def start(self, info: RunInfo) -> None:
        """Log which run starts, and its folder."""
        logger.info("%s %s (%s, %s) in %s", info.experiment, info.name, info.job_type, info.id, info.folder)

    def log(self, metrics: dict[str, float], step: int, epoch: int) -> None:
        """Log one line, unless quiet."""
        if not self.quiet:
            start = f"epoch {epoch:4d}  step {step:7d}  "
            logger.info("%s%s", start, aligned(metrics, WIDTH - _TIME - len(start)))

    def finish(self, status: Status, summary: dict[str, Any]) -> None:
        """Log one line with the status and the summary's numbers."""
        numbers = {name: value for name, value in summary.items() if isinstance(value, int | float)}
        logger.info("%s  %s", status, aligned(numbers, WIDTH - _TIME - len(f"{status}  "), _FIRST_AT_THE_END))
