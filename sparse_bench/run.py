"""Carry out one run: from a configuration to a folder with one result."""

import json
import logging
import random
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from sparse_bench import environment
from sparse_bench.agreement import agree
from sparse_bench.config import LABEL, TrainerConfig, build, check, run_id
from sparse_bench.errors import ConfigError, KilledError, LostLockError
from sparse_bench.model_factory import ModelFactory
from sparse_bench.origin import finished_before, load_first_stage, origin_of, set_aside_if_not_resumable
from sparse_bench.record import FAILED, FINISHED, Origin, Result, RunFolder, run_name, write_atomically
from sparse_bench.source import Source, find_source
from sparse_bench.sparsity.counting import MultiplyAccumulates, count, multiply_accumulates
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.sparsity.weight_summary import SMALL, existing_weights, share_below, summarise
from sparse_bench.streams import Streams
from sparse_bench.tasks.base import Task, metric_warnings, training_losses
from sparse_bench.tasks.shares import unknown_token_warnings
from sparse_bench.tracking.base import ASKED, DENSITY, WEIGHTS, RunInfo, Trackers
from sparse_bench.training import checkpoint
from sparse_bench.training.precision import Precision
from sparse_bench.training.progress import Progress
from sparse_bench.training.rehearsal import rehearse
from sparse_bench.training.trainer import Trainer

logger = logging.getLogger(__name__)

_NO_CHECKSUMS = "The dataset names no checksums of its data, so a change of the data would go unnoticed."
_RESUMED_ELSEWHERE = (
    "The run was interrupted and resumed under other circumstances (machine.resumed_from), so its last digits differ "
    "from those of an uninterrupted run."
)
#: Models with fewer weights in their matrices train on one thread, unless ``threads`` is given. DIET with 1.6 million
#: gains 17 % from a second thread, DIET with 6 thousand loses 40 % (results/performance/diet_step.md).
SMALL_MODEL = 1_000_000
#: Number of batches on which multiply-accumulates are counted.
_COUNTED_BATCHES = 16


def run(
    config: DictConfig, killed: str | None = None, begun: Callable[[Path], None] = lambda folder: None
) -> Result | RunFolder:
    """Carry out one run, or resume it, or return its result if it has already finished.

    A failed run is tried again. Errors during the run are recorded in its result and logged, but not raised, so that a
    sweep continues.

    Args:
        config: the configuration of the run.
        killed: why the run's process died in every attempt. If given, the run is not tried again, and fails with this.
        begun: is called with the run's folder before anything is done there.

    Returns:
        The result, or the run's folder if another process is working on it.

    Raises:
        ConfigError: the configuration cannot be run; nothing has been done.
    """
    # Check everything that needs no data, then find the run's name and folder.
    environment.tune_process()
    check(config)
    device = environment.device_of(config.device)
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    trackers = Trackers.from_config(plain["logger"] or {})  # with the console, unless there is no logger at all
    source = find_source(config)
    identifier = run_id(config, source.name if source else None)
    folder = RunFolder(Path(config.output) / config.experiment_name / identifier)
    begun(folder.path)
    with ExitStack() as stack:
        try:
            agree(Path(config.output), config.locks)
            held = stack.enter_context(folder.lock())
        except OSError as error:
            with suppress(OSError):
                if result := _finished(plain, folder, source):  # perhaps another user's run
                    return result
            raise ConfigError(f"output='{config.output}' cannot be written to: {error}") from error
        if not held:
            logger.info("%s: another process is working on it, skipped", folder.path)
            return folder
        if result := _finished(plain, folder, source):
            _clean_up(config.trainer.keep, folder)
            return result
        # Remove the remains of an earlier attempt, except its checkpoint.
        for leftover in [*folder.path.glob("*.tmp"), folder.result_path, folder.weights, folder.weight_summary]:
            leftover.unlink(missing_ok=True)
        folder.write_config(OmegaConf.to_yaml(config, resolve=True))
        result = _carry_out(plain, identifier, folder, device, trackers, source, killed)
        if result.status == FINISHED:
            _clean_up(config.trainer.keep, folder)
        return result


