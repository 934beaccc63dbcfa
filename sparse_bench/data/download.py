"""Download corpora into a cache, and verify every file by its checksum.

A file is written to ``<name>.part`` and renamed only when its SHA-256 is correct. So a file with its final name is
complete. An interrupted download continues from its ``.part``. Only one process at a time downloads a corpus.
"""

import gzip
import hashlib
import logging
import os
import re
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import quote

import requests
import urllib3
from filelock import FileLock
from tqdm import tqdm

from sparse_bench.cache import corpora_folder
from sparse_bench.data.corpora import Corpus, CorpusFile, find_corpus
from sparse_bench.errors import DataError

logger = logging.getLogger(__name__)

#: Environment variable for a mirror, a folder or an address that is used instead of the upstream hosts.
MIRROR_VARIABLE = "SPARSE_BENCH_MIRROR"

_TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}
_TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces of a response
_PIECE = 1 << 16
_ABSENT = "absent"
_RANGE = re.compile(r"bytes (?P<start>\d+)-\d+/(?P<whole>\d+|\*)")


@dataclass(frozen=True)
class Retry:
    """When and how often a request is repeated after a temporary failure."""

    attempts: int = 4
    #: Seconds before the second attempt; they double before every further one.
    wait: float = 1.0
    #: An attempt may take ``patience`` seconds, and one more second for every ``slowest`` bytes received.
    patience: float = 120.0
    slowest: int = 4096


class _TransientError(Exception):
    """A request failed but may succeed when repeated."""


class _NotFoundError(Exception):
    """The host answered that it does not have the file."""


class _UnreachableError(Exception):
    """Every attempt failed."""


def corpus_files(name: str, mirror: str | None = None) -> dict[str, Path]:
    """The files of a corpus on this machine, downloaded first if absent.

    Args:
        name: the corpus.
        mirror: folder or ``http(s)://`` address with the layout ``<corpus>/<file>`` or ``<corpus>/<file>.gz``, used
            instead of the upstream hosts; by default ``$SPARSE_BENCH_MIRROR``, if set.

    Returns:
        Name of the file inside the corpus → its path. The checksum of each file has been verified.

    Raises:
        DataError: the corpus is unknown, is not available, or does not match its checksums. If it is not available, the
            message names the command that downloads it.
    """
    return fetch(find_corpus(name), corpora_folder(), chosen_mirror(mirror))


def checksums(name: str) -> dict[str, str]:
    """SHA-256 of every file of a corpus, by the file's name inside the corpus."""
    return {file.name: file.sha256 for file in find_corpus(name).files}


def chosen_mirror(given: str | None) -> str | None:
    """The mirror to use: ``given``, else the one in the environment, else None."""
    return given or os.environ.get(MIRROR_VARIABLE) or None


def present(corpus: Corpus, cache: Path) -> list[CorpusFile]:
    """The files of ``corpus`` that exist in ``cache`` with the right size."""
    return [file for file in corpus.files if _size(file.path(cache)) == file.size]


def problems(corpus: Corpus, cache: Path) -> dict[str, str]:
    """Verify all cached files of ``corpus`` by their checksums. Returns the problems by file name."""
    found = {}
    for file in corpus.files:
        path = file.path(cache)
        if not path.is_file():
            found[file.name] = _ABSENT
        elif wrong := _mismatch(file, path):
            found[file.name] = wrong
    return found


def fetch(corpus: Corpus, cache: Path, mirror: str | None = None, *, retry: Retry | None = None) -> dict[str, Path]:
    """Download all files of ``corpus`` that are absent from ``cache`` or do not match their checksums.

    Args:
        corpus: the corpus.
        cache: the folder, which is created if it does not exist.
        mirror: folder or address that is used instead of the upstream hosts.
        retry: when to repeat a request after a temporary failure.

    Returns:
        Name of the file inside the corpus → its path.

    Raises:
        DataError: a file is not available, or does not match its checksum.
    """
    if problems(corpus, cache):
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f".{corpus.name}.lock"):
            # Another process may have downloaded them while this one waited for the lock.
            if wrong := problems(corpus, cache):
                _fetch_all(corpus, wrong, cache, mirror, retry or Retry())
    return {file.name: file.path(cache) for file in corpus.files}


