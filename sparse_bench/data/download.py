"""Fetches corpora into a cache and vouches for every file by its checksum.

A file is written to ``<name>.part`` and takes its name only once its SHA-256 is right, so that a file that has its name
is whole; an interrupted download goes on from its ``.part``. One process at a time fetches a corpus.
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

#: Environment variable: a folder or an address to take corpora from, instead of their upstream hosts.
MIRROR_VARIABLE = "SPARSE_BENCH_MIRROR"

_TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}
_TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces of an answer
_PIECE = 1 << 16
_ABSENT = "absent"
_RANGE = re.compile(r"bytes (?P<start>\d+)-\d+/(?P<whole>\d+|\*)")


@dataclass(frozen=True)
class Retry:
    """How often, and after how many seconds, a request that failed for a passing reason is made again."""

    attempts: int = 4
    #: Before the second attempt; doubles before every further one.
    wait: float = 1.0
    #: Seconds that an attempt may take in all, and bytes that each further second has to bring.
    patience: float = 120.0
    slowest: int = 4096


class _TransientError(Exception):
    """A request that may well succeed when made again."""


class _NotFoundError(Exception):
    """The host is there and says that it has no such file."""


class _UnreachableError(Exception):
    """Every attempt failed."""


def corpus_files(name: str, mirror: str | None = None) -> dict[str, Path]:
    """The files of a corpus on this machine, fetched first where they are absent.

    Args:
        name: the corpus.
        mirror: folder or ``http(s)://`` address with the layout ``<corpus>/<file>`` or ``<corpus>/<file>.gz``, asked
            instead of the upstream hosts; by default that of ``$SPARSE_BENCH_MIRROR``, if set.

    Returns:
        Name of the file inside the corpus → where it lies. Each has the right checksum now: a run records it.

    Raises:
        DataError: the corpus is unknown, cannot be had (says which command gets it), or is not what its checksums say.
    """
    return fetch(find_corpus(name), corpora_folder(), chosen_mirror(mirror))


def checksums(name: str) -> dict[str, str]:
    """SHA-256 of every file of a corpus, by the file's name inside the corpus."""
    return {file.name: file.sha256 for file in find_corpus(name).files}


def chosen_mirror(given: str | None) -> str | None:
    """The mirror to ask: the given one, else that of the environment, else none."""
    return given or os.environ.get(MIRROR_VARIABLE) or None


def present(corpus: Corpus, cache: Path) -> list[CorpusFile]:
    """The files of ``corpus`` that lie in ``cache`` with the right size."""
    return [file for file in corpus.files if _size(file.path(cache)) == file.size]


def problems(corpus: Corpus, cache: Path) -> dict[str, str]:
    """What is wrong with the cached files of ``corpus``, by file name, computing every checksum; empty when sound."""
    found = {}
    for file in corpus.files:
        path = file.path(cache)
        if not path.is_file():
            found[file.name] = _ABSENT
        elif wrong := _mismatch(file, path):
            found[file.name] = wrong
    return found


def fetch(corpus: Corpus, cache: Path, mirror: str | None = None, *, retry: Retry | None = None) -> dict[str, Path]:
    """Makes ``cache`` hold ``corpus``, fetching anew what is not as its checksum says; see :func:`corpus_files`.

    Args:
        corpus: what to fetch.
        cache: folder; made if need be.
        mirror: folder or address that is asked instead of the upstream hosts.
        retry: what to do about errors that may pass.
    """
    if problems(corpus, cache):
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f".{corpus.name}.lock"):
            # Another process may have fetched them while this one waited for the lock.
            if wrong := problems(corpus, cache):
                _fetch_all(corpus, wrong, cache, mirror, retry or Retry())
    return {file.name: file.path(cache) for file in corpus.files}


