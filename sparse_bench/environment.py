"""What a run depends on besides its configuration: the process's settings, versions, commit, machine, memory."""

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

_PACKAGES = ("sparse_bench", "torch", "numpy", "scipy", "scikit-learn", "hydra-core", "omegaconf")


#: glibc's mallopt parameters (malloc.h): what may lie free at the heap's end, and how many blocks outside the heap.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_LARGEST_TRIM_THRESHOLD = (1 << 31) - 1


def tune_process() -> None:
    """Settings of libraries that training on a CPU needs; call before the first tensor operation.

    Batches of packed sequences come in ever new sizes. oneDNN keeps a compiled primitive for each of the last 1,024
    sizes (over a gigabyte), which a smaller cache avoids at no cost in time; the user's own setting is respected. The
    C library takes large buffers from the system and gives them back at every step, which costs a fifth of a small
    model's step in page faults and three quarters of that of a dense table of 36 MB, so it is told to keep them.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, _LARGEST_TRIM_THRESHOLD)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def git() -> dict[str, Any]:
    """Commit of the project's checkout and whether it had uncommitted changes; None outside a checkout.

    An installed copy may lie inside the checkout of another project, whose commit says nothing about this one.
    """
    if _ask_git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return {"commit": None, "dirty": None}
    status = _ask_git("status", "--porcelain")
    return {"commit": _ask_git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def _ask_git(*arguments: str) -> str | None:
    """What git prints in the package's folder; None if it fails or is not there."""
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


def machine(device: torch.device) -> dict[str, Any]:
    """Processor, its vector instructions as torch uses them (other widths round otherwise), cores, threads, device."""
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    on_gpu = device.type == "cuda"
    return {
        "processor": names[0] if names else platform.processor(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
    }


def memory_bytes(device: torch.device) -> int | None:
    """Memory of a device, or of the machine, as far as a container lets the process have it; None where it is unknown.

    What others use of it is not taken off.
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
    """Start a new measurement of :func:`peak_memory_bytes`, so that one run does not inherit another's peak."""
    gc.collect()  # an earlier run's model holds itself
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)  # what an earlier run left is not this one's
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux, or not allowed: the process's own peak is then reported


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory since the last reset: the device's on CUDA, the process's resident memory elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        match = None
    return int(match[1]) * 1024 if match else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
