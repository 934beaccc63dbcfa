"""Metrics as TensorBoard event files, with the configuration as hyperparameters."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from sparse_bench.errors import ConfigError
from sparse_bench.limits import Name, checked
from sparse_bench.tracking.base import RunInfo, Status, Tracker

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def flatten(value: Any, name: str = "") -> dict[str, bool | int | float | str]:
    """Flatten a nested configuration to ``group/setting`` → scalar. Lists and nulls become text, as hparams need."""
    if isinstance(value, Mapping):
        parts = (flatten(inner, f"{name}/{key}" if name else str(key)) for key, inner in value.items())
        return {path: scalar for part in parts for path, scalar in part.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return {name: str(list(value))}
    return {name: value if isinstance(value, bool | int | float | str) else str(value)}


class TensorBoardTracker(Tracker):
    """Writes ``<run folder>/<subfolder>/events.out.tfevents…``; view many runs with ``tensorboard --logdir <output>``.

    Args:
        subfolder: folder of the event files, below the run's folder.

    Raises:
        ConfigError: the package ``tensorboard`` is not installed, or the subfolder is not below the run's folder.
    """

    @checked
    def __init__(self, subfolder: Name = "tensorboard") -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError(
                "logger=tensorboard needs the package 'tensorboard', which is not installed. "
                "Install it with: pip install 'sparse_bench[tensorboard]'"
            )
        if PurePath(subfolder).is_absolute() or ".." in PurePath(subfolder).parts:
            raise ConfigError(f"logger.tensorboard.subfolder must be below the run's own folder, not '{subfolder}'.")
        self.subfolder = subfolder
        self._info: RunInfo | None = None
        self._writer: SummaryWriter | None = None
        self._step: int | None = None

    def start(self, info: RunInfo) -> None:
        """Remember the run. Its file is opened with the first metrics, since it needs the first step."""
        self._info = info

    def log(self, metrics: dict[str, float], step: int, epoch: int) -> None:
        """Write each metric as a scalar, over steps."""
        writer = self._open(step)
        for name, value in {**metrics, "epoch": epoch}.items():
            writer.add_scalar(name, value, global_step=step)
        writer.flush()
        self._step = step

    def finish(self, status: Status, summary: dict[str, Any]) -> None:
        """Write the configuration as hyperparameters, and the summary's numbers under ``final/``."""
        if self._info is None:
            return
        writer = self._open(self._step)
        final = {f"final/{name}": value for name, value in summary.items() if isinstance(value, int | float)}
        labels = {f"labels/{name}": value for name, value in flatten(dict(self._info.labels)).items()}
        hyperparameters = {**flatten(self._info.config), **labels, "id": self._info.id, "status": status}
        # Without a run name, TensorBoard would create a second folder named by the time.
        writer.add_hparams(hyperparameters, final, run_name=".", global_step=self._step)
        writer.close()
        self._info = self._writer = None

    def _open(self, step: int | None) -> "SummaryWriter":
        """The writer. ``purge_step`` hides what an interrupted run wrote after the checkpoint from which it resumes."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            if self._info is None:
                raise RuntimeError("log() before start()")
            self._writer = SummaryWriter(str(self._info.folder / self.subfolder), purge_step=step)
        return self._writer
