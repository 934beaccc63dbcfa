"""A trial evaluation before training, so that errors appear before any work is done."""

from contextlib import AbstractContextManager, nullcontext

from sparse_bench.errors import ConfigError
from sparse_bench.kernels.auto import paused
from sparse_bench.training.trainer import Trainer


def rehearse(trainer: Trainer) -> None:
    """Evaluate a few examples of every split, including their metrics and the notes of a result.

    So an error in the model, a setting or a text appears before training and not after it. No weight changes, and no
    way to compute is timed. But random numbers are drawn, so seed the generators afterwards.

    Raises:
        ConfigError: the model cannot be computed in the requested precision.
    """
    with paused():  # a few examples do not show which way to compute is fastest
        if trainer.precision.reduced:
            _try_precision(trainer)
        for split in trainer.task.splits:
            with trainer.evaluating():
                trainer.task.rehearse(trainer.model, split)
    trainer.task.notes()


def _try_precision(trainer: Trainer) -> None:
    """Compute one gradient, as the operations that torch supports in lower precision depend on the device.

    Raises:
        ConfigError: the gradient fails in lower precision, but not in full precision.
    """
    try:
        _gradient(trainer, trainer.precision.autocast())
    except (RuntimeError, NotImplementedError) as error:
        _gradient(trainer, nullcontext())  # if full precision fails too, its own error is raised
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"trainer.precision={trainer.precision.name} is not possible for this model on this "
            f"{trainer.device.type}. Use trainer.precision=fp32, or try another. (Error in torch: {reason})"
        ) from error


def _gradient(trainer: Trainer, precision: AbstractContextManager[object]) -> None:
    batch = next(iter(trainer.task.epoch_batches(0, trainer.streams))).to(trainer.device)
    try:
        with precision:
            loss = trainer.task.loss(trainer.model, batch)
        loss.total.backward()
    finally:
        trainer.model.zero_grad(set_to_none=True)
