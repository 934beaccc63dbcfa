"""How far training has come."""

from dataclasses import dataclass, field

from sparse_bench.errors import ConfigError, NonFiniteLossError, SparseBenchError


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
