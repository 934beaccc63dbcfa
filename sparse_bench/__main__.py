"""Command line: ``python -m sparse_bench experiment=NAME [settings]``, or ``sweep=NAME``, or ``-m`` for a multirun."""

import logging
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sparse_bench import sharing
from sparse_bench.config import CONF, as_typed, check_command_line, register
from sparse_bench.errors import ConfigError, SparseBenchError
from sparse_bench.record import FAILED, FINISHED, RunFolder
from sparse_bench.sharing import Ended, ended
from sparse_bench.shell import run_command

#: Statuses of jobs without a result. Refused: an error before any work. Elsewhere: another process works on the run.
#: Awaited: the same, and this command waits for it.
_REFUSED, _ELSEWHERE, _AWAITED = "refused", "elsewhere", "awaited"
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
    launcher = chosen.runtime.choices.get("hydra/launcher", "basic")
    if launcher not in sharing.LAUNCHERS:
        logger.warning("With hydra/launcher=%s, the exit status of this command does not depend on its runs", launcher)
    if launcher == "joblib":
        sharing.share(config, chosen.job.num)
    try:
        result = run(config, killed)
    except SparseBenchError as error:
        logger.error("%s", error)
        return Ended(_REFUSED)
    except Exception:  # an error of the program or the machine; other runs of a sweep may still succeed
        logger.exception("The run ended without a result")
        return Ended(FAILED)
    if isinstance(result, RunFolder):
        return Ended(_AWAITED if config.wait_for_others else _ELSEWHERE, result.path)
    _show(result)
    return Ended(result.status, warned=bool(result.warnings))


def _show(result: Any) -> None:
    weights = ""
    if result.counts:
        weights = f", {result.densities()}, {result.counts['sparse_layers']:,} weights in the sparse layers"
    seconds = f"{result.seconds.get('total', 0.0):.0f} s"
    level, warnings = logging.INFO, ""
    if result.warnings:
        level, warnings = logging.WARNING, f". Warnings: {' '.join(result.warnings)}"
    logger.log(level, "%s: %s%s, %s%s", result.name, result.status, weights, seconds, warnings)


def _stop(number: int, frame: object) -> NoReturn:
    logger.error("%s: stopped. The same command resumes from here.", signal.Signals(number).name)
    sys.exit(128 + number)


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


def _status(how: Ended) -> str:
    """The status of a job. A run of another process may have finished in the meantime."""
    if how.elsewhere is None:
        return how.status
    try:
        result = RunFolder(how.elsewhere).result()
    except SparseBenchError:
        return FAILED
    return result.status if result is not None else _ELSEWHERE


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
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    job()
    while awaited := [how.elsewhere for how in ended if how.status == _AWAITED and how.elsewhere is not None]:
        _wait(awaited)
        ended.clear()
        _set("force=false")  # do not repeat the runs of this command
        job()  # skips finished runs, and resumes those that another process has left unfinished
    statuses = [_status(how) for how in ended]
    finished, elsewhere = statuses.count(FINISHED), statuses.count(_ELSEWHERE)
    if len(statuses) > 1:
        parts = {"finished": finished, "failed": len(statuses) - finished - elsewhere, "running elsewhere": elsewhere}
        counts = [f"{number} {what}" for what, number in parts.items() if number or what == "finished"]
        warned = sum(how.warned for how in ended)
        tail = f"; {warned} have warnings in their result.json" if warned else ""
        logger.info("%d runs: %s%s", len(statuses), ", ".join(counts), tail)
    if elsewhere:
        logger.warning("%d runs belong to another process; with wait_for_others=true, this command waits", elsewhere)
    if finished < len(statuses):
        sys.exit(1)


if __name__ == "__main__":
    main()
