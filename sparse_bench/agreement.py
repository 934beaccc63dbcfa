"""The choice between the two kinds of locks (:mod:`sparse_bench.locks`), once for all runs of an output folder."""

import os
import re
import subprocess
import sys
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path

from sparse_bench.errors import ConfigError
from sparse_bench.locks import AGREEMENT, SILENCE, agreed, fcntl, try_flock

#: Options of mounts whose flock only the own machine sees (nfs(5), mount.lustre(8)).
_LOCAL = re.compile(r"(^|,)(nolock|local_lock=(all|flock)|localflock)(,|$)")
#: Ends with 0 if it gets the lock of the file that it is given, and with 3 if another process has it.
_OTHER_PROCESS = """
import errno, fcntl, sys
try:
    fcntl.flock(open(sys.argv[1], "r+"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError as error:
    sys.exit(3 if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else 4)
"""


def agree(output: Path, wanted: str = "auto") -> None:
    """Settle which locks the runs below ``output`` use, once for all processes.

    Args:
        output: the folder of all runs; created if needed.
        wanted: ``flock``, ``files``, or ``auto``: flock if it excludes another process and other machines see it.

    Raises:
        ConfigError: earlier processes chose another kind, or theirs does not work here.
        OSError: the folder cannot be written to.
    """
    _agree(output.absolute(), wanted)


@cache  # the test of flock starts a process
def _agree(output: Path, wanted: str) -> None:
    output.mkdir(parents=True, exist_ok=True)
    path, fault = output / AGREEMENT, None
    if agreed(output) is None:
        fault = flock_fault(output)
        kind = ("flock" if fault is None else "files") if wanted == "auto" else wanted
        with suppress(FileExistsError):  # another process was faster
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            os.write(file, (kind if kind == "flock" else f"files {SILENCE:g}").encode())
            os.close(file)
    kinds = agreed(output)
    assert kinds is not None
    advice = f"To choose again, delete {path} while no process works on a run below it."
    if wanted not in ("auto", kinds[0]):
        raise ConfigError(f"locks={wanted}, but the runs in '{output}' use locks={kinds[0]}. {advice}")
    if kinds[0] == "flock" and (fault := flock_fault(output)) is not None:
        raise ConfigError(f"The runs in '{output}' use locks=flock, which does not work here: {fault}. {advice}")


@cache
def flock_fault(folder: Path) -> str | None:
    """Why ``flock`` cannot be relied on in a folder; None if it can.

    A second process has to be refused while this one has the lock, and to get it afterwards. Whether other machines
    see the lock, the options of the mount tell.

    Raises:
        OSError: the folder cannot be written to.
    """
    if fcntl is None:
        return "this system has no flock"
    if (options := _LOCAL.search(_mount_options(folder))) is not None:
        return f"the file system is mounted with {options[0].strip(',')}, so other machines do not see it"
    path = folder / f".flock.{uuid.uuid4().hex}"
    with path.open("x") as probe:
        try:
            if not try_flock(probe.fileno(), fcntl.LOCK_EX):
                return "a new file was locked already"
            refused = _try_elsewhere(path)
            fcntl.flock(probe.fileno(), fcntl.LOCK_UN)
            if refused == 0:
                return "a second process got the lock that a first one held"
            if refused != 3 or _try_elsewhere(path) != 0:
                return "a second process could not use flock"
        except OSError as error:
            return f"flock fails ({error.strerror})"
        finally:
            path.unlink(missing_ok=True)
    return None


def _try_elsewhere(path: Path) -> int:
    return subprocess.run([sys.executable, "-I", "-S", "-c", _OTHER_PROCESS, path], check=False).returncode


def _mount_options(folder: Path) -> str:
    """Options of the mount that a folder lies on, joined by commas; empty if unknown."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    where = folder.resolve()
    best, options = -1, ""
    for fields in map(str.split, lines):
        mount = Path(fields[4].encode().decode("unicode_escape"))
        if where.is_relative_to(mount) and len(mount.parts) >= best:  # a later mount covers an earlier one
            best, options = len(mount.parts), f"{fields[5]},{fields[-1]}"
    return options
