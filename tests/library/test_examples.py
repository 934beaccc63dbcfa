"""The examples in ``docs/`` run, learn something, and are short enough to be read."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "docs/examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_they_are_short() -> None:
    found = sorted(EXAMPLES.glob("*.py"))
    assert [path.stem for path in found] == ["data_parallel", "hugging_face", "lightning_module", "plain_loop"]
    assert all(len(path.read_text().splitlines()) < 60 for path in found)


def test_a_plain_loop() -> None:
    losses = load("plain_loop").main()
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.slow
def test_hugging_face() -> None:
    first, last = load("hugging_face").main()
    assert last < 0.8 * first


@pytest.mark.slow
def test_lightning(capsys: pytest.CaptureFixture[str]) -> None:
    model = load("lightning_module").main()
    assert sum(model.losses[-8:]) < 0.8 * sum(model.losses[:8])
    assert list(model.sparse.report()["rewirings"]) == [5]
    assert model.sparse.steps == 40


@pytest.mark.slow
def test_data_parallel() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = str(EXAMPLES / "data_parallel.py")
    done = subprocess.run([*command, path], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "All ranks have the same topology." in done.stdout
