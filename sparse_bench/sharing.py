"""How the runs of a sweep share machines: one run per core, or some per GPU, under every launcher of several processes.

This module also collects how each job of a command ended, for every launcher.
"""

import hashlib
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial, wraps
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from sparse_bench import ray_launcher, slurm
from sparse_bench.journal import JOBS, Ended, Journal, read_jobs

#: A worker reads what others have noted this often. A run that it takes for left is then found to have ended.
_SECONDS_OF_JOURNAL = 30.0

logger = logging.getLogger(__name__)


#: Every job of this command that has ended.
ended: list[Ended] = []


@dataclass
class LauncherConfig:
    """Settings of ``hydra/launcher=joblib``."""

    _target_: str = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
    n_jobs: Any = "${processes:${device},${hydra.launcher.runs_per_gpu}}"  # number of processes; -1: one per core
    runs_per_gpu: int = 1  # runs that share a GPU


def register() -> None:
    """Set up the launchers. They share the machine by :func:`processes` and report how each job ended."""
    Plugins.instance()  # the launchers' own settings must be stored first
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher
    from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher

    OmegaConf.register_new_resolver("processes", processes, replace=True)
    settings = OmegaConf.structured(LauncherConfig)
    ConfigStore.instance().store("joblib", settings, group="hydra/launcher", provider="sparse_bench")
    JoblibLauncher.launch = launch  # Hydra accepts launchers only from its own plugins
    launchers = [BasicLauncher, JoblibLauncher, slurm.SlurmWorkers, ray_launcher.RayTasks]
    _make_known("slurm", slurm.SlurmWorkers, slurm.SlurmConfig)
    _make_known("ray", ray_launcher.RayTasks, ray_launcher.RayLauncherConfig)
    try:
        from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher
    except ImportError:  # an extra
        pass
    else:
        launchers.append(BaseSubmititLauncher)
    for launcher in launchers:
        launcher.launch = _reporting(launcher.launch)


def _make_known(name: str, launcher: type[Launcher], settings: type) -> None:
    """Make a launcher of this project one of Hydra's plugins, which all have to be in the package hydra_plugins."""
    place = "hydra_plugins.sparse_bench"
    setattr(sys.modules.setdefault(place, ModuleType(place)), launcher.__name__, launcher)
    launcher.__module__ = place
    Plugins.instance().register(launcher)
    ConfigStore.instance().store(name, settings, group="hydra/launcher", provider="sparse_bench")


