"""What CONTRIBUTING.md tells newcomers to do is done, in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"```(?:python|yaml|bash)\n(.*?)```", re.DOTALL)


def sections() -> dict[str, list[str]]:
    """Title of every "Add a …" section → its code blocks."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (Add a .+)$", text, flags=re.MULTILINE)[1:]
    return {title: BLOCK.findall(body) for title, body in zip(parts[::2], parts[1::2], strict=True)}


def test_there_is_one_section_for_each_kind() -> None:
    assert set(sections()) == {"Add a scheme", "Add a model", "Add a dataset"}


@pytest.mark.slow
@pytest.mark.parametrize("title", ["Add a scheme", "Add a model", "Add a dataset"])
def test_following_a_section_gives_a_finished_run(title: str, tmp_path: Path) -> None:
    for folder in ("sparse_bench", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    *files, command = sections()[title]
    for content in files:
        path = tmp_path / content.splitlines()[0].removeprefix("# ")
        assert not path.exists(), "adding something touches nothing that is there"
        path.write_text(content, encoding="utf-8")
    arguments = command.split()
    assert arguments[0] == "python"
    done = subprocess.run(
        [sys.executable, *arguments[1:], "threads=1"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("runs/ad_hoc/*/result.json"))) == 1
