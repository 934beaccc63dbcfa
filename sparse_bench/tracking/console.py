"""Metrics as lines of the log."""

import logging
from typing import Any

from sparse_bench.tracking.base import RunInfo, Status, Tracker

logger = logging.getLogger(__name__)


def aligned(metrics: dict[str, Any]) -> str:
    """``name value`` pairs, padded so that lines with the same names align their values in columns."""
    cells = []
    for name, value in metrics.items():
        shown = f"{value:.5g}" if isinstance(value, float) else str(value)
        cells.append(f"{name} {shown:<10}")
    return "  ".join(cells).rstrip()


class ConsoleTracker(Tracker):
    """One aligned line for each epoch or evaluation, and one at the end.

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
            logger.info("epoch %4d  step %7d  %s", epoch, step, aligned(metrics))

    def finish(self, status: Status, summary: dict[str, Any]) -> None:
        """Log one line with the status and the summary's numbers."""
        numbers = {name: value for name, value in summary.items() if isinstance(value, int | float)}
        logger.info("%s  %s", status, aligned(numbers))