def _reporting(launch: Any) -> Any:
    """A launcher's method that also announces the jobs in the sweep's journal, and notes how each ended."""
    if hasattr(launch, "__wrapped__"):
        return launch

    @wraps(launch)
    def reported(launcher: Any, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        if JOBS not in os.environ:  # a worker finds them announced
            Journal(Path(launcher.config.hydra.sweep.dir)).announce(job_overrides, initial_job_idx)
        before = len(ended)
        returned = launch(launcher, job_overrides, initial_job_idx)
        del ended[before:]  # the jobs that ran in this process have noted themselves
        ended.extend(one.return_value for one in returned)
        return returned

    return reported


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

    from sparse_bench.workers import carry_out

    config, wanted = launcher.config, launcher.joblib["n_jobs"]
    if not isinstance(wanted, int) or wanted == 0:
        raise CompactHydraException(
            f"hydra.launcher.n_jobs must be a number of processes, or -1 for all cores, not {wanted}."
        )
    first, order = initial_job_idx, list(range(len(job_overrides)))
    if JOBS in os.environ:
        # A worker takes its jobs from the list that all share. Each begins elsewhere, so that they rarely meet.
        first, job_overrides = read_jobs(Path(os.environ[JOBS]))
        number, count = (
            int(os.environ.get(f"SLURM_ARRAY_TASK_{name}", one)) for name, one in (("ID", 0), ("COUNT", 1))
        )
        start = len(job_overrides) * number // count
        order = [*range(start, len(job_overrides)), *range(start)]
    processes = min(joblib.effective_n_jobs(wanted), len(job_overrides))
    if config.hydra.launcher.runs_per_gpu > 1 and _gpus():
        _say_how_gpus_are_shared(config.hydra.launcher.runs_per_gpu)
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    logger.info("Launching %d jobs, %d at a time", len(job_overrides), processes)
    for number, overrides in enumerate(() if JOBS in os.environ else job_overrides):
        logger.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
    state = Singleton.get_state()

    def job(number: int, task: Any) -> Any:
        overrides = job_overrides[number]
        return partial(_execute, first + number, overrides, launcher.hydra_context, config, task, state)

    jobs = [job(number, launcher.task_function) for number in order]
    return carry_out(
        jobs, processes, lambda place, reason: job(order[place], partial(launcher.task_function, killed=reason))
    )


def _execute(number: int, overrides: Sequence[str], context: Any, config: Any, task: Any, state: Any) -> JobReturn:
    """Carry out a job, unless another worker of this sweep has ended it. Composing its settings would take longer."""
    from hydra_plugins.hydra_joblib_launcher._core import execute_job

    if JOBS in os.environ:
        entry = journal_of(config).entries(_SECONDS_OF_JOURNAL).get(number)
        if entry is not None and entry.ended is not None:
            return JobReturn(_return_value=entry.ended, status=JobStatus.COMPLETED)
    return execute_job(number, overrides, context, config, task, state)


def journal_of(config: Any) -> Journal:
    """The journal of the sweep that a configuration of Hydra belongs to; one object in each process."""
    jobs = os.environ.get(JOBS)
    return _journal(Path(jobs).parent if jobs else Path(config.hydra.sweep.dir).absolute())


_journal = cache(Journal)


class OutputCheck(Callback):
    """Ends a sweep with a one-line message if its folder cannot be written. Hydra would print a traceback instead."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(config, folder / "multirun.yaml")  # as Hydra does next
        except OSError as error:
            sys.exit(f"output='{config.output}' cannot be written to: {error}")


def processes(device: str, runs_per_gpu: int = 1) -> int:
    """Number of simultaneous runs: ``runs_per_gpu`` per GPU if ``device`` means GPUs, else one per core.

    The cores are those of the Slurm job, if the process belongs to one; -1 leaves the count to joblib.

    More than one process per GPU helps where each uses a small part of it. They take turns, unless NVIDIA's MPS daemon
    runs. Each also keeps its own copy of the libraries in the GPU's memory.
    """
    if device.startswith("cuda:"):
        return runs_per_gpu
    if device == "cuda" or (device == "auto" and _gpus()):
        return runs_per_gpu * max(1, _gpus())
    cores = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE", "")
    return int(cores) if cores.isdigit() else -1


def share(config: DictConfig, number: int, runs_per_gpu: int = 1) -> None:
    """Set threads and device of run ``number`` (from 0) of a sweep, unless the user chose them.

    With several GPUs, each process takes a place on one of them; a GPU has ``runs_per_gpu`` places. If none is free,
    the run's number decides.
    """
    config.progress = False  # the bars of several processes would overwrite each other
    if config.threads is None:
        config.threads = 1
    if config.device in ("auto", "cuda") and _gpus() > 1:
        own = _own_gpu(_gpus(), runs_per_gpu)
        config.device = f"cuda:{number % _gpus() if own is None else own}"


#: The GPU that this process has taken, and the lock that it holds until it ends; empty if it has none.
_held: list[tuple[int, FileLock]] = []


def _own_gpu(gpus: int, places: int) -> int | None:
    """Take a place on a GPU that no other process of this user's sweeps has; None if all are taken.

    The process keeps it for all its runs. Choosing the GPU by the run's number would not do: any free process takes
    the next run, so one GPU could get two runs while another is idle.
    """
    if _held:
        return _held[0][0]
    visible = hashlib.sha256(os.environ.get("CUDA_VISIBLE_DEVICES", "").encode()).hexdigest()[:8]
    try:
        folder = Path(tempfile.gettempdir()) / f"sparse_bench-{os.getuid()}"
        folder.mkdir(exist_ok=True)
        for place, gpu in product(range(places), range(gpus)):  # a second run on a GPU only when each has one
            lock = FileLock(folder / f"gpu-{visible}-{gpu}-{place}.lock", blocking=False)
            try:
                lock.acquire()
            except Timeout:
                continue
            _held.append((gpu, lock))
            return gpu
    except OSError as error:
        logger.warning("This process cannot reserve a GPU, because no lock file can be created: %s", error)
    return None


def _say_how_gpus_are_shared(runs_per_gpu: int) -> None:
    if mps_runs():
        logger.info("%d runs share each GPU, at the same time, through NVIDIA's MPS daemon", runs_per_gpu)
    else:
        logger.warning(
            "%d runs share each GPU and take turns, because NVIDIA's MPS daemon does not run. Start it with "
            "nvidia-cuda-mps-control -d to let them compute at the same time.",
            runs_per_gpu,
        )


def mps_runs() -> bool:
    """Whether this machine's MPS daemon runs, whose folder is that of CUDA_MPS_PIPE_DIRECTORY."""
    folder = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"))
    try:
        os.kill(int((folder / "nvidia-cuda-mps-control.pid").read_text()), 0)
    except PermissionError:  # another user's process
        return True
    except (OSError, ValueError):
        return False
    return True


def _gpus() -> int:
    import torch  # slow to import, and most commands do not need it

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
