"""Compile the C++ kernel when it is first needed, and keep the library in the user's cache directory.

The library has a plain C interface and does not use torch. So it compiles in seconds instead of minutes, needs no
headers of Python or torch, and stays valid when either is upgraded. Its folder is named by a hash of everything it
depends on: sources, compiler, flags and processor. Different machines may share a home directory. A second file holds
the SHA-256 of the library. It is verified before loading, because a truncated library would crash the process.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from itertools import product
from pathlib import Path

from filelock import FileLock

from sparse_bench.cache import cache_root

_SOURCES = Path(__file__).parent / "native"
#: The sources use explicit vectors. In the remaining loops the compiler would use gathers, which are slower, so
#: automatic vectorisation is off. Loops are aligned to cache lines; unaligned, their speed varies by up to a tenth.
_FLAGS = (
    *("-std=gnu++17", "-O3", "-fno-tree-vectorize", "-falign-loops=64", "-ffp-contract=fast", "-fno-math-errno"),
    *("-shared", "-fPIC"),
)
#: Tried in this order; the first combination that compiles is used.
_TARGETS = (("-march=native",), ("-mcpu=native",), ())
_THREADS = (("-fopenmp",), ())

_log = logging.getLogger(__name__)


class BuildError(Exception):
    """The kernel cannot be compiled or loaded here; the message gives the reason."""


def cache_directory() -> Path:
    """The project's cache directory, see :func:`sparse_bench.cache.cache_root`.

    Raises:
        BuildError: there is no home directory to put it in.
    """
    try:
        return cache_root()
    except RuntimeError as error:
        raise BuildError("there is no directory to keep it in; set HOME or XDG_CACHE_HOME") from error


def processor() -> str:
    """A text that identifies the processor's model and instruction set."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "features", "cpu part")
    lines = info.read_text(errors="replace").split("\n\n", 1)[0].splitlines()
    return "\n".join(line for line in lines if line.lower().startswith(wanted)) or platform.machine()


def source_hash() -> str:
    """SHA-256 of the kernel's sources, in hexadecimal."""
    digest = hashlib.sha256()
    for path in sorted(_SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def compiler() -> str:
    """Path of the C++ compiler: ``$CXX``, or the first of c++, g++ and clang++ that exists.

    Raises:
        BuildError: no compiler was found.
    """
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for name in names:
        if found := shutil.which(name):
            return found
    raise BuildError(f"no C++ compiler found (looked for {', '.join(names)})")


@cache
def load_library() -> ctypes.CDLL:
    """Load the kernel, compiled if necessary. Logs a warning if it was compiled without threads.

    Raises:
        BuildError: the kernel cannot be compiled or loaded.
    """
    path = _compiled()
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"the compiled kernel {path} cannot be loaded: {error}") from error
    if not library.has_threads():
        _log.warning(
            "the sparse kernel computes on one thread, because %s has no OpenMP. Install OpenMP (libgomp for g++, "
            "libomp-dev for clang++) and remove %s, or set CXX to a compiler that has OpenMP.",
            compiler(),
            path.parent,
        )
    return library


def _compiled() -> Path:
    cxx = compiler()
    version = subprocess.run([cxx, "--version"], capture_output=True, text=True, check=False).stdout
    key = "\0".join([source_hash(), cxx, version, *_FLAGS, platform.system(), processor()])
    folder = cache_directory() / "kernels" / hashlib.sha256(key.encode()).hexdigest()[:16]
    library = folder / "sparse_kernels.so"
    if _whole(library):
        return library
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if _whole(library):  # another process has compiled it in the meantime
                return library
            if library.exists():
                _log.warning("the compiled kernel %s is damaged, and is compiled again", library)
            for leftover in folder.glob("tmp*"):  # from a process that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                built = Path(scratch) / library.name
                _compile(cxx, built)
                digest = Path(scratch) / "digest"
                digest.write_text(_digest(built))
                built.replace(library)
                digest.replace(_digest_file(library))
    except OSError as error:
        raise BuildError(f"the kernel cannot be written to {folder}: {error}") from error
    return library


def _digest_file(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _digest(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()


def _whole(library: Path) -> bool:
    """Whether the library exists and has the checksum of what was compiled."""
    try:
        return _digest(library) == _digest_file(library).read_text(errors="replace").strip()
    except OSError:
        return False


def _compile(cxx: str, target: Path) -> None:
    first_error = ""
    for tuned, threads in product(_TARGETS, _THREADS):
        command = [cxx, *_FLAGS, *tuned, *threads, *map(str, sorted(_SOURCES.glob("*.cpp"))), "-o", str(target)]
        # The compiler's temporary files go to the same disk as the library.
        environment = os.environ | {"TMPDIR": str(target.parent)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode == 0:
            _log.info("compiled the sparse kernel: %s", " ".join(command))
            return
        first_error = first_error or done.stderr.strip() or f"exit status {done.returncode}"
    raise BuildError(f"{cxx} cannot compile the kernel: {first_error[-2000:]}")
