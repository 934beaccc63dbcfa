"""How the runs of a sweep share the machine under ``hydra/launcher=joblib``: one run per core, or one per GPU.

This module also collects how each job of a command ended, for every launcher.
"""

import hashlib
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, filter_overrides
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

#: The launchers that report how each job ended.
LAUNCHERS = ("basic", "joblib")

logger = logging.getLogger(__name__)


class Ended(NamedTuple):
    """How a job of the command ended.

    Attributes:
        status: the status of its result.
        elsewhere: the run's folder if another process works on the run, else None.
        warned: whether its result contains warnings.
    """

    status: str
    elsewhere: Path | None = None
    warned: bool = False


#: Every job of this command that has ended.
ended: list[Ended] = []


@dataclass
class LauncherConfig:
    """Settings of ``hydra/launcher=joblib``."""

    _target_: str = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
    n_jobs: Any = "${processes:${device}}"  # number of processes; -1: one per core


def register() -> None:
    """Set up ``hydra/launcher=joblib``: by default :func:`processes` processes, and :func:`launch` runs the jobs."""
    Plugins.instance()  # the launcher's own settings must be stored first
    from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher

    OmegaConf.register_new_resolver("processes", processes, replace=True)
    settings = OmegaConf.structured(LauncherConfig)
    ConfigStore.instance().store("joblib", settings, group="hydra/launcher", provider="sparse_bench")
    JoblibLauncher.launch = launch  # Hydra accepts launchers only from its own plugins


def launch(launcher: Any, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
    """Run the jobs of a sweep in several processes. A process that dies loses only its own job.

    Args:
        launcher: Hydra's joblib launcher, set up.
        job_overrides: the overrides of each job.
        initial_job_idx: number of the first job.

    Returns:
        Hydra's record of each job, in order.

    Raises:
        CompactHydraException: ``n_jobs`` is no valid number of processes.
    """
    import joblib
    from hydra_plugins.hydra_joblib_launcher._core import execute_job

    from sparse_bench.workers import carry_out

    config, wanted = launcher.config, launcher.joblib["n_jobs"]
    if not isinstance(wanted, int) or wanted == 0:
        raise CompactHydraException(
            f"hydra.launcher.n_jobs must be a number of processes, or -1 for all cores, not {wanted}."
        )
    processes = min(joblib.effective_n_jobs(wanted), len(job_overrides))
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    logger.info("Launching %d jobs, %d at a time", len(job_overrides), processes)
    for number, overrides in enumerate(job_overrides):
        logger.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
    state = Singleton.get_state()

    def job(number: int, task: Any) -> Any:
        overrides = job_overrides[number]
        return partial(execute_job, initial_job_idx + number, overrides, launcher.hydra_context, config, task, state)

    jobs = [job(number, launcher.task_function) for number in range(len(job_overrides))]
    returned = carry_out(
        jobs, processes, lambda number, reason: job(number, partial(launcher.task_function, killed=reason))
    )
    ended.extend(one.return_value for one in returned)
    return returned


class OutputCheck(Callback):
    """Ends a sweep with a one-line message if its folder cannot be written. Hydra would print a traceback instead."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(config, folder / "multirun.yaml")  # as Hydra does next
        except OSError as error:
            sys.exit(f"output='{config.output}' cannot be written to: {error}")


def processes(device: str) -> int:
    """Number of simultaneous runs: one per GPU if ``device`` means GPUs, else one per core (-1 for joblib).

    More than one process per GPU rarely helps. They take turns, unless NVIDIA's MPS daemon runs. Each also keeps its
    own copy of the libraries in the GPU's memory.
    """
    if device.startswith("cuda:"):
        return 1
    return max(1, _gpus()) if device == "cuda" else _gpus() if device == "auto" and _gpus() else -1


def share(config: DictConfig, number: int) -> None:
    """Set threads and device of run ``number`` (from 0) of a sweep, unless the user chose them.

    With several GPUs, each process takes one for itself. If none is free, the run's number decides.
    """
    config.progress = False  # the bars of several processes would overwrite each other
    if config.threads is None:
        config.threads = 1
    if config.device in ("auto", "cuda") and _gpus() > 1:
        own = _own_gpu(_gpus())
        config.device = f"cuda:{number % _gpus() if own is None else own}"


#: The GPU that this process has taken, and the lock that it holds until it ends; empty if it has none.
_held: list[tuple[int, FileLock]] = []


def _own_gpu(gpus: int) -> int | None:
    """Take a GPU that no other process of this user's sweeps has; None if all are taken.

    The process keeps it for all its runs. Choosing the GPU by the run's number would not do: any free process takes
    the next run, so one GPU could get two runs while another is idle.
    """
    if _held:
        return _held[0][0]
    visible = hashlib.sha256(os.environ.get("CUDA_VISIBLE_DEVICES", "").encode()).hexdigest()[:8]
    try:
        folder = Path(tempfile.gettempdir()) / f"sparse_bench-{os.getuid()}"
        folder.mkdir(exist_ok=True)
        for gpu in range(gpus):
            lock = FileLock(folder / f"gpu-{visible}-{gpu}.lock", blocking=False)
            try:
                lock.acquire()
            except Timeout:
                continue
            _held.append((gpu, lock))
            return gpu
    except OSError as error:
        logger.warning("This process cannot reserve a GPU, because no lock file can be created: %s", error)
    return None


def _gpus() -> int:
    import torch  # slow to import, and most commands do not need it

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
