"""``hydra/launcher=ray``: each run of a sweep is a task of a Ray cluster, with its core and its share of a GPU.

The settings are those of hydra-ray-launcher 1.2.2, which cannot be installed with this project: it needs cloudpickle
before 3, and joblib needs a later one.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

from sparse_bench.journal import Ended
from sparse_bench.record import FAILED

logger = logging.getLogger(__name__)


@dataclass
class RayConfig:
    """What Ray is given.

    Attributes:
        init: arguments of ray.init; ``address: auto`` joins a running cluster, null starts one on this machine.
        remote: arguments of ray.remote, for each run: num_cpus, num_gpus (a fraction shares a GPU), ...
    """

    init: dict[str, Any] = field(default_factory=lambda: {"address": None, "num_cpus": None, "num_gpus": None})
    remote: dict[str, Any] = field(default_factory=lambda: {"num_cpus": 1, "num_gpus": 0, "max_retries": 1})


@dataclass
class RayLauncherConfig:
    """Settings of ``hydra/launcher=ray``."""

    _target_: str = "hydra_plugins.sparse_bench.RayTasks"
    ray: RayConfig = field(default_factory=RayConfig)


class RayTasks(Launcher):
    """Runs each job as a task of Ray."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.config, self.context, self.task = config, hydra_context, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        try:
            import ray
        except ImportError:
            raise CompactHydraException("hydra/launcher=ray needs Ray: pip install 'sparse_bench[ray]'") from None
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        given: Any = OmegaConf.to_container(self.ray, resolve=True)
        if not ray.is_initialized():
            # Without an address Ray would first look for a cluster that runs, or for the traces of one.
            ray.init(**given["init"] | {"address": given["init"].get("address") or "local"})
        logger.info("Launching %d jobs on a Ray cluster with %s", len(job_overrides), ray.cluster_resources())
        run = ray.remote(**given["remote"])(_run)
        shared = ray.put((Path.cwd(), self.context, self.config, self.task, Singleton.get_state()))
        tasks = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            logger.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
            tasks.append(run.remote(number, list(overrides), shared))
        returned = []
        try:
            for number, task in enumerate(tasks, initial_job_idx):
                try:
                    returned.append(ray.get(task))
                except ray.exceptions.RayError as error:  # its process died in every attempt
                    logger.error("Job %d: %s", number, str(error).partition("\n")[0])
                    returned.append(JobReturn(_return_value=Ended(FAILED), status=JobStatus.COMPLETED))
        except BaseException:  # also Ctrl-C and SIGTERM
            for task in tasks:
                ray.cancel(task, force=False)
            raise
        return returned


def _run(number: int, overrides: list[str], shared: tuple[Any, ...]) -> JobReturn:
    """Carry out a job in a process of Ray, whose main thread it has.

    Raises:
        FileNotFoundError: this node does not have the folder in which the sweep was started.
    """
    from hydra_plugins.hydra_joblib_launcher._core import execute_job

    folder, context, config, task, state = shared
    os.chdir(folder)  # a running cluster started elsewhere, and paths such as that of the output are relative
    return execute_job(number, overrides, context, config, task, state)
