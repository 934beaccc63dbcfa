"""A file server on this machine that misbehaves as it is told, and a corpus of two files that it holds."""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sparse_bench.data.corpora import Corpus, CorpusFile
from sparse_bench.data.download import Retry

QUICK = Retry(attempts=4, wait=0.0)
WORDS = bytes(range(256)) * 1500  # 384,000 bytes: several pieces of a transfer
TAGS = b"DT NN VB\n"


@dataclass
class Server:
    """What the server holds and how it misbehaves; ``asked`` is what it was asked: (path, Range)."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    #: Answers to give before the real one: a status, "cut" (half of it, then the connection is dropped), "shifted" (as
    #: a range that begins a byte later), "part" (as one that ends in the middle) or "drip" (a byte at a time, for five
    #: seconds).
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
            end = len(content)
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and state.ranges else 0
            if start and start >= len(content):
                return self.send_error(416)
            if fault == "shifted":
                start += 1
            elif fault == "part":
                end = (start + end) // 2
            ranged = start or fault == "part"
            self.send_response(206 if ranged else 200)
            if ranged:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
            if state.declare_length:
                self.send_header("Content-Length", str(end - start))
            if state.content_encoding:
                self.send_header("Content-Encoding", state.content_encoding)
            self.end_headers()
            rest = content[start:end]
            if fault == "drip":
                for byte in rest[:500]:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(0.01)
                rest = rest[500:]
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
