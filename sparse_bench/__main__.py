"""Command line: ``python -m sparse_bench experiment=NAME [settings]``, or ``sweep=NAME``, or ``-m`` for a multirun."""

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sparse_bench import sharing
from sparse_bench.config import CONF, check_command_line, register
from sparse_bench.errors import ConfigError, SparseBenchError

#: Where the jobs of one command say how they ended, and the process that the command is; both travel to the processes
#: that run them.
_JOURNAL, _COMMAND = "SPARSE_BENCH_JOURNAL", "SPARSE_BENCH_COMMAND"

register()
sharing.register()
logger = logging.getLogger("sparse_bench")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def job(config: DictConfig) -> str:
    """One job of a command: carry out a run and note how it ended. Returns its status."""
    # torch is slow to import, and --help or --cfg do not need it
    from sparse_bench.environment import end_with
    from sparse_bench.run import run

    chosen = HydraConfig.get()
    if chosen.runtime.choices.get("hydra/launcher") == "joblib":
        sharing.share(config, chosen.job.num)
        if (command := int(os.environ.get(_COMMAND, os.getpid()))) != os.getpid():
            end_with(command)
    try:
        result = run(config)
    except SparseBenchError as error:
        logger.error("%s", error)
        return _note("refused", str(error))
    except Exception as error:  # of the program or the machine, but the other runs of a sweep may still succeed
        logger.exception("The run ended without a result")
        return _note("failed", str(error))
    if result is None:
        return _note("elsewhere", "")
    _show(result)
    return _note(result.status, result.error["message"] if result.error else "", warned=bool(result.warnings))


def _show(result: Any) -> None:
    weights = ""
    if result.counts:
        weights = f", {result.densities()}, {result.counts['sparse_layers']:,} weights in the sparse layers"
    seconds = f"{result.seconds.get('total', 0.0):.0f} s"
    level, warnings = logging.INFO, ""
    if result.warnings:
        level, warnings = logging.WARNING, f". But: {' '.join(result.warnings)}"
    logger.log(level, "run %s %s%s, %s%s", result.id, result.status, weights, seconds, warnings)


def _note(status: str, message: str, warned: bool = False) -> str:
    journal = os.environ.get(_JOURNAL)
    if journal:
        with Path(journal).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"status": status, "message": message, "warned": warned}) + "\n")
    return status


def _stop(number: int, frame: object) -> NoReturn:
    logger.error("%s: stopped. The same command goes on from here.", signal.Signals(number).name)
    sys.exit(128 + number)


def main() -> None:
    """Run the command, and exit with 1 if any of its runs failed or was refused."""
    import tempfile

    try:
        check_command_line(sys.argv[1:])
    except ConfigError as error:
        sys.exit(str(error))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    with tempfile.TemporaryDirectory(prefix="sparse_bench_") as folder:
        journal = Path(folder) / "journal.jsonl"
        os.environ |= {_JOURNAL: str(journal), _COMMAND: str(os.getpid())}
        job()
        if not journal.exists():
            return
        ended = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    bad = [entry for entry in ended if entry["status"] in ("failed", "refused")]
    if len(ended) > 1:
        warned = sum(entry["warned"] for entry in ended)
        said = f"; {warned} carry warnings in their result.json" if warned else ""
        logger.info("%d runs: %d ended well, %d did not%s", len(ended), len(ended) - len(bad), len(bad), said)
    if bad:
        sys.exit(1)


if __name__ == "__main__":
    main()