def _carry_out(
    plain: dict[str, Any],
    identifier: str,
    folder: RunFolder,
    device: torch.device,
    trackers: Trackers,
    source: Source | None,
    killed: str | None,
) -> Result:
    """Train, measure and write the result, also if an error occurs."""
    result = Result(
        id=identifier,
        status=FAILED,
        experiment=plain["experiment_name"],
        seed=plain["seed"],
        labels=_labels(plain),
        config=plain,
        versions=environment.versions(),
        git=environment.git(),
    )
    started = time.perf_counter()
    try:
        if killed is not None:
            raise KilledError(f"The run was restarted each time, and {killed}.")
        trackers.start(
            RunInfo(
                id=identifier,
                name=run_name(result.labels, result.seed),
                experiment=plain["experiment_name"],
                labels=result.labels,
                seed=plain["seed"],
                config=plain,
                folder=folder.path,
            )
        )
        _train_and_measure(plain, folder, result, device, trackers.log, source)
        result.status = FINISHED
    except LostLockError:
        raise  # the folder is another process's
    except Exception as error:
        result.error = {"type": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
        logger.error("%s failed: %s: %s", result.name, type(error).__name__, error)
    # Write the result first, because what follows may be interrupted.
    result.seconds["total"] = result.seconds.pop("earlier", 0.0) + time.perf_counter() - started
    folder.write_result(result)
    trackers.finish(result.status, _summary(result))
    return result


def _summary(result: Result) -> dict[str, Any]:
    """Summary for trackers: final metrics, nominal and realised density, number of weights, and warnings."""
    summary: dict[str, Any] = dict(result.metrics)
    if result.counts:
        nominal, counts = result.labels["density"], result.counts
        summary |= {} if nominal is None else {ASKED: nominal}
        summary |= {DENSITY: counts.get("of_full", counts["density"]), WEIGHTS: counts["sparse_layers"]}
    if result.warnings:
        summary["warnings"] = " ".join(result.warnings)
    return summary


def _train_and_measure(
    plain: dict[str, Any],
    folder: RunFolder,
    result: Result,
    device: torch.device,
    log: Callable[[dict[str, float], int, int], None],
    source: Source | None,
) -> None:
    """The run itself; fills in ``result`` step by step, so that a failure keeps what was measured before it."""
    # Record the machine, the data and the code.
    torch.set_num_threads(plain["threads"] or environment.cores())
    result.machine = environment.machine(device) | {"folder": str(Path.cwd())}  # where relative paths of data start
    environment.reset_peak_memory(device)
    task = task_of(plain)
    result.data = task.checksums()
    origin = origin_of(plain, result.data, source)
    result.code, result.start_from = dict(origin["code"]), dict(origin["start_from"])
    # Build the trainer, and count the weights before training.
    make = partial(assemble, plain, task, device, folder, log, source, origin)
    if plain["force"] and folder.checkpoint.exists():
        set_aside_if_not_resumable(make(), folder)
    trainer = make()
    model, scheme = trainer.model, trainer.scheme
    if source is not None:
        result.notes["start_from"] = source.name
    result.counts = count(model, scheme).as_dict() | {"data": task.shares}
    if plain["threads"] is None and device.type == "cpu" and _largest_group(result.counts) < SMALL_MODEL:
        torch.set_num_threads(1)
        result.machine["threads"] = 1
    if nominal := scheme.asked():
        result.notes["asked"] = nominal
    logger.info("%s: %s before training", result.name, result.densities())
    if not result.counts["sparse_layers"]:
        result.warn("No weight is left in the layers that the scheme selects.")
    no_checksums = [] if result.data else [_NO_CHECKSUMS]
    unknown = unknown_token_warnings(task.unknown_tokens)
    for warning in (*scheme.warnings(), *unknown, *trainer.fallbacks(), *no_checksums):
        result.warn(warning)
    # Evaluate a few examples before training, so that errors appear early; then train and evaluate.
    if not folder.checkpoint.exists():
        rehearse(trainer)
    macs = _macs(trainer)
    result.macs_per_example = {"dense": macs.dense, "sparse": macs.sparse}
    _seed_globals(trainer.streams.derive("noise"))
    try:
        trainer.fit()
        result.counts |= count(model, scheme, trainer.tally).as_dict()  # training may have changed them
        result.macs_per_example["sparse"] = macs.with_entries(scheme.weights)
        if (tally := trainer.tally) is not None:
            sizes = {name: weight.size for name, weight in scheme.weights.items()}
            result.macs_of_training = macs.of_training(tally, sizes, trainer.progress.examples)
        if not scheme.reached():
            result.warn(f"Training ended before the nominal sparsity was reached ({result.densities()}).")
        if scheme.rewirings() == 0 and not scheme.warnings():
            result.warn("No rewiring changed the topology, so the evaluated topology is the first one.")
        for split in task.splits:
            result.metrics |= trainer.evaluate(split)
        result.metrics |= trainer.report() | _look_at_weights(model, scheme, folder)
        result.notes |= task.notes()
        for warning in metric_warnings(task, result.metrics):
            result.warn(warning)
    finally:
        _record_progress(result, trainer.progress, device)
        result.machine["computed"] = trainer.computed()
        result.seconds["earlier"] = trainer.earlier_seconds
        if trainer.resumed_from:
            result.machine["resumed_from"] = trainer.resumed_from
            result.warn(_RESUMED_ELSEWHERE)
    result.weights = checkpoint.fingerprint(model.state_dict())
    if plain["trainer"]["keep"] == "weights":
        checkpoint.save(folder.weights, {"model": model.state_dict(), "scheme": scheme.state_dict(), "origin": origin})


def task_of(plain: dict[str, Any]) -> Task:
    """The task with its corpus, which is read and encoded only once for successive runs with the same dataset."""
    return _cached_task(OmegaConf.to_yaml(OmegaConf.create(plain["dataset"])))


def assemble(
    plain: dict[str, Any],
    task: Task,
    device: torch.device,
    folder: RunFolder,
    log: Callable[[dict[str, float], int, int], None] | None = None,
    source: Source | None = None,
    origin: Origin | None = None,
) -> Trainer:
    """Build a run's model, scheme, optimizer and trainer; set torch's determinism and the global seeds.

    Args:
        plain: the resolved configuration.
        task: the task.
        device: the device to train on.
        folder: the run's folder.
        log: receives metrics too, as (metrics, step, epoch).
        source: the run whose weights this run starts from.
        origin: checksums of data and code.

    Raises:
        ConfigError: the parts do not fit together.
        CheckpointError: the weights of ``source`` cannot be read, or are of other data.
    """
    environment.set_deterministic(plain["trainer"]["deterministic"], device)
    streams = Streams(plain["seed"])
    scheme: Scheme = build(plain["sparsity"])
    factory = ModelFactory(plain["model"], task.sizes)
    if type(scheme).build is Scheme.build:  # an overridden build may make a smaller model
        factory.check_memory(device)
    _seed_globals(streams.derive("init"))
    model = scheme.build(factory)
    scheme.losses = partial(training_losses, task, streams)
    scheme.attach(model, streams)
    model.to(device)
    if source is not None:
        load_first_stage(source, model, scheme, origin or {})
    optimizer = build(plain["optimizer"], _partial_=True)(model.parameters())
    scheme.scale_rates(optimizer, model)
    return Trainer(
        task=task,
        model=model,
        scheme=scheme,
        optimizer=optimizer,
        settings=TrainerConfig(**plain["trainer"]),
        streams=streams,
        precision=Precision(plain["trainer"]["precision"], device),
        device=device,
        folder=folder,
        schedule=build(plain["trainer"]["schedule"]),
        stop=build(plain["trainer"]["stop"]),
        quiet=not plain["progress"],
        log=log,
        origin=origin,
        name=f"{plain['experiment_name']} {run_name(_labels(plain), plain['seed'])} ({folder.path.name})",
    )


def _labels(plain: dict[str, Any]) -> dict[str, Any]:
    """Labels that distinguish a run in tables and messages."""
    return {
        "model": plain["model"].get(LABEL),
        "dataset": plain["dataset"].get(LABEL),
        "scheme": plain["sparsity"].get(LABEL),
        "density": plain["sparsity"].get("density"),
    }


def _look_at_weights(model: torch.nn.Module, scheme: Scheme, folder: RunFolder) -> dict[str, float]:
    """Write the summary of the weights, and return its one number that goes into the result."""
    summary = summarise(model, scheme)
    write_atomically(folder.weight_summary, json.dumps(summary).encode())
    return {f"weights/share_below_{SMALL}": share_below(existing_weights(model, scheme))}


def _record_progress(result: Result, progress: Progress, device: torch.device) -> None:
    seconds = max(progress.train_seconds, 1e-9)
    result.seconds |= {
        "train": progress.train_seconds,
        "train_processor": progress.train_processor_seconds,
        "evaluate": progress.evaluate_seconds,
    }
    result.tokens_per_second = progress.tokens / seconds
    result.examples_per_second = progress.examples / seconds
    result.epochs, result.steps = progress.epoch, progress.step
    result.peak_memory_bytes = environment.peak_memory_bytes(device)


def _macs(trainer: Trainer) -> MultiplyAccumulates:
    """Multiply-accumulates per example, without dropout.

    They are counted on batches from all parts of the first epoch, because the lengths of batches differ.
    """
    task, model, streams = trainer.task, trainer.model, trainer.streams
    steps = task.epoch_steps(0, streams)
    wanted = {steps * part // _COUNTED_BATCHES for part in range(_COUNTED_BATCHES)}
    found = (batch for place, batch in enumerate(task.epoch_batches(0, streams)) if place in wanted)
    batches = [batch.to(trainer.device) for batch in found]
    model.eval()
    counted = multiply_accumulates(
        model, trainer.scheme, lambda: sum(task.loss(model, batch).examples for batch in batches)
    )
    model.train()
    return counted


def _finished(plain: dict[str, Any], folder: RunFolder, source: Source | None) -> Result | None:
    """The result of a finished run, or None; warn if the run has not kept the requested checkpoint or weights."""
    result = finished_before(plain, folder, source)
    if result is None:
        return None
    logger.info("%s: already finished, skipped (force=true runs it again)", result.name)
    keep = plain["trainer"]["keep"]
    wanted = {"weights": folder.weights, "checkpoint": folder.checkpoint}.get(keep)
    if wanted is not None and not wanted.exists():
        logger.warning("%s: trainer.keep=%s, but this finished run did not keep that", folder.path, keep)
    if sent := [name for name in (plain["logger"] or {}) if name != "console"]:
        logger.warning("%s: this finished run is not sent to %s again", folder.path, " or ".join(sent))
    return result


def _clean_up(keep: str, folder: RunFolder) -> None:
    """Remove the files of a finished run that ``trainer.keep`` does not request."""
    folder.best.unlink(missing_ok=True)
    if keep != "checkpoint":
        folder.checkpoint.unlink(missing_ok=True)


def _largest_group(counts: dict[str, Any]) -> int:
    """Entries of the model's largest group of weight matrices, apart from embeddings, whose rows are only read."""
    sizes = [group["size"] for name, group in counts["groups"].items() if name != "embedding"]
    return max(sizes, default=counts["trainable"])


def _seed_globals(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries may draw from the global generator
    random.seed(seed)


@lru_cache(maxsize=1)
def _cached_task(yaml: str) -> Task:
    task = build(OmegaConf.to_container(OmegaConf.create(yaml)), _partial_=False)
    assert isinstance(task, Task)
    return task
