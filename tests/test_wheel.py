"""A built wheel works outside the repository."""

import importlib.util
import os
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def call(*command: object, cwd: Path) -> str:
    """Run a command without the repository on Python's path; returns what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_wheel_works_in_a_fresh_environment(tmp_path: Path) -> None:
    built = tmp_path / "wheel"
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []  # else pip gets hatchling
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", *isolation, "-w", built, ROOT]
    try:
        call(*build, cwd=tmp_path)
    except AssertionError as error:
        if isolation or "No matching distribution found for hatchling" not in str(error):
            raise
        pytest.skip("needs hatchling, or a network to get it")
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    for needed in ("conf/dataset/text_lm.yaml", "templates/scheme.py.txt", "kernels/native/sparse_linear.cpp"):
        assert f"sparse_bench/{needed}" in names

    # A fresh environment: the wheel itself, and the other packages of this one. A .pth file there also names the
    # repository if it is installed in place, so the wheel has to come first.
    fresh = tmp_path / "fresh"
    call(sys.executable, "-m", "venv", fresh, cwd=tmp_path)
    python = fresh / "bin" / "python"
    call(sys.executable, "-m", "pip", "-q", "--python", python, "install", "--no-deps", wheel, cwd=tmp_path)
    packages = next((fresh / "lib").glob("python*/site-packages"))
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()) + "\n")

    empty = tmp_path / "empty"
    empty.mkdir()
    said = call(python, "-c", "import sparse_bench as sb; print(sb.__file__, sb.schemes())", cwd=empty)
    assert said.startswith(str(fresh))
    command = fresh / "bin" / "sparse-bench"
    assert "experiment=…" in call(command, "--help", cwd=empty)
    (empty / "my.tsv").write_text("".join(f"good day number{n}\tgreet\nsee you number{n}\tleave\n" for n in range(30)))
    short = ["trainer.epochs=2", "trainer.keep=weights", "threads=1", "device=cpu"]
    call(command, "dataset=text_classes", "dataset.train=my.tsv", "model=bag_of_embeddings", *short, cwd=empty)
    (result,) = empty.glob("runs/ad_hoc/*/result.json")
    assert "model.safetensors" in call(command, "export", result.parent, cwd=tmp_path)
    call(command, "new", "scheme", "mine", cwd=empty)
    tiny = ["model.transformer_size=16", "dataset.corpus.examples=200", *short]
    call(command, "--config-dir", "conf", "sparsity=mine", *tiny, cwd=empty)
    assert len(list(empty.glob("runs/ad_hoc/*/result.json"))) == 2
