"""The model of a finished run, for use outside the trainer; and ``sparse-bench export``, which writes its weights."""

import argparse
import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparse_bench import environment
from sparse_bench.commands import exit_status
from sparse_bench.config import build, own_code
from sparse_bench.config.nodes import SAFE, targets
from sparse_bench.errors import CheckpointError, ConfigError, DataError
from sparse_bench.model_factory import ModelFactory
from sparse_bench.record import FINISHED, Result, RunFolder, differences, write_atomically
from sparse_bench.run import assemble
from sparse_bench.sparsity.layers.structured_module import StructuredModule
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.tasks.base import Task
from sparse_bench.training import checkpoint
from sparse_bench.training.trainer import Trainer

logger = logging.getLogger(__name__)


def load_run(
    path: str | Path, *, device: str | None = None, data: str | Path | None = None, trust_code: bool = False
) -> "SavedRun":
    """Load a finished run that kept its weights (``trainer.keep=weights``).

    Args:
        path: the run's folder, ``runs/…/id``.
        device: such as ``cpu`` or ``cuda``; None: as the run's configuration says.
        data: folder from which relative paths of the run's data start; None: the folder where the run was started.
        trust_code: the configuration may name code outside this package and torch's optimizers. Such code is run, so
            set this only for runs whose author you trust.

    Raises:
        CheckpointError: there is no such run, it has not finished, it kept no weights, or they are damaged.
        ConfigError: the configuration names foreign code, or the device is not available.
        DataError: the data have changed, or cannot be found.
    """
    folder = RunFolder(Path(path).expanduser())
    result = folder.result() if folder.path.is_dir() else None
    if result is None or result.status != FINISHED:
        found = "no folder" if not folder.path.is_dir() else "no result" if result is None else "a failed run"
        raise CheckpointError(f"{folder.path} is not the folder of a finished run: there is {found}.")
    if not folder.weights.exists():
        raise CheckpointError(f"{folder.path} kept no weights. Run it again with trainer.keep=weights force=true.")
    plain = result.config
    parts = {name: plain[name] for name in ("model", "dataset", "sparsity", "optimizer", "trainer")}
    named = {str(node["_target_"]) for _, node in targets(parts)}
    foreign = sorted(name for name in named if not name.startswith(SAFE))
    if foreign and not trust_code:
        raise ConfigError(f"The run names {', '.join(foreign)}. To run that code: load_run(…, trust_code=True).")

    # Read the data from where the run read them, and compare them.
    start = Path(data).expanduser() if data is not None else Path(result.machine.get("folder", "."))
    if not start.is_dir():
        raise DataError(
            f"The folder '{start}', where relative paths of the run's data start, is gone. Give data=FOLDER."
        )
    with contextlib.chdir(start):
        task: Task = build(plain["dataset"], _partial_=False)
    if changed := differences(result.origin, {"data": task.checksums()}, ("data",)):
        raise DataError(
            f"{folder.path} was trained on other data: {changed}. data=FOLDER names the folder of the data."
        )
    if changed := differences(result.origin, {"code": own_code(plain)}, ("code",)):
        logger.warning("%s was trained with other code: %s since then", folder.path, changed)

    # Build the model as the run did, without moving the caller's random generators, and give it the weights.
    where = environment.device_of(plain["device"] if device is None else device)
    random_state = checkpoint.random_state(where)
    with _threads(result):
        trainer = assemble(plain, task, where, folder)
    checkpoint.restore_random_state(random_state, where)
    state = checkpoint.load(folder.weights)
    if result.weights not in (None, checkpoint.fingerprint(state["model"])):
        raise CheckpointError(f"The weights in {folder.weights} are not those of its result.")
    with checkpoint.fitting(folder.weights):
        trainer.model.load_state_dict(state["model"])
        trainer.scheme.load_state_dict(state["scheme"])
    trainer.model.eval()
    return SavedRun(trainer, result)


