"""What a run says of its circumstances."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sparse_bench import environment

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@needs_git
def test_an_installed_copy_inside_another_project_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "venv" / "sparse_bench"
    package.mkdir(parents=True)
    (package / "environment.py").touch()
    (tmp_path / ".gitignore").write_text("venv/\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".gitignore")
    git(tmp_path, "commit", "-q", "-m", "another project")
    monkeypatch.setattr(environment, "__file__", str(package / "environment.py"))
    assert environment.git() == {"commit": None, "dirty": None}


@needs_git
def test_a_checkout_says_its_commit_and_whether_it_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "sparse_bench"
    package.mkdir()
    (package / "environment.py").touch()
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "the project")
    monkeypatch.setattr(environment, "__file__", str(package / "environment.py"))
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert environment.git() == {"commit": commit, "dirty": False}
    (package / "new.py").touch()
    assert environment.git() == {"commit": commit, "dirty": True}


def test_a_machine_names_the_vector_instructions_that_decide_the_last_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX1024")
    assert environment.machine(torch.device("cpu"))["vectors"] == "AVX1024"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tells glibc how to keep memory")
def test_a_tuned_process_takes_large_buffers_from_the_system_at_first_only() -> None:
    """64 MB are 16,384 pages, and each buffer would cost as many faults. The heap finds its size in a few rounds."""
    script = """
import resource, torch
from sparse_bench.environment import tune_process
tune_process()
for _ in range(40):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *faults, megabytes = map(int, done.stdout.split())
    assert faults[0] > 10_000
    assert max(faults[-20:]) < 100
    assert megabytes < 2_000


def test_an_earlier_runs_memory_is_let_go_before_a_peak_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    monkeypatch.setattr("gc.collect", lambda: done.append("collected"))
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda device: done.append("reset"))
    environment.reset_peak_memory(torch.device("cuda"))
    assert done == ["collected", "reset"]
