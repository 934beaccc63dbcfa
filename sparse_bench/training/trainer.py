"""The training loop for all tasks, models and schemes; it uses them only through their interfaces."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from sparse_bench import interruption
from sparse_bench.batch import Batch
from sparse_bench.config.schema import TrainerConfig
from sparse_bench.errors import ConfigError, NonFiniteLossError
from sparse_bench.kernels import auto
from sparse_bench.record import Origin, RunFolder
from sparse_bench.row_sparse import RowSparseUpdates, clip_gradient_norm
from sparse_bench.sparsity.computed import computed, fallbacks
from sparse_bench.sparsity.driver import Driver, Tally
from sparse_bench.sparsity.scheme import Length, Scheme
from sparse_bench.streams import Streams
from sparse_bench.tasks.base import Task
from sparse_bench.training import checkpoint
from sparse_bench.training.averaging import AveragingOptimizer, averaged_weights
from sparse_bench.training.forecast import Forecast
from sparse_bench.training.precision import Precision
from sparse_bench.training.progress import Progress
from sparse_bench.training.schedules import Constant, Schedule
from sparse_bench.training.stopping import StoppingRule
from sparse_bench.training.transfer import on_device
from sparse_bench.training.watcher import Watcher

logger = logging.getLogger(__name__)

#: Optimizer steps between two checks that the loss is finite; each check waits for the device.
FINITE_CHECK_STEPS = 50


class Trainer:
    """Trains ``model`` on ``task`` with an attached ``scheme``; continues from the checkpoint in ``folder``, if any.

    Args:
        task: batches, loss and metrics.
        model: the model, on ``device``.
        scheme: the sparsity scheme, already attached to the model.
        optimizer: steps on the model's parameters; its learning rates are the base rates.
        settings: all other settings of training.
        streams: source of random numbers.
        precision: numeric precision.
        device: the device to train on.
        folder: folder of the run, for checkpoints and logs.
        schedule: factor on the learning rate; None: constant.
        stop: rule that ends training early; None: no rule.
        quiet: show no progress bar.
        log: receives metrics too, as (metrics, step, epoch).
        origin: checksums of data and code; a checkpoint of another origin is refused.
        name: the run's name in messages.

    Raises:
        ConfigError: the settings do not fit the optimizer.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        scheme: Scheme,
        optimizer: Optimizer,
        settings: TrainerConfig,
        streams: Streams,
        precision: Precision,
        device: torch.device,
        folder: RunFolder,
        schedule: Schedule | None = None,
        stop: StoppingRule | None = None,
        quiet: bool = False,
        log: Callable[[dict[str, float], int, int], None] | None = None,
        origin: Origin | None = None,
        name: str = "",
    ) -> None:
        self.task, self.model, self.scheme, self.optimizer = task, model, scheme, optimizer
        self.settings, self.streams, self.precision, self.device = settings, streams, precision, device
        self.folder, self.origin = folder, origin or {}
        self.schedule, self._quiet = schedule or Constant(), quiet
        self.progress = Progress()
        self._name = name or folder.path.name
        self._forecast = Forecast(self._name, task, streams, settings)
        self._watcher = Watcher(settings, task, scheme, optimizer, stop, self._keep_best)
        self._log = log or (lambda metrics, step, epoch: None)
        if settings.reset_optimizer and optimizer.state:
            raise ConfigError(
                "trainer.reset_optimizer needs an optimizer that creates its state in its first step. "
                f"{type(optimizer).__name__} creates it at once. "
                "Use adam, adamw, rmsprop or sgd, or trainer.reset_optimizer=false."
            )
        self._row_sparse = RowSparseUpdates(optimizer, model)
        self._base_rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._sums: dict[str, Tensor] = {}
        #: Factor on the learning rate that the latest batch sets for its step.
        self._batch_factor = 1.0
        self._started = self._last_checkpoint = time.monotonic()
        #: Seconds of this run's earlier, interrupted sessions.
        self.earlier_seconds = 0.0
        #: Circumstances of earlier sessions that differ from those of the next; then the last digits may differ too.
        self.resumed_from: list[dict[str, Any]] = []
        self._resumed = False
        self._asked: Callable[[], bool] = lambda: False
        # The driver comes after RowSparseUpdates, whose hooks first have to restore the optimizer's own parameters.
        self._driver = Driver(scheme, optimizer, streams, self._length)

    def fit(self) -> Progress:
        """Train until the configured end.

        Raises:
            CheckpointError: the checkpoint is damaged, or of other data or code.
            NonFiniteLossError: the loss is no longer finite.
            ConfigError: with ``select=best``, no evaluation counted, or a metric that decides is missing.
        """
        self.resume()
        if self.progress.step == 0:
            self._record_topology()
            if self.settings.evaluate_first:
                evaluated = self.evaluate(self.task.splits[0])
                self._watcher.look(evaluated, self.progress)
                self.folder.metrics.append({"epoch": 0, "step": 0, **evaluated})
                self._log(evaluated, 0, 0)
        silent = True if self._quiet else None  # None: show the bar only in a terminal
        bar = tqdm(total=self.settings.epochs, initial=self.progress.epoch, unit="epoch", disable=silent)
        # With a bar, print log lines above it.
        with bar, nullcontext() if bar.disable else logging_redirect_tqdm(), interruption.saving() as self._asked:
            while not self._done():
                self._train_epoch()
                self._end_epoch()
                bar.update()
        self._save()
        # Put the final weights into the model: the best ones, the averages, or the last ones, which it already holds.
        if self.settings.select == "best":
            if self.progress.best is None:
                raise self.progress.nothing_to_select(self._watcher.metric, self.scheme.asked() or "")
            best = checkpoint.load(self.folder.best)
            with checkpoint.fitting(self.folder.best):
                self.model.load_state_dict(best["model"])
            self.scheme.load_state_dict(best["scheme"])
        elif isinstance(self.optimizer, AveragingOptimizer):
            self.optimizer.adopt()
        return self.progress

    def evaluate(self, split: str) -> dict[str, float]:
        """Metrics of the current model on ``split``, with the split's name as prefix."""
        started = time.perf_counter()
        self._row_sparse.flush()
        with self.evaluating():
            metrics = self.task.evaluate(self.model, split)
        self.progress.evaluate_seconds += time.perf_counter() - started
        return {f"{split}/{name}": value for name, value in metrics.items()}

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """A context without dropout and gradients, in the run's precision."""
        self.model.eval()
        with torch.no_grad(), self.precision.autocast():
            yield
        self.model.train()

    def forward_backward(self, batch: Batch, share: float = 1.0) -> None:
        """Add ``share`` times the gradient of one batch's loss to the gradients."""
        with self.precision.autocast():
            loss = self.task.loss(self.model, batch)
        self.precision.scaler.scale(loss.total * share).backward()
        for name, value in {"loss": loss.total.detach(), **loss.parts}.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._batch_factor = loss.learning_rate_factor
        self.progress.examples += loss.examples
        self.progress.tokens += loss.tokens

    def update(self) -> None:
        """Make one optimizer step with the accumulated gradients."""
        scaler, progress = self.precision.scaler, self.progress
        progress.step += 1
        factor = self.schedule.factor(progress.step, progress.epoch) * self._batch_factor
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * factor
        scaler.unscale_(self.optimizer)
        if self.settings.gradient_clip is not None:
            clip_gradient_norm(self.model.parameters(), self.settings.gradient_clip)
        scaler.step(self.optimizer)
        scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _steps_left(self) -> bool:
        return self.settings.steps is None or self.progress.step < self.settings.steps

    def _length(self) -> Length:
        steps, settings = 0, self.settings
        for epoch in range(settings.epochs):
            steps += -(-self.task.epoch_steps(epoch, self.streams) // settings.accumulate)
            if settings.steps is not None and steps >= settings.steps:
                return Length(epoch + 1, settings.steps)
        return Length(settings.epochs, steps)

    def _done(self) -> bool:
        return self.progress.stopped or self.progress.epoch >= self.settings.epochs or not self._steps_left()

    def _train_epoch(self) -> None:
        progress, accumulate = self.progress, self.settings.accumulate
        started, started_processor = time.perf_counter(), time.process_time()
        batches = self.task.epoch_batches(progress.epoch, self.streams)
        total = self.task.epoch_steps(progress.epoch, self.streams)
        for batch in on_device(islice(batches, progress.batch, None), self.device):
            group = min(accumulate, total - progress.batch // accumulate * accumulate)
            self.forward_backward(batch, share=1.0 / group)
            progress.batch += 1
            self._forecast.batch_done(progress)
            if progress.batch % accumulate and progress.batch < total:
                continue
            self.update()
            if progress.step % FINITE_CHECK_STEPS == 0:
                self._check_finite()
            if not self._steps_left():
                break
            if self._checkpoint_is_due():
                progress.train_seconds += time.perf_counter() - started
                progress.train_processor_seconds += time.process_time() - started_processor
                self._save()
                started, started_processor = time.perf_counter(), time.process_time()
        self._check_finite()
        progress.train_seconds += time.perf_counter() - started
        progress.train_processor_seconds += time.process_time() - started_processor

    def _check_finite(self) -> None:
        loss = self._sums.get("loss")
        if loss is not None and not math.isfinite(loss.item()):
            raise NonFiniteLossError(
                f"The training loss is no longer finite in epoch {self.progress.epoch + 1}, at or before step "
                f"{self.progress.step}. Lower the learning rate, clip the gradient (trainer.gradient_clip), or use "
                "trainer.precision=fp32."
            )

    def _end_epoch(self) -> None:
        progress, settings = self.progress, self.settings
        self.folder.verify()
        self._row_sparse.flush()  # evaluations and checkpoints below need all rows up to date
        last = progress.epoch + 1 >= settings.epochs or not self._steps_left()
        entry: dict[str, float] = {f"train/{key}": (total / progress.batch).item() for key, total in self._sums.items()}
        # Log the schedule's rate; the optimizer's own rate also contains the last batch's factor.
        entry["learning_rate"] = self._base_rates[0] * self.schedule.factor(progress.step, progress.epoch)
        progress.epoch += 1
        due = settings.evaluate_every and progress.epoch % settings.evaluate_every == 0
        if due or (last and self._watcher.decides):
            with averaged_weights(self.optimizer):
                evaluated = self.evaluate(self.task.splits[0])
                entry |= evaluated
                self._watcher.at_epoch_end(entry, evaluated, progress)
        else:
            self._watcher.at_epoch_end(entry, None, progress)
        entry |= self.report()
        # Rewire after the evaluation, which measures what was trained and decides whether training stops here.
        entry |= self._driver.end_epoch(progress.epoch - 1, last or progress.stopped)
        if settings.reset_optimizer:
            self._row_sparse.reset()
            self.optimizer.state.clear()
        self._record_topology()
        self.folder.metrics.append({"epoch": progress.epoch, "step": progress.step, **entry})
        self.folder.timing.append(
            {
                "epoch": progress.epoch,
                "train_seconds": progress.train_seconds,
                "evaluate_seconds": progress.evaluate_seconds,
                "tokens_per_second": progress.tokens / max(progress.train_seconds, 1e-9),
            }
        )
        self._log(entry, progress.step, progress.epoch)
        progress.batch, self._sums = 0, {}
        if self._checkpoint_is_due():
            self._save()

    def _record_topology(self) -> None:
        topology = self.scheme.topology()
        if topology:
            entry = {"epoch": self.progress.epoch, "step": self.progress.step, "layers": topology}
            self.folder.topology.append(entry)

    @property
    def tally(self) -> Tally | None:
        """What the steps held and computed; None before the first, or if an earlier program did not count some."""
        counted = self._driver.tally
        return counted if 0 < counted.steps == self._driver.steps else None

    def report(self) -> dict[str, float]:
        """The optimizer's report on averaging, with the prefix ``optimizer/``; empty if it does not average."""
        values = self.optimizer.report() if isinstance(self.optimizer, AveragingOptimizer) else {}
        return {f"optimizer/{name}": value for name, value in values.items()}

    def _keep_best(self) -> None:
        checkpoint.save(self.folder.best, {"model": self.model.state_dict(), "scheme": self.scheme.state_dict()})

    def computed(self) -> dict[str, str]:
        """Kind of layer → how its sparse products or updates are really computed."""
        return computed(self.model) | self._row_sparse.computed()

    def fallbacks(self) -> list[str]:
        """A warning for everything that is not computed in the requested way."""
        return fallbacks(self.model) + self._row_sparse.fallbacks()

    def _checkpoint_is_due(self) -> bool:
        """Whether the last checkpoint is old enough, or the process was asked to stop."""
        return self._asked() or time.monotonic() - self._last_checkpoint > self.settings.checkpoint_seconds

    def _save(self) -> None:
        """Write a checkpoint; if the process was asked to stop, it ends here."""
        self.folder.verify()
        self.progress.elapsed_seconds = self.earlier_seconds + time.monotonic() - self._started
        checkpoint.save(
            self.folder.checkpoint,
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.precision.scaler.state_dict(),
                "scheme": self._driver.state_dict(),
                "task": self.task.state_dict(),
                "progress": asdict(self.progress),
                "sums": self._sums,
                "random": checkpoint.random_state(self.device),
                "origin": {part: dict(sums) for part, sums in self.origin.items()},
                "circumstances": checkpoint.circumstances(self.device, self.computed()),
                "resumed_from": self.resumed_from,
                "choices": auto.used(),
                "sizes": [(log.size(), log.checksum()) for log in self.folder.logs],
            },
        )
        self._last_checkpoint = time.monotonic()
        if self._asked():
            interruption.stop()

    def resume(self) -> None:
        """Continue from the last checkpoint, if any; :meth:`fit` calls this if needed.

        Log entries after the checkpoint are removed and will be measured again.

        Raises:
            CheckpointError: the checkpoint is damaged, or of other data or code.
        """
        if self._resumed:
            return
        if self.folder.checkpoint.exists():
            sizes = self._restore()
            epoch = self.progress.epoch + 1
            logger.info("%s: resumed in epoch %d, after step %d", self._name, epoch, self.progress.step)
        else:
            sizes = [(0, None)] * len(self.folder.logs)
            self.folder.best.unlink(missing_ok=True)  # left by an earlier training
            auto.begin({})
        for log, (size, checksum) in zip(self.folder.logs, sizes, strict=True):
            log.truncate(size, checksum)
        self._resumed = True

    def _restore(self) -> list[tuple[int, str | None]]:
        """Load the checkpoint; returns the sizes of the logs when it was written, and their checksums."""
        path = self.folder.checkpoint
        state = checkpoint.load(path)
        checkpoint.check_origin(path, state["origin"], self.origin)
        with checkpoint.fitting(path):
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.precision.scaler.load_state_dict(state["scaler"])
            self._driver.load_state_dict(state["scheme"])
            self.task.load_state_dict(state["task"])
            self.progress = Progress(**state["progress"])
        self.earlier_seconds, self.resumed_from = self.progress.elapsed_seconds, state["resumed_from"]
        if self.settings.select == "best" and self.progress.best is not None:
            checkpoint.load(self.folder.best)  # if it is damaged, fail now and not at the end
        self._sums = {name: value.to(self.device) for name, value in state["sums"].items()}
        checkpoint.restore_random_state(state["random"], self.device)
        auto.begin(state["choices"])
        then, now = state["circumstances"], checkpoint.circumstances(self.device, self.computed())
        if checkpoint.differ(self.folder.path, then, now):
            self.resumed_from = [*self.resumed_from, then]
        # A checkpoint of an earlier version has the sizes alone.
        return [(held, None) if isinstance(held, int) else held for held in state["sizes"]]
