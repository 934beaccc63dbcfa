"""``hydra/launcher=slurm``: an array of workers on a Slurm cluster, which share the runs of a sweep.

Each task of the array works through the whole sweep with ``hydra/launcher=joblib``, and leaves out the runs that
others work on or have ended. So thousands of short runs need few tasks. A worker that is preempted, runs out of time,
or is killed, is started again by Slurm, and continues from the checkpoints.
"""

import logging
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, configure_log
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher

from sparse_bench.errors import CheckpointError
from sparse_bench.journal import ELSEWHERE, JOBS, LEFT, Ended, Entry, Journal, how_it_ended
from sparse_bench.record import FAILED, FINISHED, RunFolder

#: How often a worker that was killed is started again.
_RESTARTS = 20
_SCRIPT = """#!/bin/bash
{options}
# A worker of a sweep. Its runs are listed in {jobs_variable}.
export {jobs_variable}={jobs}
{setup}
{command} &
worker=$!
# Slurm signals this shell alone. The worker saves checkpoints of its runs, and ends.
trap 'kill -USR1 $worker' USR1
trap 'kill -TERM $worker' TERM
code=
until [ -n "$code" ]; do
    wait $worker
    code=$?
    kill -0 $worker 2>/dev/null && code=  # a signal ended the waiting, not the worker
done
# 138: its time is nearly over. 137: it was killed. In both cases it continues later.
if [ $code = 138 ] || {{ [ $code = 137 ] && [ ${{SLURM_RESTART_COUNT:-0}} -lt {restarts} ]; }}; then
    echo "The worker ended with $code and is started again."
    scontrol requeue $SLURM_JOB_ID && sleep 60
fi
exit $code
"""

logger = logging.getLogger(__name__)


@dataclass
class SlurmConfig:
    """Settings of ``hydra/launcher=slurm``; names that submitit's launcher also has mean the same."""

    _target_: str = "hydra_plugins.sparse_bench.SlurmWorkers"
    workers: int = 1  # tasks of the array, each on one node
    runs_per_gpu: int = 1  # runs that share a GPU of a node
    n_jobs: int | None = None  # processes of a worker; null: one per core of its job, or runs_per_gpu per GPU
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    timeout_min: int = 60  # minutes of a task; a worker that has runs left is queued again at their end
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    mem_gb: int | None = None
    array_parallelism: int | None = None  # tasks that run at once; null: all
    signal_delay_s: int = 120  # seconds before the end of a task's time at which its runs save checkpoints
    additional_parameters: dict[str, Any] = field(default_factory=dict)  # other options of sbatch, such as nice: 100
    setup: list[str] = field(default_factory=list)  # shell commands before the worker, such as module load cuda
    detach: bool = False  # true: submit, and end at once; the jobs keep running
    poll_seconds: float = 5.0  # time between two looks at the queue


