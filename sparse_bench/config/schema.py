"""The schema of the settings that every run has, and where the shipped configuration lies."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

_PACKAGE = Path(__file__).resolve().parents[1]
#: The configuration tree: inside an installed package, else beside it in the repository.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"


@dataclass
class TrainerConfig:
    """How long and how a run trains; see ``conf/trainer/default.yaml`` for what each setting means."""

    epochs: int = 100
    steps: int | None = None
    precision: str = "fp32"
    gradient_clip: float | None = None
    accumulate: int = 1
    schedule: Any = None
    stop: Any = None
    evaluate_every: int = 1
    evaluate_first: bool = False
    select: str = "last"
    monitor: str | None = None
    monitor_mode: str | None = None
    early_stopping: int | None = None
    reset_optimizer: bool = False
    checkpoint_seconds: float = 60.0
    keep: str = "weights"
    deterministic: bool = True


@dataclass
class Config:
    """One run."""

    experiment_name: str = "ad_hoc"
    seed: int = 0
    model: Any = None
    dataset: Any = None
    sparsity: Any = None
    optimizer: Any = None
    start_from: str | None = None
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: Any = None
    point: Any = None
    device: str = "auto"
    threads: int | None = None
    output: str = "runs"
    progress: bool = True
    force: bool = False
    wait_for_others: bool = False


def register() -> None:
    """Make the schema known to Hydra. Call once, before composing."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)


def choices(group: str) -> list[str]:
    """Names of the shipped files of a config group."""
    root = CONF / group
    return sorted(str(path.relative_to(root).with_suffix("")) for path in root.rglob("*.yaml"))
