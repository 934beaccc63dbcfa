"""What the trainer is told, and how far it has come."""

from dataclasses import dataclass, field

from torch.optim import Optimizer

from sparse_bench.errors import ConfigError, NonFiniteLossError, SparseBenchError


@dataclass(frozen=True)
class Settings:
    """How long and how to train; the fields of :class:`sparse_bench.config.TrainerConfig` that the loop needs."""

    epochs: int
    steps: int | None = None
    gradient_clip: float | None = None
    accumulate: int = 1
    evaluate_every: int = 1
    evaluate_first: bool = False
    select: str = "last"
    monitor: str | None = None
    monitor_mode: str | None = None
    early_stopping: int | None = None
    checkpoint_seconds: float = 60.0
    reset_optimizer: bool = False
    progress: bool = True

    def check_optimizer(self, optimizer: Optimizer) -> None:
        """Refuse a new optimizer that ``reset_optimizer`` would leave without its state.

        Raises:
            ConfigError: the optimizer makes its state when it is built, and not at its first step.
        """
        if self.reset_optimizer and optimizer.state:
            raise ConfigError(
                "trainer.reset_optimizer needs an optimizer that makes its moments as it goes. "
                f"{type(optimizer).__name__} makes them at once. "
                "Use adam, adamw, rmsprop or sgd, or trainer.reset_optimizer=false."
            )


@dataclass
class Progress:
    """How far training has come. Part of every checkpoint."""

    epoch: int = 0
    #: Batches of the current epoch that are done.
    batch: int = 0
    #: Optimizer steps of the whole run that are done.
    step: int = 0
    examples: int = 0
    tokens: int = 0
    best: float | None = None
    stale_evaluations: int = 0
    #: What the stopping rule's metric has been.
    history: list[float] = field(default_factory=list)
    stopped: bool = False
    train_seconds: float = 0.0
    #: Processor time of all threads in training: what else the machine does hardly changes it.
    train_processor_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    #: Of all sessions up to the checkpoint, from the moment at which the run was put together.
    elapsed_seconds: float = 0.0

    def nothing_to_select(self, monitored: str, density: str) -> SparseBenchError:
        """The error of a run that was to end with its best weights, and kept none at any evaluation."""
        if not self.stale_evaluations:
            return ConfigError(
                "trainer.select=best has nothing to select: at no evaluation was the model as sparse as asked for "
                f"({density}). Train for longer, or use trainer.select=last."
            )
        return NonFiniteLossError(
            f"trainer.select=best has nothing to select: at none of {self.stale_evaluations} evaluations was "
            f"{monitored} a finite number. Lower the learning rate, clip the gradient (trainer.gradient_clip), or use "
            "trainer.select=last."
        )
