"""Files of a run's folder."""

import contextlib
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparse_bench.record import RunFolder, run_name, write_atomically


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
