"""What a run depends on in addition to its configuration: process settings, versions, commit, machine, memory."""

import ctypes
import gc
import os
import platform
import re
import resource
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sparse_bench.errors import ConfigError

_PACKAGES = ("sparse_bench", "torch", "numpy", "scipy", "scikit-learn", "hydra-core", "omegaconf")


#: Parameters of glibc's mallopt (malloc.h): free bytes kept at the heap's end; number of blocks outside the heap.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_LARGEST_TRIM_THRESHOLD = (1 << 31) - 1


def tune_process() -> None:
    """Tune libraries for training on a CPU. Call it before the first tensor operation.

    Batches of packed sequences come in ever new sizes. oneDNN keeps a compiled primitive for each of the last 1,024
    sizes, which takes over a gigabyte. A smaller cache avoids this at no cost in time. The user's own setting is
    respected.

    By default the C library requests large buffers from the system at every step and returns them. The page faults
    cost a fifth of a small model's step, and three quarters of a step with a dense table of 36 MB. Here the library
    is set to keep the buffers.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, _LARGEST_TRIM_THRESHOLD)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def git() -> dict[str, Any]:
    """Commit of the project's checkout, and whether it has uncommitted changes; both None outside a checkout.

    An installed copy inside another project's checkout counts as outside: that commit does not describe this code.
    """
    if _ask_git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return {"commit": None, "dirty": None}
    status = _ask_git("status", "--porcelain")
    return {"commit": _ask_git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def _ask_git(*arguments: str) -> str | None:
    """Output of git in the package's folder; None if git fails or is not installed."""
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(device: torch.device) -> dict[str, Any]:
    """Processor, vector instructions that torch uses, cores, threads and device.

    The vector instructions matter because another vector width rounds differently.
    """
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    on_gpu = device.type == "cuda"
    return {
        "processor": names[0] if names else platform.processor(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
    }


def device_of(name: str) -> torch.device:
    """The device with a name; ``auto`` is CUDA if it is available.

    Raises:
        ConfigError: it is not available, or not supported.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device='{name}' is unknown to torch. Use auto, cpu, cuda or cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device='{name}' is not supported. Use auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device='{name}' is not available: torch finds no CUDA device. Use device=auto or cpu.")
    return device


def memory_bytes(device: torch.device) -> int | None:
    """Total memory of a GPU, or of the machine up to the container's limit; None if unknown.

    Memory that other processes use is included.
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        limit = "max"
    return min(found, int(limit)) if limit.isdigit() else found


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of :func:`peak_memory_bytes`, so that a run does not report an earlier run's peak."""
    gc.collect()  # the model of an earlier run contains reference cycles
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)  # return memory that an earlier run freed
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux, or not permitted: then the peak since the process started is reported


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory since the last reset: allocated GPU memory on CUDA, else resident memory of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        match = None
    return int(match[1]) * 1024 if match else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def set_deterministic(wanted: bool, device: torch.device) -> None:
    """Have torch use algorithms that give the same bits in every run, or not."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it to be deterministic
    torch.use_deterministic_algorithms(wanted, warn_only=True)
    # On a GPU, fused attention sums gradients in any order, which warn_only would allow.
    fused = not (wanted and device.type == "cuda")
    torch.backends.cuda.enable_flash_sdp(fused)
    torch.backends.cuda.enable_mem_efficient_sdp(fused)
    torch.backends.cuda.enable_cudnn_sdp(fused)
    # Every buffer of this project is written before it is read. (mypy does not see the attribute.)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
