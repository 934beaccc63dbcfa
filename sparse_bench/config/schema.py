"""The schema of the settings that every run has, and the folder of the shipped configuration."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from hydra.core.config_store import ConfigStore
from pydantic import Field

from sparse_bench.limits import Count, Few, Name, NotNegative, Positive, Seed, Switch, one_of

_PACKAGE = Path(__file__).resolve().parents[1]
#: The configuration tree: inside an installed package, or next to it in the repository.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"


@dataclass
class TrainerConfig:
    """How a run trains. These are the only defaults; ``conf/trainer`` sets the values that differ from them.

    Attributes:
        epochs: number of passes over the training examples.
        steps: stop after so many optimizer steps, if that is before the last epoch; null: no limit.
        precision: fp32, tf32 (on a GPU), bf16 (autocast) or fp16 (autocast and loss scaling).
        gradient_clip: largest L2 norm of the gradient of all weights together; null: no clipping.
        accumulate: number of batches per optimizer step.
        schedule: learning-rate schedule, a ``_target_`` from :mod:`sparse_bench.training.schedules`; null: constant.
        stop: stopping rule, a ``_target_`` from :mod:`sparse_bench.training.stopping`; null: none.
        evaluate_every: number of epochs between two evaluations; 0: evaluate only at the end.
        evaluate_first: evaluate before the first epoch too; then ``select: best`` may select the first weights.
        select: the weights for the final evaluation: last, or best by ``monitor``.
        monitor: metric for ``select`` and ``early_stopping``, such as valid/accuracy; null: the task's own.
        monitor_mode: max or min: whether higher or lower values of ``monitor`` are better.
        early_stopping: stop after so many evaluations without improvement; null: never.
        reset_optimizer: delete the optimizer's moments after every epoch.
        checkpoint_seconds: seconds between two checkpoints, so the most work that is lost when a run is killed.
        keep: files of a finished run to keep: nothing, weights, or checkpoint (weights and optimizer state).
        deterministic: give the same numbers in every repetition. Slower on CUDA; torch warns where it cannot.
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
    """The settings of one run; ``conf/config.yaml`` explains them."""

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
    stop_on_failure: Switch = False
    locks: Annotated[str, one_of("auto", "flock", "files")] = "auto"


def register() -> None:
    """Register the schema with Hydra; call this before composing a configuration."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)


def choices(group: str, conf: Path = CONF) -> list[str]:
    """Names of the files of a config group; by default, of the shipped ones."""
    root = conf / group
    return sorted(str(path.relative_to(root).with_suffix("")) for path in root.rglob("*.yaml"))