def _fetch_all(corpus: Corpus, wrong: Mapping[str, str], cache: Path, mirror: str | None, retry: Retry) -> None:
    files = [file for file in corpus.files if file.name in wrong]
    for name, problem in wrong.items():
        if problem != _ABSENT:
            logger.warning("Corpus '%s', '%s' in %s: %s. It is fetched anew.", corpus.name, name, cache, problem)
    total = sum(file.size for file in files)
    # disable=None: silent where standard error is not a terminal.
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
                    f"It cannot be fetched: {error}\n"
                    f"With a network, this gets it: {command}\n"
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
    """Where files come from: their upstream hosts, a mirror at an address, or a mirror folder."""

    session: requests.Session
    mirror: str | None
    retry: Retry
    #: Called with the bytes of the file that are there.
    progress: Callable[[int], None]

    def place(self, file: CorpusFile) -> str:
        """Where ``file`` is looked for, for people."""
        return file.url if self.mirror is None else f"{self.mirror.rstrip('/')}/{file.corpus}/{file.name}"

    def fetch(self, file: CorpusFile, part: Path) -> None:
        """Writes what the source holds as ``file`` to ``part``, unverified.

        Raises:
            _UnreachableError: the host does not answer.
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
            most = file.size + file.size // 1000 + _PIECE  # what cannot be packed grows by a few bytes in 10,000
            try:
                self._download(url + ".gz", packed, None, most)
            except _NotFoundError as error:
                raise DataError(f"The mirror has neither {url} nor {url}.gz (404).") from error
            try:
                if packed.stat().st_size > most:
                    raise DataError(f"{url}.gz has more than {most} bytes, too many for {file.size} that are packed.")
                _gunzip(packed, part, file.size)
            finally:
                packed.unlink()

    def _download(self, url: str, part: Path, size: int | None, most: int) -> None:
        """Downloads ``url`` to ``part``, going on from what is there.

        Args:
            url: what to ask for.
            part: where it goes.
            size: its bytes, where known.
            most: bytes beyond which it cannot be what is wanted, and is not read on.
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
            return  # whole but not yet verified: the process ended between the two
        if start > most:
            part.unlink()
            start = 0
        # Identity: a server that packs what it sends would make ranges and sizes mean something else.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        try:
            with self.session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
                self._check(response, part)
                given = _RANGE.match(response.headers.get("Content-Range", ""))
                ranged = response.status_code == 206
                if ranged and (given is None or int(given["start"]) != start):
                    part.unlink(missing_ok=True)
                    raise _TransientError("an answer with another range than was asked for")
                self._receive(response, part, start if ranged else 0, most)
        except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
            raise _TransientError(f"{type(error).__name__}: {error}") from error
        except requests.RequestException as error:
            raise DataError(f"{url} cannot be fetched: {type(error).__name__}: {error}") from error
        # With a declared length, or in chunks, urllib3 has told a cut from an end; without, only the size can. And a
        # range may end before the file does.
        declared = "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
        wanted = size if not declared else None
        if ranged and given is not None and given["whole"] != "*":
            wanted = min(int(given["whole"]), most)
        if wanted is not None and (_size(part) or 0) < wanted:
            raise _TransientError("the answer ended early")

    def _check(self, response: requests.Response, part: Path) -> None:
        status = response.status_code
        if status == 404:
            raise _NotFoundError
        if status == 416:
            part.unlink(missing_ok=True)
            raise _TransientError("what was fetched before does not fit the file there (416)")
        if status in _TRANSIENT_STATUS:
            raise _TransientError(f"{status} {response.reason}")
        if status not in (200, 206):
            raise DataError(f"{response.url} answered {status} {response.reason}.")

    def _receive(self, response: requests.Response, part: Path, start: int, most: int) -> None:
        began, first = time.monotonic(), start
        with part.open("ab" if start else "wb") as out:
            self.progress(start)
            # Raw: some servers declare a file that is itself a .gz as a packed transfer; it must stay as it is.
            # read1 gives what has come, so that time is looked at however slowly it does.
            while start <= most and (piece := response.raw.read1(_PIECE, decode_content=False)):
                out.write(piece)
                start += len(piece)
                self.progress(start)
                if time.monotonic() - began > self.retry.patience + (start - first) / self.retry.slowest:
                    raise _TransientError(f"only {start - first} bytes in {time.monotonic() - began:.0f} seconds")


def _copy(source: BinaryIO, target: Path, size: int) -> None:
    """Copies no more than a byte beyond ``size``: whatever comes then, it is another file."""
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
        raise DataError(f"{packed.name} is not a whole gzip file: {error}") from error


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _mismatch(file: CorpusFile, path: Path) -> str | None:
    """What tells the content of ``path`` from that of ``file``, or None."""
    with path.open("rb") as handle:
        actual = hashlib.file_digest(handle, "sha256").hexdigest()
    if actual == file.sha256:
        return None
    return f"expected SHA-256 {file.sha256} ({file.size} bytes), got {actual} ({path.stat().st_size} bytes)"
