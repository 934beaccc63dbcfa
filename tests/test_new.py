"""``sparse-bench new`` writes parts that run at once, outside the repository."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparse_bench.new import KINDS, main, written

ROOT = Path(__file__).resolve().parents[1]
#: What the console script ``sparse-bench`` does; its own folder, not the current one, comes first in sys.path.
SCRIPT = "import sys; sys.path[0] = '/nowhere'; from sparse_bench.__main__ import main; main()"


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_of_a_part(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([kind, "two_words"]) == 0
    said = capsys.readouterr().out
    assert f"sparse-bench --config-dir conf {KINDS[kind][0]}=two_words" in said
    for path, content in written(kind, "two_words").items():
        assert path.read_text() == content
        assert "$" not in content.replace("${trainer.epochs}", "")
        if path.suffix == ".py":
            compile(content, str(path), "exec")
    assert (kind == "dataset") != ("class TwoWords" in (tmp_path / "my_parts/two_words.py").read_text())
    assert main([kind, "two_words"]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main([kind, "another"]) == 0


@pytest.mark.parametrize("name", ["Upper", "9nine", "a-b", "class", "../x"])
def test_names_that_are_none(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["scheme", name])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_part_runs_and_passes_its_test(kind: str, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def call(*command: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    said = call(sys.executable, "-c", SCRIPT, "new", kind, "mine").stdout
    run = next(line for line in said.splitlines() if line.startswith("Run it:"))
    arguments = run.partition("sparse-bench ")[2].split()
    call(sys.executable, "-c", SCRIPT, *arguments, "threads=1")
    assert len(list(tmp_path.glob("runs/ad_hoc/*/result.json"))) == 1
    call(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
