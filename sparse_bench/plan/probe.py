"""Time a few steps of a run, to estimate the cost of the whole run."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from sparse_bench import environment
from sparse_bench.plan.timings import Probe, fingerprint
from sparse_bench.record import RunFolder
from sparse_bench.run import assemble, task_of
from sparse_bench.sweeps import Job
from sparse_bench.training.trainer import Trainer


def probe(job: Job, device: torch.device, seconds: float) -> Probe:
    """Train on batches of the first epoch and of the last one, each for at least ``seconds``.

    On a CPU this uses one thread and measures processor time, which other processes hardly affect. On a GPU it measures
    wall-clock time. The first batch of each epoch is not timed, as it compiles kernels and fills caches.

    Args:
        job: the run. Its folder is not written, and it does not start from another run's weights.
        device: the device to train on.
        seconds: least time per epoch; at least two batches are timed.
    """
    environment.tune_process()
    torch.set_num_threads(1)
    plain: dict[str, Any] = OmegaConf.to_container(job.config, resolve=True)  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        trainer = assemble(plain, task_of(plain), device, RunFolder(Path(folder)))
        last = trainer.settings.epochs - 1
        timed = [_epoch(trainer, epoch, device, seconds) for epoch in sorted({0, last})]
    machine = environment.machine(device)
    return Probe(
        sweep=job.sweep,
        arm=job.arm,
        settings=fingerprint(job),
        epoch_seconds=sum(epoch_seconds for epoch_seconds, _ in timed) / len(timed),
        batches=sum(batches for _, batches in timed),
        device=machine["device"],
        processor=machine["processor"],
        torch=torch.__version__,
    )


def _epoch(trainer: Trainer, epoch: int, device: torch.device, seconds: float) -> tuple[float, int]:
    """Estimated seconds of an epoch, and the number of its batches that were timed."""
    clock = _clock(device)
    task, accumulate = trainer.task, trainer.settings.accumulate
    trainer.progress.epoch = epoch
    spent, timed, number = 0.0, 0, 0
    while timed < 2 or spent < seconds:
        mark = clock()
        for batch in task.epoch_batches(epoch, trainer.streams):
            trainer.forward_backward(batch.to(device), share=1.0 / accumulate)
            number += 1
            if number % accumulate == 0:
                trainer.update()
            now = clock()
            if number > 1:
                spent, timed = spent + now - mark, timed + 1
            mark = now
            if timed >= 2 and spent >= seconds:
                break
    return spent / timed * task.epoch_steps(epoch, trainer.streams), timed


def _clock(device: torch.device) -> Callable[[], float]:
    if device.type != "cuda":
        return time.process_time

    def synchronized() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronized
