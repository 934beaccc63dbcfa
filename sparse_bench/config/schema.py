"""The schema of the settings that every run has, and where the shipped configuration lies."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from hydra.core.config_store import ConfigStore
from pydantic import Field

from sparse_bench.limits import Count, Few, Name, NotNegative, Positive, Seed, Switch, one_of

_PACKAGE = Path(__file__).resolve().parents[1]
#: The configuration tree: inside an installed package, else beside it in the repository.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"


@dataclass
class TrainerConfig:
    """How long and how a run trains. These are the only defaults; ``conf/trainer`` holds what differs on purpose.

    Attributes:
        epochs: passes over the training examples.
        steps: stop after so many optimizer steps, if that comes before the epochs.
        precision: fp32, tf32 (on a GPU), bf16 (autocast) or fp16 (autocast and loss scaling).
        gradient_clip: largest norm of the gradient of all weights.
        accumulate: batches per optimizer step.
        schedule: a ``_target_`` from :mod:`sparse_bench.training.schedules`; null: constant.
        stop: a ``_target_`` from :mod:`sparse_bench.training.stopping`; null: train to the end.
        evaluate_every: epochs between two evaluations; 0: at the end alone.
        evaluate_first: evaluate before the first epoch too; ``select: best`` then may choose the first weights.
        select: the weights that the final evaluation uses: last, or best by ``monitor``.
        monitor: metric for ``select`` and ``early_stopping``, as valid/accuracy; null: the task's own.
        monitor_mode: max or min: which values of ``monitor`` are better.
        early_stopping: stop after so many evaluations without improvement.
        reset_optimizer: forget the optimizer's moments at every epoch end.
        checkpoint_seconds: at most so much work is lost when a run is killed.
        keep: of a finished run: nothing, weights, or checkpoint (weights and optimizer).
        deterministic: the same numbers on every repetition; on CUDA slower, and a warning where torch has no such way.
    """

    epochs: Count = 100
    steps: Count | None = None
    precision: Annotated[str, one_of("fp32", "tf32", "bf16", "fp16")] = "fp32"
    gradient_clip: Positive | None = None
    accumulate: Count = 1
    schedule: Any = None
    stop: Any = None
    evaluate_every: Annotated[int, Field(ge=0, le=2**31 - 1)] = 1
    evaluate_first: Switch = False
    select: Annotated[str, one_of("last", "best")] = "last"
    monitor: str | None = None
    monitor_mode: Annotated[str, one_of("min", "max")] | None = None
    early_stopping: Count | None = None
    reset_optimizer: Switch = False
    checkpoint_seconds: NotNegative = 60.0
    keep: Annotated[str, one_of("nothing", "weights", "checkpoint")] = "weights"
    deterministic: Switch = True


@dataclass
class Config:
    """One run."""

    experiment_name: Name = "ad_hoc"
    scale: Name = "paper"
    seed: Seed = 0
    model: Any = None
    dataset: Any = None
    sparsity: Any = None
    optimizer: Any = None
    start_from: Name | None = None
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: Any = None
    point: Any = None
    device: Name = "auto"
    threads: Few | None = None
    output: Name = "runs"
    progress: Switch = True
    force: Switch = False
    wait_for_others: Switch = False


def register() -> None:
    """Make the schema known to Hydra. Call once, before composing."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)


def choices(group: str) -> list[str]:
    """Names of the shipped files of a config group."""
    root = CONF / group
    return sorted(str(path.relative_to(root).with_suffix("")) for path in root.rglob("*.yaml"))
