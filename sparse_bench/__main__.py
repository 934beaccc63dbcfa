"""Command line: ``python -m sparse_bench experiment=NAME [settings]``, or ``sweep=NAME``, or ``-m`` for a multirun."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from sparse_bench import interruption, sharing
from sparse_bench.config import CONF, as_typed, check_command_line, register, target_of
from sparse_bench.errors import ConfigError, LostLockError, SparseBenchError
from sparse_bench.journal import ELSEWHERE, JOBS, LEFT, REFUSED, Ended, first_line, how_it_ended
from sparse_bench.record import FAILED, FINISHED, RunFolder
from sparse_bench.sharing import ended
from sparse_bench.shell import run_command

#: Status of a job whose run another process works on, where this command waits for it.
_AWAITED = "awaited"
#: Seconds between two checks of runs that other processes work on.
_LOOK = 1.0

register()
sharing.register()
logger = logging.getLogger("sparse_bench")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def job(config: DictConfig, killed: str | None = None) -> Ended:
    """Carry out one run, as one job of a command; returns how it ended.

    Args:
        config: the configuration of the run.
        killed: why the run's process died in every attempt. If given, the run is only recorded as failed.
    """
    how = _carry_out(config, killed)
    ended.append(how)
    return how


def _carry_out(config: DictConfig, killed: str | None) -> Ended:
    # importing torch is slow, and --help and --cfg do not need it
    from sparse_bench.run import run

    chosen = HydraConfig.get()
    if chosen.mode != RunMode.MULTIRUN:
        return _outcome(config, lambda: run(config, killed))
    launcher = chosen.runtime.choices.get("hydra/launcher", "basic")
    if launcher != "basic":
        sharing.share(config, chosen.job.num, chosen.launcher.get("runs_per_gpu", 1))
    if launcher.startswith("submitit"):  # whose own handlers would end a run without a checkpoint
        interruption.catch(signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    journal = sharing.journal_of(HydraConfig.instance().cfg)
    if config.stop_on_failure and any(
        entry.ended.status in (FAILED, REFUSED) for entry in journal.entries().values() if entry.ended is not None
    ):
        return Ended(LEFT)
    how = _outcome(config, lambda: run(config, killed, partial(journal.begin, chosen.job.num)))
    if how.elsewhere is None:
        journal.end(chosen.job.num, how)
    return how


def _outcome(config: DictConfig, run: Callable[[], Any]) -> Ended:
    """Carry out a run, and describe how it ended."""
    try:
        result = run()
    except LostLockError as error:
        logger.error("%s", error)
        return Ended(ELSEWHERE)
    except SparseBenchError as error:
        logger.error("%s", error)
        return Ended(REFUSED, error=first_line(str(error)))
    except Exception as error:  # an error of the program or the machine; other runs of a sweep may still succeed
        logger.exception("The run ended without a result")
        return Ended(FAILED, error=first_line(f"{type(error).__name__}: {error}"))
    if isinstance(result, RunFolder):
        return Ended(_AWAITED if config.wait_for_others else ELSEWHERE, result.path)
    _show(result)
    return how_it_ended(result, _monitored(config))


def _monitored(config: DictConfig) -> str:
    """Name of the metric that a run monitors, which a search optimises."""
    task = target_of(OmegaConf.to_container(config.dataset), "dataset")
    return config.trainer.monitor or f"{task.splits[0]}/{task.monitor[0]}"


def _show(result: Any) -> None:
    weights = ""
    if result.counts:
        weights = f", {result.densities()}, {result.counts['sparse_layers']:,} weights in the sparse layers"
    seconds = f"{result.seconds.get('total', 0.0):.0f} s"
    level, warnings = logging.INFO, ""
    if result.warnings:
        level, warnings = logging.WARNING, f". Warnings: {' '.join(result.warnings)}"
    logger.log(level, "%s: %s%s, %s%s", result.name, result.status, weights, seconds, warnings)


def _set(override: str) -> None:
    """Add a setting to the command line, after the other settings and before flags, where Hydra expects it."""
    others = [place for place, one in enumerate(sys.argv) if "=" in one and not one.startswith("-")]
    sys.argv.insert(max(others, default=0) + 1, override)


def _wait(folders: list[Path]) -> None:
    """Wait until no process works on any of these runs."""
    logger.info("Waiting for %d run(s) that other processes work on", len(folders))
    for folder in folders:
        while _held(folder):
            time.sleep(_LOOK)


def _held(folder: Path) -> bool:
    with RunFolder(folder).lock() as free:
        return not free


def _abandoned(folder: Path) -> bool:
    """Whether the process that worked on a run died before it ended the run."""
    run = RunFolder(folder)
    return not run.outlives() and _status(Ended(ELSEWHERE, folder)) == ELSEWHERE


def _status(how: Ended) -> str:
    """The status of a job. A run of another process may have finished in the meantime."""
    if how.elsewhere is None:
        return how.status
    try:
        result = RunFolder(how.elsewhere).result()
    except SparseBenchError:
        return FAILED
    return result.status if result is not None else ELSEWHERE


def main() -> None:
    """Run the command, and exit with 1 unless all of its runs have finished."""
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # the package of the current folder, as ``python -m`` finds it
    if (code := run_command(sys.argv[1:])) is not None:
        sys.exit(code)
    try:
        check_command_line(sys.argv[1:])
    except ConfigError as error:
        sys.exit(str(error))
    sys.argv[1:] = as_typed(sys.argv[1:])
    interruption.catch(*interruption.SIGNALS)
    job()
    worker = JOBS in os.environ
    while worker and any(_abandoned(how.elsewhere) for how in ended if how.elsewhere is not None):
        ended.clear()
        job()  # continues the runs of a worker that died
    while awaited := [how.elsewhere for how in ended if how.status == _AWAITED and how.elsewhere is not None]:
        _wait(awaited)
        ended.clear()
        _set("force=false")  # do not repeat the runs of this command
        job()  # skips finished runs, and resumes those that another process has left unfinished
    statuses = [_status(how) for how in ended]
    finished, elsewhere, left = (statuses.count(status) for status in (FINISHED, ELSEWHERE, LEFT))
    failed = len(statuses) - finished - elsewhere - left
    if len(statuses) > 1:
        parts = {"finished": finished, "failed": failed, "running elsewhere": elsewhere, "left": left}
        counts = [f"{number} {what}" for what, number in parts.items() if number or what == "finished"]
        warned = sum(how.warned for how in ended)
        tail = f"; {warned} have warnings in their result.json" if warned else ""
        logger.info("%d runs: %s%s", len(statuses), ", ".join(counts), tail)
    if elsewhere and not worker:
        logger.warning("%d runs belong to another process; with wait_for_others=true, this command waits", elsewhere)
    if failed or left or (elsewhere and not worker):
        sys.exit(1)


if __name__ == "__main__":
    main()
