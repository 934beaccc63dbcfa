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

#: Statuses of jobs beside those of results: refused before any work; held by another process, and to be waited for.
_REFUSED, _ELSEWHERE, _AWAITED = "refused", "elsewhere", "awaited"
#: Seconds between two looks at runs that other processes work on.
_LOOK = 1.0

register()
sharing.register()
logger = logging.getLogger("sparse_bench")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def job(config: DictConfig, killed: str | None = None) -> Ended:
    """One job of a command: carry out a run. Returns how it ended.

    Args:
        config: of the run.
        killed: why the process died each time that the run was tried; only its failure is then noted.
    """
    how = _carry_out(config, killed)
    ended.append(how)
    return how


def _carry_out(config: DictConfig, killed: str | None) -> Ended:
    # torch is slow to import, and --help or --cfg do not need it
    from sparse_bench.run import run

    chosen = HydraConfig.get()
    launcher = chosen.runtime.choices.get("hydra/launcher", "basic")
    if launcher not in sharing.LAUNCHERS:
        logger.warning("Under hydra/launcher=%s the command's exit status says nothing of its runs", launcher)
    if launcher == "joblib":
        sharing.share(config, chosen.job.num)
    try:
        result = run(config, killed)
    except SparseBenchError as error:
        logger.error("%s", error)
        return Ended(_REFUSED)
    except Exception:  # of the program or the machine, but the other runs of a sweep may still succeed
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
        level, warnings = logging.WARNING, f". But: {' '.join(result.warnings)}"
    logger.log(level, "run %s %s%s, %s%s", result.id, result.status, weights, seconds, warnings)


def _stop(number: int, frame: object) -> NoReturn:
    logger.error("%s: stopped. The same command goes on from here.", signal.Signals(number).name)
    sys.exit(128 + number)


def _set(override: str) -> None:
    """One more setting on the command line, behind the others: what follows flags is no setting to Hydra."""
    others = [place for place, one in enumerate(sys.argv) if "=" in one and not one.startswith("-")]
    sys.argv.insert(max(others, default=0) + 1, override)


def _wait(folders: list[Path]) -> None:
    """Until no process works on any of these runs any more."""
    logger.info("Waiting for %d run(s) that other processes work on", len(folders))
    for folder in folders:
        while _held(folder):
            time.sleep(_LOOK)


def _held(folder: Path) -> bool:
    with RunFolder(folder).lock() as free:
        return not free


def _status(how: Ended) -> str:
    """What the job came to; that of a run elsewhere may have ended since."""
    if how.elsewhere is None:
        return how.status
    try:
        result = RunFolder(how.elsewhere).result()
    except SparseBenchError:
        return FAILED
    return result.status if result is not None else _ELSEWHERE


def main() -> None:
    """Run the command, and exit with 1 unless all of its runs have finished."""
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
        _set("force=false")  # what this command has run is not run again
        job()  # skips what has finished, and goes on with what another process has left
    statuses = [_status(how) for how in ended]
    well, elsewhere = statuses.count(FINISHED), statuses.count(_ELSEWHERE)
    if len(statuses) > 1:
        parts = {"ended well": well, "did not": len(statuses) - well - elsewhere, "running elsewhere": elsewhere}
        said = [f"{number} {what}" for what, number in parts.items() if number or what == "ended well"]
        warned = sum(how.warned for how in ended)
        tail = f"; {warned} carry warnings in their result.json" if warned else ""
        logger.info("%d runs: %s%s", len(statuses), ", ".join(said), tail)
    if elsewhere:
        logger.warning("%d not finished, in the hands of another process; wait_for_others=true waits", elsewhere)
    if well < len(statuses):
        sys.exit(1)


if __name__ == "__main__":
    main()
