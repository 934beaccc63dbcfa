"""Locks of run folders, so that no two processes work on the same run, also on file systems that machines share.

There are two kinds. ``flock`` is the kernel's: a process that dies loses its lock at once. Not every file system
offers it to all machines. Then ``files`` are used: a lock is a file that names its owner, and whose time the owner
renews. A lock whose time has not been renewed for :data:`SILENCE` seconds is taken over.

The first process that works in an output folder chooses the kind for all, and writes it to ``.locks`` there.
"""

import errno
import json
import os
import socket
import tempfile
import threading
import time
import uuid
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sparse_bench.errors import ConfigError, LostLockError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: Seconds without a sign of life after which a lock file counts as a dead process's.
SILENCE = 180.0
#: The owner of a lock file renews its time so often within :data:`SILENCE`.
_BEATS = 9
#: Content of a lock file whose owner has let go.
_FREE = b"free"
#: Name of the file that holds the kind of locks of all runs below its folder.
AGREEMENT = ".locks"


@dataclass(frozen=True)
class Owner:
    """Who holds a lock.

    Attributes:
        token: unique name of this acquisition.
        host: the machine's name.
        machine: its boot and the namespace of its process numbers, within which ``pid`` means one process.
        pid: the process.
        since: when it took the lock [s since 1970].
        job: the Slurm job that it belongs to; empty outside Slurm.
    """

    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    host: str = field(default_factory=socket.gethostname)
    machine: str = field(default_factory=lambda: _machine())
    pid: int = field(default_factory=os.getpid)
    since: float = field(default_factory=time.time)
    job: str = field(default_factory=lambda: _slurm_job())

    def is_gone(self) -> bool:
        """Whether the process has certainly ended; False if that cannot be known, as for another machine's."""
        if not self.machine or self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False


class Lock(ABC):
    """The lock of a folder, held by at most one process."""

    @abstractmethod
    def acquire(self) -> bool:
        """Take the lock. Returns False at once if another process has it.

        Raises:
            OSError: the folder cannot be written to.
        """

    @abstractmethod
    def release(self) -> None:
        """Let go of the lock."""

    @abstractmethod
    def owner(self) -> Owner | None:
        """Who holds the lock; None if nobody does."""

    def outlives(self) -> bool:
        """Whether the owner is alive; False if nobody holds the lock. May wait until that is certain."""
        return self.owner() is not None

    def verify(self) -> None:
        """Check that this process still holds the lock.

        Raises:
            LostLockError: another process has taken it over.
        """