@contextlib.contextmanager
def _threads(result: Result) -> Iterator[None]:
    """A context with the run's number of threads, on which last digits depend."""
    before = torch.get_num_threads()
    torch.set_num_threads(result.machine.get("threads", before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class SavedRun:
    """A finished run; see :func:`load_run`.

    Attributes:
        result: everything that the run measured; ``result.metrics`` are its metrics.
    """

    _trainer: Trainer
    result: Result

    @property
    def model(self) -> nn.Module:
        """The model with its final weights, in evaluation mode."""
        return self._trainer.model

    @property
    def scheme(self) -> Scheme:
        """The scheme, attached to the model. ``scheme.weights`` are the sparse layers, with their masks."""
        return self._trainer.scheme

    @property
    def task(self) -> Task:
        """The task with its data."""
        return self._trainer.task

    def evaluate(self, split: str = "test") -> dict[str, float]:
        """Metrics on a split of the task, with the split's name as prefix.

        On the machine and the device of the run they equal ``result.metrics`` to the last digit.

        Raises:
            ConfigError: the task has no such split.
        """
        training = self.model.training
        with _threads(self.result):
            metrics = self._trainer.evaluate(split)
        self.model.train(training)
        return metrics

    def export(self) -> nn.Module:
        """The model in plain modules on the CPU, in evaluation mode; zeros where there is no weight."""
        plain = self.result.config
        scheme: Scheme = build(plain["sparsity"])
        exported: nn.Module = scheme.build(ModelFactory(plain["model"], self.task.sizes))
        with torch.no_grad():
            for name, tensor in exported.state_dict(keep_vars=True).items():
                tensor.copy_(self._full(name))
        return exported.eval()

    def _full(self, name: str) -> torch.Tensor:
        """The tensor that the dense model has under ``name``."""
        if name in self.scheme.weights:
            return self.scheme.weights[name].dense()
        path, _, attribute = name.rpartition(".")
        owner = self.model.get_submodule(path)
        if isinstance(owner, StructuredModule):
            return owner.full(attribute)
        tensor: torch.Tensor = getattr(owner, attribute)
        return tensor

    def densities(self) -> dict[str, dict[str, Any]]:
        """Sparse layer → its ``shape``, its number of ``weights``, and their ``density`` in the whole matrix."""
        return {
            name: {"shape": list(weight.shape), "weights": weight.active, "density": weight.active / weight.size}
            for name, weight in self.scheme.weights.items()
        }


def export_run(run: SavedRun, path: Path) -> Path:
    """Write the weights of a run's plain model as safetensors, and its densities as JSON with the ending ``.json``.

    Returns:
        The JSON file.
    """
    from safetensors.torch import save

    # Each tensor is written by itself, because the format has no shared ones.
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in run.export().state_dict().items()}
    result = run.result
    described = {
        "run": f"{result.experiment}/{result.id}",
        "labels": result.labels,
        "metrics": result.metrics,
        "layers": run.densities(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(tensors, {"format": "pt", "run": str(described["run"])}))
    other = path.with_suffix(".json")
    write_atomically(other, (json.dumps(described, indent=2) + "\n").encode())
    return other


def main(arguments: Sequence[str]) -> int:
    """The command ``sparse-bench export``; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="sparse-bench export",
        description="Write the weights of a finished run as safetensors, with plain names and zeros where there is no "
        "weight, and its densities as JSON. The run must have kept its weights (trainer.keep=weights).",
    )
    parser.add_argument("run", metavar="RUN", help="the run's folder, runs/…/id")
    parser.add_argument("--output", metavar="FILE", help="file of weights (default: RUN/model.safetensors)")
    parser.add_argument("--data", metavar="FOLDER", help="where relative paths of its data start, if that has changed")
    parser.add_argument("--trust-code", action="store_true", help="run code outside this package that the run names")
    given = parser.parse_args(arguments)
    environment.tune_process()
    path = Path(given.output or Path(given.run) / "model.safetensors").expanduser()
    if path.suffix != ".safetensors":
        parser.error("the name of FILE ends in .safetensors")

    def write() -> int:
        other = export_run(load_run(given.run, device="cpu", data=given.data, trust_code=given.trust_code), path)
        print(f"{path} ({path.stat().st_size / 1e6:.1f} MB) and {other}")
        return 0

    return exit_status(write)