def _fetch_all(corpus: Corpus, wrong: Mapping[str, str], cache: Path, mirror: str | None, retry: Retry) -> None:
    files = [file for file in corpus.files if file.name in wrong]
    for name, problem in wrong.items():
        if problem != _ABSENT:
            logger.warning("Corpus '%s', '%s' in %s: %s. It is downloaded again.", corpus.name, name, cache, problem)
    total = sum(file.size for file in files)
    # disable=None: no progress bar unless standard error is a terminal.
    with (
        requests.Session() as session,
        tqdm(total=total, desc=corpus.name, unit="B", unit_scale=True, disable=None) as bar,
    ):
        done = 0
        for file in files:

            def progress(size: int, done: int = done) -> None:
                bar.update(done + size - bar.n)

            source = _Source(session, mirror, retry, progress)
            path = file.path(cache)
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(path.name + ".part")
            try:
                source.fetch(file, part)
            except _UnreachableError as error:
                command = f"python -m sparse_bench.data download {corpus.name}"
                raise DataError(
                    f"Corpus '{corpus.name}' in {cache}, '{file.name}': {wrong[file.name]}. "
                    f"It cannot be downloaded: {error}\n"
                    f"To get it with network access: {command}\n"
                    f"From a copy (a folder or an address with {corpus.name}/{file.name}): {command} --mirror PLACE"
                ) from error
            if fault := _mismatch(file, part):
                part.unlink()
                raise DataError(f"Corpus '{corpus.name}', '{file.name}' from {source.place(file)}: {fault}.")
            part.replace(path)
            done += file.size
            progress(0, done)


