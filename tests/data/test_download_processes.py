"""Downloads that are killed, and two at once."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from sparse_bench.data.download import fetch, present
from tests.data.file_server import QUICK, WORDS, Server, whole

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
