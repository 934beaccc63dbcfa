"""What is tried before training, so that nothing is refused after it."""

from contextlib import AbstractContextManager, nullcontext

from sparse_bench.errors import ConfigError
from sparse_bench.kernels.auto import paused
from sparse_bench.training.trainer import Trainer


def rehearse(trainer: Trainer) -> None:
    """Evaluate a few examples of every split, all the way to the metrics and to what a result says of them.

    Whatever refuses the model, a setting or a text does so before any work and not after it. No weight changes and
    nothing is timed, but random numbers are drawn: seed the generators afterwards.

    Raises:
        ConfigError: the model cannot be computed in the precision that is asked for.
    """
    with paused():  # a few examples say nothing about which way is fastest
        if trainer.precision.reduced:
            _try_precision(trainer)
        for split in trainer.task.splits:
            with trainer.evaluating():
                trainer.task.rehearse(trainer.model, split)
    trainer.task.notes()


def _try_precision(trainer: Trainer) -> None:
    """Which products torch can do in fewer bits depends on the device and the processor, so a gradient is tried."""
    try:
        _gradient(trainer, trainer.precision.autocast())
    except (RuntimeError, NotImplementedError) as error:
        _gradient(trainer, nullcontext())  # what fails in full precision too is not the precision's fault
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"trainer.precision={trainer.precision.name} is not possible for this model on this "
            f"{trainer.device.type}. Use trainer.precision=fp32, or try another. (torch says: {reason})"
        ) from error


def _gradient(trainer: Trainer, precision: AbstractContextManager[object]) -> None:
    batch = next(iter(trainer.task.epoch_batches(0, trainer.streams))).to(trainer.device)
    try:
        with precision:
            loss = trainer.task.loss(trainer.model, batch)
        loss.total.backward()
    finally:
        trainer.model.zero_grad(set_to_none=True)