@dataclass(frozen=True)
class _Source:
    """The source of files: their upstream hosts, a mirror at an address, or a mirror folder."""

    session: requests.Session
    mirror: str | None
    retry: Retry
    #: Called with the number of bytes of the file received so far.
    progress: Callable[[int], None]

    def place(self, file: CorpusFile) -> str:
        """The place of ``file`` at the source, for messages."""
        return file.url if self.mirror is None else f"{self.mirror.rstrip('/')}/{file.corpus}/{file.name}"

    def fetch(self, file: CorpusFile, part: Path) -> None:
        """Write the source's version of ``file`` to ``part``, without verifying it.

        Raises:
            _UnreachableError: every attempt to reach the host failed.
            DataError: the source does not have the file.
        """
        if self.mirror is not None and not self.mirror.startswith(("http://", "https://")):
            self._copy(file, Path(self.mirror).expanduser(), part)
        elif self.mirror is None:
            try:
                self._download(file.url, part, file.size, file.size)
            except _NotFoundError as error:
                raise DataError(f"Corpus '{file.corpus}': there is no {file.url} (404).") from error
        else:
            self._download_mirrored(file, f"{self.mirror.rstrip('/')}/{file.corpus}/{quote(file.name)}", part)

    def _copy(self, file: CorpusFile, mirror: Path, part: Path) -> None:
        if not mirror.is_dir():
            raise DataError(f"The mirror {mirror} is not a folder.")
        plain = file.path(mirror)
        packed = plain.with_name(plain.name + ".gz")
        if plain.is_file():
            with plain.open("rb") as source:
                _copy(source, part, file.size)
        elif packed.is_file():
            _gunzip(packed, part, file.size)
        else:
            raise DataError(f"The mirror {mirror} has neither {plain.relative_to(mirror)} nor that with '.gz' added.")

    def _download_mirrored(self, file: CorpusFile, url: str, part: Path) -> None:
        try:
            self._download(url, part, file.size, file.size)
        except _NotFoundError:
            packed = part.with_name(part.name.removesuffix(".part") + ".gz.part")
            most = file.size + file.size // 1000 + _PIECE  # incompressible data grow by a few bytes in 10,000
            try:
                self._download(url + ".gz", packed, None, most)
            except _NotFoundError as error:
                raise DataError(f"The mirror has neither {url} nor {url}.gz (404).") from error
            try:
                if packed.stat().st_size > most:
                    raise DataError(f"{url}.gz has more than {most} bytes, too many for a file of {file.size} bytes.")
                _gunzip(packed, part, file.size)
            finally:
                packed.unlink()

    def _download(self, url: str, part: Path, size: int | None, most: int) -> None:
        """Download ``url`` to ``part``, continuing from the bytes that ``part`` already holds.

        Args:
            url: address of the file.
            part: file to write to.
            size: number of bytes of the file, if known.
            most: upper limit of its bytes. Beyond it the file must be wrong, and reading stops.
        """
        last = ""
        for attempt in range(self.retry.attempts):
            if attempt:
                time.sleep(self.retry.wait * 2 ** (attempt - 1))
            try:
                return self._request(url, part, size, most)
            except _TransientError as error:
                last = str(error)
        raise _UnreachableError(f"{url} failed {self.retry.attempts} times, the last time with: {last}")

    def _request(self, url: str, part: Path, size: int | None, most: int) -> None:
        start = _size(part) or 0
        if start and start == size:
            self.progress(start)
            return  # complete but not yet verified: an earlier process ended in between
        if start > most:
            part.unlink()
            start = 0
        # Identity: if the server compressed the transfer, ranges and sizes would not refer to the file.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        try:
            with self.session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
                self._check(response, part)
                given = _RANGE.match(response.headers.get("Content-Range", ""))
                ranged = response.status_code == 206
                if ranged and (given is None or int(given["start"]) != start):
                    part.unlink(missing_ok=True)
                    raise _TransientError("the response has another range than requested")
                self._receive(response, part, start if ranged else 0, most)
        except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
            raise _TransientError(f"{type(error).__name__}: {error}") from error
        except requests.RequestException as error:
            raise DataError(f"{url} cannot be downloaded: {type(error).__name__}: {error}") from error
        # With a declared length or in chunks, urllib3 has detected a truncated response. Otherwise only the size shows
        # it. In addition, a range may end before the file does.
        declared = "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
        wanted = size if not declared else None
        if ranged and given is not None and given["whole"] != "*":
            wanted = min(int(given["whole"]), most)
        if wanted is not None and (_size(part) or 0) < wanted:
            raise _TransientError("the response ended early")

    def _check(self, response: requests.Response, part: Path) -> None:
        status = response.status_code
        if status == 404:
            raise _NotFoundError
        if status == 416:
            part.unlink(missing_ok=True)
            raise _TransientError("the part downloaded earlier does not fit the file on the server (416)")
        if status in _TRANSIENT_STATUS:
            raise _TransientError(f"{status} {response.reason}")
        if status not in (200, 206):
            raise DataError(f"{response.url} answered {status} {response.reason}.")

    def _receive(self, response: requests.Response, part: Path, start: int, most: int) -> None:
        began, first = time.monotonic(), start
        with part.open("ab" if start else "wb") as out:
            self.progress(start)
            # Some servers declare a .gz file as a compressed transfer. Reading raw bytes keeps the file unchanged.
            # read1 returns the bytes received so far, so that the time limit is checked even on a slow connection.
            while start <= most and (piece := response.raw.read1(_PIECE, decode_content=False)):
                out.write(piece)
                start += len(piece)
                self.progress(start)
                if time.monotonic() - began > self.retry.patience + (start - first) / self.retry.slowest:
                    raise _TransientError(f"only {start - first} bytes in {time.monotonic() - began:.0f} seconds")


def _copy(source: BinaryIO, target: Path, size: int) -> None:
    """Copy at most ``size`` + 1 bytes. One extra byte is enough to detect that it is another file."""
    with target.open("wb") as out:
        left = size + 1
        while left > 0 and (piece := source.read(min(left, _PIECE))):
            out.write(piece)
            left -= len(piece)


def _gunzip(packed: Path, target: Path, size: int) -> None:
    try:
        with gzip.open(packed, "rb") as source:
            _copy(cast(BinaryIO, source), target, size)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        target.unlink(missing_ok=True)
        raise DataError(f"{packed.name} is not a complete gzip file: {error}") from error


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _mismatch(file: CorpusFile, path: Path) -> str | None:
    """Describe how the content of ``path`` differs from that of ``file``; None if it does not."""
    with path.open("rb") as handle:
        actual = hashlib.file_digest(handle, "sha256").hexdigest()
    if actual == file.sha256:
        return None
    return f"expected SHA-256 {file.sha256} ({file.size} bytes), got {actual} ({path.stat().st_size} bytes)"
