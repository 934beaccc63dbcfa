"""How the runs of a sweep share the machine under ``hydra/launcher=joblib``: one a core, or one a GPU.

What the jobs of a command came to is gathered here too, whichever launcher carries them out.
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

#: The launchers that say how each job ended.
LAUNCHERS = ("basic", "joblib")

logger = logging.getLogger(__name__)


class Ended(NamedTuple):
    """How a job of the command ended: its status; the run's folder if another process works on it; whether its result
    carries warnings."""

    status: str
    elsewhere: Path | None = None
    warned: bool = False


#: Every job of this command that has ended.
ended: list[Ended] = []


@dataclass
class LauncherConfig:
    """Settings of ``hydra/launcher=joblib``."""

    _target_: str = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
    n_jobs: Any = "${processes:${device}}"  # how many processes; -1: one a core


def register() -> None:
    """Set up ``hydra/launcher=joblib``: :func:`processes` processes unless told otherwise, each of which may die."""
    Plugins.instance()  # the launcher's own settings are stored first
    from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher

    OmegaConf.register_new_resolver("processes", processes, replace=True)
    settings = OmegaConf.structured(LauncherConfig)
    ConfigStore.instance().store("joblib", settings, group="hydra/launcher", provider="sparse_bench")
    JoblibLauncher.launch = launch  # Hydra takes launchers from its own plugins alone


def launch(launcher: Any, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
    """Carry out the jobs of a sweep in several processes; one that dies takes only its own job along.

    Args:
        launcher: Hydra's joblib launcher, set up.
        job_overrides: settings of each job.
        initial_job_idx: number of the first job.

    Raises:
        CompactHydraException: the number of processes is none.
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
    """Says before a sweep, in a sentence, that its folder cannot be written; Hydra would end with a traceback."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(config, folder / "multirun.yaml")  # as Hydra does next
        except OSError as error:
            sys.exit(f"output='{config.output}' cannot be written to: {error}")


def processes(device: str) -> int:
    """How many runs there are at once: one a GPU if ``device`` means GPUs, else one a core (-1 to joblib).

    Several processes on one GPU take turns, unless NVIDIA's MPS daemon lets them work at once, and each holds its own
    copy of the libraries in the GPU's memory.
    """
    if device.startswith("cuda:"):
        return 1
    return max(1, _gpus()) if device == "cuda" else _gpus() if device == "auto" and _gpus() else -1


def share(config: DictConfig, number: int) -> None:
    """Settings of run ``number`` of a sweep (from 0), beside others on this machine, where the user left them open.

    Of several GPUs each process takes one for itself; processes that find none left take them in turn.
    """
    config.progress = False  # bars of several processes would be written over each other
    if config.threads is None:
        config.threads = 1
    if config.device in ("auto", "cuda") and _gpus() > 1:
        own = _own_gpu(_gpus())
        config.device = f"cuda:{number % _gpus() if own is None else own}"


#: The GPU that this process has taken, and the lock that keeps it until the process ends; empty where it has none.
_held: list[tuple[int, FileLock]] = []


def _own_gpu(gpus: int) -> int | None:
    """A GPU that no other process of this user's sweeps has, kept for all runs of this process; None if all are taken.

    Whichever process is free takes the next run, so that GPUs dealt out by the runs' numbers would stand idle beside
    one with two runs.
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
        logger.warning("No GPU can be kept for this process alone, as no lock can be made: %s", error)
    return None


def _gpus() -> int:
    import torch  # slow to import, and most commands end before they need it

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
