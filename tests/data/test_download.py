"""Downloads against a real server on this machine, and against mirror folders."""

import gzip
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket

import pytest

from sparse_bench.data import download
from sparse_bench.data.corpora import Corpus, CorpusFile, corpora
from sparse_bench.data.download import Retry, checksums, corpus_files, fetch, present, problems
from sparse_bench.errors import DataError

QUICK = Retry(attempts=4, wait=0.0)
WORDS = bytes(range(256)) * 1500  # 384,000 bytes: several pieces of a transfer
TAGS = b"DT NN VB\n"


@dataclass
class Server:
    """What the server holds and how it misbehaves; ``asked`` is what it was asked: (path, Range)."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    #: Answers to give before the real one: a status, or "cut" (half of it, then the connection is dropped).
    faults: list[int | str] = field(default_factory=list)
    declare_length: bool = True
    content_encoding: str | None = None
    #: When set, a whole answer stops in its middle until this is set.
    gate: threading.Event | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""

    def corpus(self, **changed: bytes) -> Corpus:
        """A corpus of two files that this server is the upstream host of."""
        contents = {"words.bin": WORDS, "sub/tags.txt": TAGS}
        self.files |= {f"/up/{name}": changed.get(name.split(".")[0], content) for name, content in contents.items()}
        return toy_corpus(f"{self.address}/up")


def toy_corpus(upstream: str) -> Corpus:
    contents = {"words.bin": WORDS, "sub/tags.txt": TAGS}
    return Corpus(
        "toy",
        "A toy corpus",
        "Free.",
        tuple(
            CorpusFile("toy", name, hashlib.sha256(content).hexdigest(), len(content), f"{upstream}/{name}", "free")
            for name, content in contents.items()
        ),
    )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            state.asked.append((self.path, asked))
            fault = state.faults.pop(0) if state.faults else None
            if isinstance(fault, int):
                return self.send_error(fault)
            if self.path not in state.files:
                return self.send_error(404)
            content = state.files[self.path]
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and state.ranges else 0
            if start and start >= len(content):
                return self.send_error(416)
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if state.declare_length:
                self.send_header("Content-Length", str(len(content) - start))
            if state.content_encoding:
                self.send_header("Content-Encoding", state.content_encoding)
            self.end_headers()
            rest = content[start:]
            half = len(rest) // 2
            self.wfile.write(rest[:half])
            self.wfile.flush()
            if fault == "cut":
                return None
            if state.gate is not None:
                state.gate.wait(20)
            return self.wfile.write(rest[half:])

        def log_message(self, *_):
            pass

        def handle(self):
            with suppress(BrokenPipeError, ConnectionResetError):  # the client goes away in some tests
                super().handle()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.address = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        if state.gate is not None:
            state.gate.set()
        http.shutdown()
        thread.join()


def whole(cache: Path) -> bool:
    """Exactly the two files are there, right, and nothing half-done beside them (the lock is hidden)."""
    names = {str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file()}
    return (
        names - {".toy.lock"} == {"toy/words.bin", "toy/sub/tags.txt"}
        and (cache / "toy/words.bin").read_bytes() == WORDS
        and (cache / "toy/sub/tags.txt").read_bytes() == TAGS
    )


def half_done(cache: Path, content: bytes = WORDS[:1000]) -> None:
    part = cache / "toy" / "words.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content)


def test_fetches_once(server, tmp_path):
    corpus = server.corpus()
    found = fetch(corpus, tmp_path, retry=QUICK)
    assert found == {"words.bin": tmp_path / "toy/words.bin", "sub/tags.txt": tmp_path / "toy/sub/tags.txt"}
    assert whole(tmp_path)
    assert server.asked == [("/up/words.bin", None), ("/up/sub/tags.txt", None)]
    fetch(corpus, tmp_path, retry=QUICK)
    assert len(server.asked) == 2


def test_fetches_only_what_is_absent_or_has_another_size(server, tmp_path):
    corpus = server.corpus()
    fetch(corpus, tmp_path, retry=QUICK)
    (tmp_path / "toy/sub/tags.txt").write_bytes(TAGS[:-1])
    fetch(corpus, tmp_path, retry=QUICK)
    assert whole(tmp_path)
    assert server.asked[2:] == [("/up/sub/tags.txt", None)]


def test_a_wrong_byte_is_found_by_checksum_and_fetched_anew(server, tmp_path):
    corpus = server.corpus()
    fetch(corpus, tmp_path, retry=QUICK)
    assert problems(corpus, tmp_path) == {}
    (tmp_path / "toy/sub/tags.txt").write_bytes(b"X" + TAGS[1:])
    assert list(problems(corpus, tmp_path)) == ["sub/tags.txt"]
    assert corpus.files[1].sha256 in problems(corpus, tmp_path)["sub/tags.txt"]
    fetch(corpus, tmp_path, retry=QUICK, thorough=True)
    assert whole(tmp_path)
    assert problems(corpus, tmp_path) == {}


def test_problems_name_absent_files(tmp_path):
    assert problems(toy_corpus("http://localhost"), tmp_path) == {"words.bin": "absent", "sub/tags.txt": "absent"}


def test_goes_on_from_a_part(server, tmp_path):
    half_done(tmp_path)
    fetch(server.corpus(), tmp_path, retry=QUICK)
    assert whole(tmp_path)
    assert server.asked[0] == ("/up/words.bin", "bytes=1000-")


def test_starts_again_where_the_server_knows_no_ranges(server, tmp_path):
    half_done(tmp_path, b"from elsewhere")
    server.ranges = False
    fetch(server.corpus(), tmp_path, retry=QUICK)
    assert whole(tmp_path)
    assert server.asked[0] == ("/up/words.bin", "bytes=14-")


def test_a_whole_part_is_not_asked_for_again(server, tmp_path):
    half_done(tmp_path, WORDS)
    fetch(server.corpus(), tmp_path, retry=QUICK)
    assert whole(tmp_path)
    assert [path for path, _ in server.asked] == ["/up/sub/tags.txt"]


def test_a_part_longer_than_the_file_is_dropped(server, tmp_path):
    half_done(tmp_path, WORDS + b"!")
    fetch(server.corpus(), tmp_path, retry=QUICK)
    assert whole(tmp_path)
    assert server.asked[0] == ("/up/words.bin", None)


@pytest.mark.parametrize("declare_length", [True, False])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_is_taken_up_again(server, tmp_path, declare_length, ranges):
    server.declare_length, server.ranges = declare_length, ranges
    server.faults = ["cut", "cut"]
    fetch(server.corpus(), tmp_path, retry=QUICK)
    assert whole(tmp_path)
    half = len(WORDS) // 2
    later = half + half // 2 if ranges else half
    assert server.asked[:3] == [
        ("/up/words.bin", None),
        ("/up/words.bin", f"bytes={half}-"),
        ("/up/words.bin", f"bytes={later}-"),
    ]


def test_what_was_received_is_kept_when_every_attempt_is_cut(server, tmp_path):
    server.faults = ["cut"] * 4
    corpus = server.corpus()
    with pytest.raises(DataError, match="failed 4 times"):
        fetch(corpus, tmp_path, retry=QUICK)
    part = tmp_path / "toy/words.bin.part"
    assert part.read_bytes() == WORDS[: part.stat().st_size]
    assert part.stat().st_size == len(WORDS) * 15 // 16
    assert not (tmp_path / "toy/words.bin").exists()
    fetch(corpus, tmp_path, retry=QUICK)
    assert whole(tmp_path)


@pytest.mark.parametrize("part", [None, b"wrong beginning"])
@pytest.mark.parametrize("changed", [WORDS[:-1] + b"X", WORDS[:-1], WORDS + b"X", WORDS * 20])
def test_refuses_a_wrong_checksum(server, tmp_path, changed, part):
    if part is not None:
        half_done(tmp_path, part)
    corpus = server.corpus(words=changed)
    with pytest.raises(DataError, match="expected SHA-256") as caught:
        fetch(corpus, tmp_path, retry=QUICK)
    expected = corpus.files[0].sha256
    actual = re.search(r"got ([0-9a-f]{64})", str(caught.value))
    assert f"expected SHA-256 {expected}" in str(caught.value)
    assert actual
    assert actual[1] != expected
    assert f"{server.address}/up/words.bin" in str(caught.value)
    assert not list((tmp_path / "toy").iterdir())
    assert len(server.asked) == 1  # asking again would give the same


def test_an_answer_that_is_too_long_is_not_read_to_its_end(server, tmp_path):
    with pytest.raises(DataError, match="expected SHA-256") as caught:
        fetch(server.corpus(words=WORDS * 20), tmp_path, retry=QUICK)
    received = re.search(r"got [0-9a-f]{64} \((\d+) bytes\)", str(caught.value))
    assert received
    assert len(WORDS) < int(received[1]) <= len(WORDS) + 2**16


def test_404_is_not_asked_again(server, tmp_path):
    corpus = server.corpus()
    del server.files["/up/words.bin"]
    with pytest.raises(DataError, match=r"no http://.*/up/words\.bin \(404\)"):
        fetch(corpus, tmp_path, retry=QUICK)
    assert len(server.asked) == 1


def test_403_is_not_asked_again(server, tmp_path):
    server.faults = [403]
    with pytest.raises(DataError, match="answered 403"):
        fetch(server.corpus(), tmp_path, retry=QUICK)
    assert len(server.asked) == 1


def test_passing_errors_are_asked_again_after_growing_waits(server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    server.faults = [503, 429, 500]
    fetch(server.corpus(), tmp_path)
    assert whole(tmp_path)
    assert waits == [1.0, 2.0, 4.0]


def test_lasting_errors_name_the_command(server, tmp_path):
    server.faults = [503] * 4
    with pytest.raises(DataError, match="failed 4 times, the last time with: 503") as caught:
        fetch(server.corpus(), tmp_path, retry=QUICK)
    assert len(server.asked) == 4
    assert "python -m sparse_bench.data download toy\n" in str(caught.value)


def test_no_network_names_the_command(tmp_path):
    with closing(socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DataError) as caught:
        fetch(toy_corpus(f"http://127.0.0.1:{port}"), tmp_path, retry=QUICK)
    message = str(caught.value)
    assert f"Corpus 'toy' is not in {tmp_path} and cannot be fetched: http://127.0.0.1:{port}/words.bin" in message
    assert "python -m sparse_bench.data download toy --mirror PLACE" in message


def test_a_range_that_does_not_exist_starts_again(server, tmp_path):
    half_done(tmp_path)
    server.faults = [416]
    fetch(server.corpus(), tmp_path, retry=QUICK)
    assert whole(tmp_path)
    assert [asked for _, asked in server.asked[:2]] == ["bytes=1000-", None]


def test_an_address_that_is_none_is_an_error_at_once(tmp_path):
    with pytest.raises(DataError, match="cannot be fetched: InvalidURL"):
        fetch(toy_corpus("http://"), tmp_path, retry=QUICK)


def fill_mirror(folder: Path, packed: bool) -> Path:
    for name, content in {"words.bin": WORDS, "sub/tags.txt": TAGS}.items():
        path = folder / "toy" / (name + ".gz" if packed else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_mirror_folder(tmp_path, packed):
    mirror = fill_mirror(tmp_path / "mirror", packed)
    half_done(tmp_path / "cache", b"from elsewhere")
    fetch(toy_corpus("http://nowhere.invalid"), tmp_path / "cache", str(mirror), retry=QUICK)
    assert whole(tmp_path / "cache")


def test_mirror_folder_with_wrong_content(tmp_path):
    mirror = fill_mirror(tmp_path / "mirror", packed=True)
    (mirror / "toy/words.bin.gz").write_bytes(gzip.compress(WORDS[1:]))
    with pytest.raises(DataError, match="expected SHA-256") as caught:
        fetch(toy_corpus("http://nowhere.invalid"), tmp_path / "cache", str(mirror))
    assert f"from {mirror}/toy/words.bin:" in str(caught.value)
    assert not list((tmp_path / "cache/toy").iterdir())


def test_mirror_folder_with_half_a_gzip_file(tmp_path):
    mirror = fill_mirror(tmp_path / "mirror", packed=True)
    (mirror / "toy/words.bin.gz").write_bytes(gzip.compress(WORDS)[:-100])
    with pytest.raises(DataError, match="not a whole gzip file"):
        fetch(toy_corpus("http://nowhere.invalid"), tmp_path / "cache", str(mirror))
    assert not list((tmp_path / "cache/toy").iterdir())


def test_mirror_that_lacks_the_file_or_is_no_folder(tmp_path):
    corpus = toy_corpus("http://nowhere.invalid")
    with pytest.raises(DataError, match=r"neither toy/words\.bin nor that with '\.gz' added"):
        fetch(corpus, tmp_path / "cache", str(tmp_path))
    with pytest.raises(DataError, match="absent is not a folder"):
        fetch(corpus, tmp_path / "cache", str(tmp_path / "absent"))


@pytest.mark.parametrize("slash", ["", "/"])
def test_mirror_address(server, tmp_path, slash):
    server.files = {"/mirror/toy/words.bin": WORDS, "/mirror/toy/sub/tags.txt.gz": gzip.compress(TAGS)}
    fetch(toy_corpus("http://nowhere.invalid"), tmp_path, f"{server.address}/mirror{slash}", retry=QUICK)
    assert whole(tmp_path)
    assert [path for path, _ in server.asked] == [
        "/mirror/toy/words.bin",
        "/mirror/toy/sub/tags.txt",
        "/mirror/toy/sub/tags.txt.gz",
    ]


def test_mirror_address_cut_within_a_packed_file(server, tmp_path):
    packed = gzip.compress(WORDS)
    server.files = {"/toy/words.bin.gz": packed, "/toy/sub/tags.txt": TAGS}
    server.faults = [404, "cut"]
    fetch(toy_corpus("http://nowhere.invalid"), tmp_path, server.address, retry=QUICK)
    assert whole(tmp_path)
    assert server.asked[2] == ("/toy/words.bin.gz", f"bytes={len(packed) // 2}-")


def test_mirror_address_with_a_broken_packed_file(server, tmp_path):
    server.files = {"/toy/words.bin.gz": gzip.compress(WORDS)[:-100]}
    with pytest.raises(DataError, match="not a whole gzip file"):
        fetch(toy_corpus("http://nowhere.invalid"), tmp_path, server.address, retry=QUICK)
    assert not list((tmp_path / "toy").iterdir())


def test_mirror_address_that_lacks_the_file(server, tmp_path):
    with pytest.raises(DataError, match=r"neither .*/toy/words\.bin nor .*/toy/words\.bin\.gz \(404\)"):
        fetch(toy_corpus("http://nowhere.invalid"), tmp_path, server.address, retry=QUICK)
    assert len(server.asked) == 2


def test_a_file_that_is_itself_gzip_stays_packed(server, tmp_path):
    packed = gzip.compress(TAGS)
    file = CorpusFile("toy", "a.gz", hashlib.sha256(packed).hexdigest(), len(packed), f"{server.address}/a.gz", "free")
    server.files = {"/a.gz": packed}
    server.content_encoding = "gzip"  # as some servers declare every .gz
    found = fetch(Corpus("toy", "", "", (file,)), tmp_path, retry=QUICK)
    assert found["a.gz"].read_bytes() == packed


PROCESS = """
import sys
from pathlib import Path
from sparse_bench.data.download import Retry, fetch
from tests.data.test_download import toy_corpus
print("ready", flush=True)
fetch(toy_corpus(sys.argv[1]), Path(sys.argv[2]), retry=Retry(4, 0.0))
"""


def start_process(server: Server, cache: Path) -> subprocess.Popen[bytes]:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", PROCESS, f"{server.address}/up", str(cache)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    process = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def wait_until(reached) -> None:
    end = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


def test_a_killed_process_leaves_no_half_file(server, tmp_path):
    corpus = server.corpus()
    server.gate = threading.Event()
    process = start_process(server, tmp_path)
    part = tmp_path / "toy/words.bin.part"
    wait_until(lambda: part.exists() and part.stat().st_size > 0)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert present(corpus, tmp_path) == []
    assert [path.name for path in (tmp_path / "toy").iterdir()] == ["words.bin.part"]
    received = part.stat().st_size
    assert 0 < received < len(WORDS)

    server.gate.set()
    fetch(corpus, tmp_path, retry=QUICK)
    assert whole(tmp_path)
    assert server.asked[1] == ("/up/words.bin", f"bytes={received}-")


def test_two_processes_at_once(server, tmp_path):
    server.corpus()
    server.gate = threading.Event()
    first = start_process(server, tmp_path)
    wait_until(lambda: server.asked)
    second = start_process(server, tmp_path)
    time.sleep(0.3)  # without a lock the second one would ask for the same file now, while the first waits
    assert len(server.asked) == 1
    server.gate.set()
    for process in (first, second):
        _, errors = process.communicate()
        assert (process.returncode, errors) == (0, b"")  # and no progress bar where there is no terminal
    assert whole(tmp_path)
    assert [path for path, _ in server.asked] == ["/up/words.bin", "/up/sub/tags.txt"]


def test_corpus_files_uses_cache_and_mirror_of_the_environment(shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSE_BENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPARSE_BENCH_MIRROR", str(shared_data))
    for name, corpus in corpora().items():
        found = corpus_files(name)
        assert found.keys() == checksums(name).keys()
        assert problems(corpus, tmp_path) == {}
        assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in found.values()} == set(
            checksums(name).values()
        )
    # From here on neither is asked.
    monkeypatch.setenv("SPARSE_BENCH_MIRROR", str(tmp_path / "absent"))
    assert corpus_files("ptb")["ptb.valid.txt"].read_text().split()[:4] == ["consumers", "may", "want", "to"]


def test_the_given_mirror_goes_before_that_of_the_environment(shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSE_BENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPARSE_BENCH_MIRROR", str(tmp_path / "absent"))
    assert corpus_files("ted", mirror=str(shared_data))["test/simulated_hotel_test.md"].is_file()


def test_default_cache(monkeypatch):
    monkeypatch.delenv("SPARSE_BENCH_DATA", raising=False)
    assert download.cache_folder() == Path.home() / ".cache" / "sparse_bench"
    monkeypatch.setenv("SPARSE_BENCH_DATA", "~/elsewhere")
    assert download.cache_folder() == Path.home() / "elsewhere"


def test_unknown_corpus():
    with pytest.raises(DataError, match=r"Unknown corpus 'pbt'\. Did you mean 'ptb'\? Valid choices: brouns, brown, "):
        corpus_files("pbt")
