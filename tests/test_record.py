"""Files of a run's folder."""

import contextlib
import errno
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparse_bench.errors import CheckpointError
from sparse_bench.evidence.folders import read_curves, read_result
from sparse_bench.evidence.single_runs import read_topology
from sparse_bench.record import Result, RunFolder, run_name, write_atomically


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "result.json"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_is_held_once_and_let_go_also_after_an_error(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with contextlib.suppress(KeyError), folder.lock() as held:
        with RunFolder(tmp_path / "run").lock() as again:
            assert (held, again) == (True, False)
        raise KeyError
    with folder.lock() as held:
        assert held


def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from sparse_bench.record import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).lock() as held: print(held, flush=True); time.sleep(300)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    folder = RunFolder(tmp_path)
    with folder.lock() as held:
        assert not held
    process.kill()
    process.communicate()
    with folder.lock() as held:
        assert held


@pytest.mark.parametrize(("density", "shown"), [(1, "1"), (1.0, "1"), (0.05, "0.05"), (None, "None")])
def test_density_in_the_name(density: float | None, shown: str) -> None:
    assert run_name({"model": "diet", "scheme": "set", "density": density}, 3) == f"diet/{shown}/3"


def test_no_flipped_bit_of_a_result_gives_another_number(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.append({"epoch": 1, "test/f1": 0.25})
    result = Result("1", "finished", "toy", 7, {}, {}, metrics={"test/f1": 0.25, "test/loss": math.inf}, epochs=12)
    folder.write_result(result)
    content = folder.result_path.read_bytes()
    refused = 0
    for place, bit in itertools.product(range(len(content)), (0, 1, 4)):
        folder.result_path.write_bytes(flipped(content, place, bit))
        for read in (folder.result, lambda: read_result(folder.result_path)):
            try:
                found = read()
            except (CheckpointError, ValueError):
                refused += 1
            else:
                assert (found.metrics, found.seed, found.epochs) == (result.metrics, 7, 12)
    assert refused > 4 * len(content)


def flipped(content: bytes, place: int, bit: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def test_flipped_bits_of_measurements_are_told_by_the_file_s_name(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.append({"epoch": 1, "test/f1": 0.25})
    folder.topology.append({"epoch": 1, "layers": {"a": {"active": 3}}})
    folder.write_result(Result("1", "finished", "toy", 0, {}, {}))
    assert read_curves(tmp_path) == {"test/f1": {1: 0.25}}
    assert read_topology(folder) is None  # it has not changed
    readers = {folder.metrics: lambda: read_curves(tmp_path), folder.topology: lambda: read_topology(folder)}
    for log, reader in readers.items():
        content = log.path.read_bytes()
        for place in range(len(content)):
            log.path.write_bytes(flipped(content, place, 0))
            with pytest.raises(ValueError, match=f"{log.path.name} was damaged or edited"):
                reader()


def test_results_of_earlier_versions_are_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.append({"epoch": 1, "test/f1": 0.25})
    folder.write_result(Result("1", "finished", "toy", 0, {}, {}))
    content = json.loads(folder.result_path.read_text())
    del content["files"], content["checksum"]
    folder.result_path.write_text(json.dumps(content))
    folder.metrics.append({"epoch": 2, "test/f1": 0.5})
    read = folder.result()
    assert read is not None
    assert (read.id, read.checksum, read_result(folder.result_path).files) == ("1", None, {})
    assert read_curves(tmp_path) == {"test/f1": {1: 0.25, 2: 0.5}}
