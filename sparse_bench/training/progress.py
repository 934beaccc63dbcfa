"""The progress of a training run."""

from dataclasses import dataclass, field

from sparse_bench.errors import ConfigError, NonFiniteLossError, SparseBenchError


@dataclass
class Progress:
    """The progress of a training run; part of every checkpoint."""

    epoch: int = 0
    #: Finished batches of the current epoch.
    batch: int = 0
    #: Finished optimizer steps of the whole run.
    step: int = 0
    examples: int = 0
    tokens: int = 0
    best: float | None = None
    stale_evaluations: int = 0
    #: Values of the stopping rule's metric so far.
    history: list[float] = field(default_factory=list)
    stopped: bool = False
    train_seconds: float = 0.0
    #: Processor time of all threads in training; other work on the machine hardly affects it.
    train_processor_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    #: Wall-clock time of all sessions up to the checkpoint, from the construction of the trainer.
    elapsed_seconds: float = 0.0

    def nothing_to_select(self, monitored: str, density: str) -> SparseBenchError:
        """The error for ``select=best`` if no evaluation had weights to keep.

        Args:
            monitored: name of the metric.
            density: the nominal sparsity in words.
        """
        if not self.stale_evaluations:
            return ConfigError(
                "trainer.select=best has nothing to select: at no evaluation had the model reached its nominal "
                f"sparsity ({density}). Train for longer, or use trainer.select=last."
            )
        return NonFiniteLossError(
            f"trainer.select=best has nothing to select: {monitored} was not a finite number at any of "
            f"{self.stale_evaluations} evaluations. Lower the learning rate, clip the gradient "
            "(trainer.gradient_clip), or use trainer.select=last."
        )
