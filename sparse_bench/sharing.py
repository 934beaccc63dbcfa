"""How the runs of a sweep share the machine under ``hydra/launcher=joblib``: one a core, or one a GPU."""

import fcntl
import hashlib
import os
import tempfile
from pathlib import Path
from typing import IO

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf


def register() -> None:
    """Set up ``hydra/launcher=joblib`` so that it starts :func:`processes` processes unless told otherwise."""
    Plugins.instance()  # the launcher's own settings are stored first
    from hydra_plugins.hydra_joblib_launcher.config import JobLibLauncherConf

    OmegaConf.register_new_resolver("processes", processes, replace=True)
    settings = OmegaConf.structured(JobLibLauncherConf(n_jobs="${processes:${device}}"))
    ConfigStore.instance().store("joblib", settings, group="hydra/launcher", provider="sparse_bench")


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
_held: list[tuple[int, IO[str]]] = []


def _own_gpu(gpus: int) -> int | None:
    """A GPU that no other process of this user's sweeps has, kept for all runs of this process; None if all are taken.

    Whichever process is free takes the next run, so that GPUs dealt out by the runs' numbers would stand idle beside
    one with two runs.
    """
    if _held:
        return _held[0][0]
    visible = hashlib.sha256(os.environ.get("CUDA_VISIBLE_DEVICES", "").encode()).hexdigest()[:8]
    folder = Path(tempfile.gettempdir()) / f"sparse_bench-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for gpu in range(gpus):
        lock = (folder / f"gpu-{visible}-{gpu}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
        else:
            _held.append((gpu, lock))
            return gpu
    return None


def _gpus() -> int:
    import torch  # slow to import, and most commands end before they need it

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