class SlurmWorkers(Launcher):
    """Submits the workers, waits for them, and reports how each run ended."""

    def __init__(self, **settings: Any) -> None:
        self.settings = SlurmConfig(**settings)

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        if self.settings.workers < 1:
            raise CompactHydraException(f"hydra.launcher.workers must be at least 1, not {self.settings.workers}.")
        if any(override.lstrip("+") == "force=true" for job in job_overrides for override in job):
            raise CompactHydraException(
                "force=true does not fit workers, because each would repeat the runs of the others. Use "
                "hydra/launcher=submitit_slurm, or delete the folders of the runs."
            )
        sweep = Path(self.config.hydra.sweep.dir).absolute()
        journal = Journal(sweep)
        jobs = journal.announce(job_overrides, initial_job_idx)
        script = sweep / f"slurm-{initial_job_idx}.sh"
        script.write_text(self._script(sweep, jobs, min(self.settings.workers, len(job_overrides))))
        array = _submit(script)
        logger.info("Slurm job %s: %d runs. Logs: %s", array, len(job_overrides), _logs(sweep))
        if self.settings.detach:
            logger.info("To look: sparse-bench status %s. To cancel: scancel %s", sweep, array)
            return []
        numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
        try:
            self._wait(array, journal, numbers)
        except BaseException:  # also Ctrl-C and SIGTERM
            logger.warning("Cancelling Slurm job %s; with hydra.launcher.detach=true it would keep running", array)
            subprocess.run(["scancel", array], check=False)
            raise
        entries = journal.entries()
        ended = [outcome(entries.get(number)) for number in numbers]
        return [JobReturn(_return_value=how, status=JobStatus.COMPLETED) for how in ended]

    def _wait(self, array: str, journal: Journal, numbers: range) -> None:
        """Wait until no task of the array is left; tell failures and progress when they come."""
        reported, before = set[int](), ""
        while True:
            queued = _queue(array)
            entries = journal.entries()
            for number in numbers:
                entry = entries.get(number)
                if entry is None or entry.ended is None:
                    continue
                if entry.ended.status != FINISHED and number not in reported:
                    logger.error("Job %d %s: %s (%s)", number, entry.ended.status, entry.ended.error, entry.folder)
                reported.add(number)
            done = sum(outcome(entries[number]).status == FINISHED for number in reported)
            tasks = ", ".join(f"{count} {state}" for state, count in sorted(queued.items())) or "none left"
            if (text := f"{done} of {len(numbers)} runs finished; tasks: {tasks}") != before:
                logger.info("%s", text)
                before = text
            if not queued:
                return
            time.sleep(self.settings.poll_seconds)

    def _script(self, sweep: Path, jobs: Path, workers: int) -> str:
        chosen = self.settings
        limit = f"%{chosen.array_parallelism}" if chosen.array_parallelism else ""
        _logs(sweep).mkdir(parents=True, exist_ok=True)  # without it, Slurm ends the tasks and says nothing
        options = {
            "job-name": "sparse_bench",
            "array": f"0-{workers - 1}{limit}",
            "requeue": None,
            "open-mode": "append",
            "output": str(_logs(sweep) / "%A_%a.log"),
            "signal": f"B:USR1@{chosen.signal_delay_s}",
            "time": str(chosen.timeout_min),
            "nodes": "1",
            **{key: getattr(chosen, key) for key in ("partition", "account", "qos", "constraint")},
            "cpus-per-task": chosen.cpus_per_task,
            "gpus-per-node": chosen.gpus_per_node,
            "mem": f"{chosen.mem_gb}G" if chosen.mem_gb else None,
            **{key.replace("_", "-"): value for key, value in chosen.additional_parameters.items()},
        }
        flags = ("requeue",)
        lines = [f"#SBATCH --{key}={value}" for key, value in options.items() if value is not None]
        lines += [f"#SBATCH --{key}" for key in flags]
        mine = [one for one in self.config.hydra.overrides.hydra if not _of_launcher(one)]
        processes = [] if chosen.n_jobs is None else [f"hydra.launcher.n_jobs={chosen.n_jobs}"]
        command = [
            *(sys.executable, "-m", "sparse_bench", "--multirun", *mine),
            *("hydra/launcher=joblib", f"hydra.launcher.runs_per_gpu={chosen.runs_per_gpu}", *processes),
            f"hydra.sweep.dir='{_logs(sweep)}'",
        ]
        return _SCRIPT.format(
            options="\n".join(lines),
            jobs_variable=JOBS,
            jobs=shlex.quote(str(jobs)),
            setup="\n".join(chosen.setup),
            command=shlex.join(command),
            restarts=_RESTARTS,
        )


def outcome(entry: Entry | None) -> Ended:
    """How a job ended, also if its worker was killed before it could note that."""
    if entry is None or entry.ended is not None or entry.folder is None:
        return (entry and entry.ended) or Ended(LEFT)
    folder = RunFolder(entry.folder)
    try:
        result = folder.result()
    except CheckpointError:
        return Ended(FAILED)
    if result is not None:
        return how_it_ended(result)
    return Ended(ELSEWHERE, entry.folder) if folder.owner() is not None else Ended(LEFT)


def _logs(sweep: Path) -> Path:
    return sweep / "slurm"


def _of_launcher(override: str) -> bool:
    """Whether an override chooses or sets what a worker has another one for."""
    key = override.lstrip("+~").partition("=")[0].partition("@")[0]
    return bool(re.match(r"hydra(/|\.)(launcher|sweeper)\b|hydra\.sweep\.dir$|hydra\.mode$", key))


def _submit(script: Path) -> str:
    try:
        done = subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CompactHydraException(
            "hydra/launcher=slurm needs Slurm's command sbatch, which was not found. Start the sweep on a machine that "
            "submits jobs, or use hydra/launcher=joblib."
        ) from None
    if done.returncode:
        raise CompactHydraException(f"sbatch refused {script}: {done.stderr.strip()}")
    return done.stdout.strip().partition(";")[0]


def _queue(array: str) -> Counter[str]:
    """Number of the array's tasks in each state; empty if none is left."""
    command = ["squeue", "--noheader", "--array", "--format=%T", f"--jobs={array}"]
    while True:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return Counter(line.strip().lower() for line in done.stdout.splitlines() if line.strip())
        if "Invalid job id" in done.stderr:  # it ended so long ago that Slurm has forgotten it
            return Counter()
        logger.warning("squeue failed, and is tried again: %s", done.stderr.strip())
        time.sleep(30)