class Flock(Lock):
    """The kernel's lock of the file ``.lock``."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".lock"
        self._file: int | None = None

    def acquire(self) -> bool:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        for _ in range(5):  # whoever asks for the owner holds the lock for a moment
            if try_flock(file, fcntl.LOCK_EX):
                break
            time.sleep(0.02)
        else:
            os.close(file)
            return False
        os.ftruncate(file, 0)
        os.write(file, json.dumps(asdict(Owner())).encode())
        self._file = file
        return True

    def release(self) -> None:
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None

    def owner(self) -> Owner | None:
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if try_flock(file, fcntl.LOCK_SH):
                return None
            return _owner(os.read(file, 1 << 16)) or Owner("", "", "", 0, 0.0, "")
        finally:
            os.close(file)


class LockFile(Lock):
    """A lock of files that work on any file system: ``.lock.0``, and ``.lock.1``, ... if it was taken over.

    The file with the highest number counts. Whoever creates it has the lock, and only one process can create a file.
    Times are compared as the file server gives them, because the clocks of machines differ.

    Args:
        folder: the folder to lock.
        silence: seconds without a sign of life after which a lock is taken over.
    """

    def __init__(self, folder: Path, silence: float = SILENCE) -> None:
        self._folder, self._silence = folder, silence
        self._own: Path | None = None
        self._ended = threading.Event()
        self._lost = False
        self._last_beat = 0.0

    def acquire(self) -> bool:
        number = self._highest()
        before = None
        if number is not None:
            before = self._read(number)
            if before is None or not self._is_free(number, before):
                return False
        mine = Owner()
        path = self._path(0 if number is None else number + 1)
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            return False
        with os.fdopen(file, "wb") as content:
            content.write(json.dumps(asdict(mine)).encode())
        # The owner may have let go, and another process taken the lock, since this one found it abandoned.
        if number is not None and self._read(number) != before:
            path.unlink(missing_ok=True)
            return False
        self._own, self._mine, self._lost = path, mine, False
        self._last_beat = _now()
        self._ended = threading.Event()
        threading.Thread(target=self._beat, args=(self._ended,), daemon=True).start()
        return True

    def release(self) -> None:
        self._ended.set()
        own, self._own = self._own, None
        if own is None or self._lost or self._taken_over(own):
            return
        if own == self._path(0):
            own.unlink(missing_ok=True)
        else:  # keep the number, because a process that sleeps may believe that it has a lower one
            own.write_bytes(_FREE)

    def owner(self) -> Owner | None:
        number = self._highest()
        found = None if number is None else self._read(number)
        return None if number is None or found is None or self._is_free(number, found) else found[0]

    def outlives(self) -> bool:
        number = self._highest()
        if number is None:
            return False
        first = self._time(number)
        while self.owner() is not None:
            if self._highest() != number or self._time(number) != first:
                return True
            time.sleep(self._silence / _BEATS / 4)
        return False

    def verify(self) -> None:
        if self._own is None:
            return
        # A process that was stopped for long, or cut off from the file system, may have lost its lock.
        late = _now() - self._last_beat > self._silence / 2
        if self._lost or (late and self._taken_over(self._own)):
            self._lost = True
            raise LostLockError(
                f"{self._folder}: this process gave no sign of life for {self._silence:g} s, and another one has taken "
                "its run over."
            )

    def _path(self, number: int) -> Path:
        return self._folder / f".lock.{number}"

    def _highest(self) -> int | None:
        names = (path.name.rpartition(".") for path in self._folder.iterdir())
        return max((int(last) for first, _, last in names if first == ".lock" and last.isdigit()), default=None)

    def _read(self, number: int) -> tuple[Owner | None, bytes] | None:
        """The owner in a lock file, and the file's content; None if there is no such file."""
        try:
            content = self._path(number).read_bytes()
        except OSError:
            return None
        return _owner(content), content

    def _is_free(self, number: int, found: tuple[Owner | None, bytes]) -> bool:
        """Whether nobody holds a lock file: it was let go, its process is gone, or it has been silent for too long."""
        owner, content = found
        gone = owner is not None and owner.is_gone()
        return content == _FREE or gone or self._age(number) > self._silence

    def _age(self, number: int) -> float:
        """Seconds since the owner's last sign of life, by the file server's clock; 0 if the file is gone."""
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".now.") as probe:
            now = os.fstat(probe.fileno()).st_mtime
        last = self._time(number)
        return 0.0 if last is None else now - last

    def _time(self, number: int) -> float | None:
        """When the owner last gave a sign of life, by the file server's clock; None if the file is gone."""
        try:
            with self._path(number).open("rb") as file:  # opening it makes NFS ask the server
                return os.fstat(file.fileno()).st_mtime
        except OSError:
            return None

    def _beat(self, ended: threading.Event) -> None:
        own = self._own
        assert own is not None
        while not ended.wait(self._silence / _BEATS):
            started = _now()
            if self._taken_over(own):
                self._lost = True
                return
            with suppress(OSError):  # tried again at the next beat; `verify` knows how old the last one is
                os.utime(own)
                self._last_beat = started

    def _taken_over(self, own: Path) -> bool:
        number = int(own.name.rpartition(".")[2])
        if self._path(number + 1).exists():
            return True
        found = self._read(number)
        return found is not None and found[0] != self._mine


def lock_of(folder: Path) -> Lock:
    """The lock of a run's folder, of the kind that its output folder has agreed on; flock if none has."""
    for parent in (folder.absolute(), *folder.absolute().parents):
        if (kind := agreed(parent)) is not None:
            name, silence = kind
            return Flock(folder) if name == "flock" else LockFile(folder, silence)
    return LockFile(folder) if fcntl is None else Flock(folder)


def agreed(folder: Path) -> tuple[str, float] | None:
    """Kind and silence in the agreement of a folder; None if it has none.

    Raises:
        ConfigError: the file holds neither kind.
    """
    deadline = time.monotonic() + 5.0
    while True:
        try:
            text = (folder / AGREEMENT).read_text()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None
        words = text.split()
        if words == ["flock"]:
            return "flock", SILENCE
        if len(words) == 2 and words[0] == "files":
            with suppress(ValueError):
                return "files", float(words[1])
        if text or time.monotonic() > deadline:  # empty only for the instant in which another process writes it
            raise ConfigError(f"{folder / AGREEMENT} must hold 'flock' or 'files SECONDS', not '{text}'.")
        time.sleep(0.05)


def try_flock(file: int, how: int) -> bool:
    """Take a lock of the kernel on an open file, exclusive or shared; returns False if another process has it."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _owner(content: bytes) -> Owner | None:
    try:
        return Owner(**json.loads(content))
    except (ValueError, TypeError):
        return None


def _now() -> float:
    """A clock that also runs while the machine sleeps [s]."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()


def _machine() -> str:
    """The machine's boot and the namespace of its process numbers; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _slurm_job() -> str:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")
