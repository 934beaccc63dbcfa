"""Help and completion of the command line."""

import subprocess
from pathlib import Path

import pytest

from sparse_bench.config import choices
from sparse_bench.shell import COMMANDS, completions, help_text, main, run_command


def test_the_help_names_every_file_and_setting_within_120_characters() -> None:
    lines = help_text().splitlines()
    assert max(map(len, lines)) <= 120
    for group in ("model", "dataset", "sparsity", "optimizer", "logger"):
        start = next(number for number, line in enumerate(lines) if line.startswith(f"{group}=…"))
        below = [line.split()[0] for line in lines[start + 1 : start + 60] if line.strip()]
        assert set(choices(group)) <= set(below), group
    text = "\n".join(lines)
    for group in ("experiment", "sweep"):
        for name in choices(group):
            assert name.rpartition("/")[2] in text
    assert "trainer.keep" in text
    assert "threads" in text
    assert set(COMMANDS) <= set(text.split())
    assert "??" not in text


@pytest.mark.parametrize("flags", [["--help"], ["-h"], ["experiment=rasa/diet", "--help"]])
def test_help_runs_nothing(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(flags) == 0
    assert "experiment=…" in capsys.readouterr().out
    assert run_command(["experiment=rasa/diet"]) is None
    assert run_command([]) is None


@pytest.mark.parametrize(
    ("line", "some", "none"),
    [
        ("sparse-bench exp", ["experiment=", "export"], ["model="]),
        ("sparse-bench seed=1 exp", ["experiment="], ["export"]),
        ("sparse-bench experiment=rasa/d", ["experiment=rasa/diet"], ["experiment=rasa/ted"]),
        ("python -m sparse_bench sweep=brouns/p", ["sweep=brouns/padding"], ["sweep=brouns/arms"]),
        ("sparse-bench sparsity=set,r", ["sparsity=set,rigl"], ["sparsity=set,set"]),
        ("sparse-bench trainer.k", ["trainer.keep="], ["trainer.epochs="]),
        ("sparse-bench sparsity=rigl sparsity.int", ["sparsity.interval="], []),
        ("sparse-bench experiment=brouns/set sparsity.z", ["sparsity.zeta="], []),
        ("sparse-bench experiment=demeester/lm_small/sparse model.we", ["model.weight_drop="], []),
        ("sparse-bench dataset.corpus.ex", ["dataset.corpus.examples="], []),
        ("sparse-bench force=", ["force=true", "force=false"], []),
        ("sparse-bench sweep=rasa/diet_small hydra/launcher=j", ["hydra/launcher=joblib"], []),
        ("sparse-bench nothing", [], []),
    ],
)
def test_completions(line: str, some: list[str], none: list[str]) -> None:
    found = completions(line)
    assert set(some) <= set(found)
    assert not set(none) & set(found)
    assert bool(found) == bool(some)


def test_bash_completes_both_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In bash itself, with a candidate that continues after an equals sign."""
    assert main(["bash"]) == 0
    script = tmp_path / "completion.sh"
    calls = """
complete_word() {
    COMP_LINE=$1; COMP_POINT=${#1}; COMP_WORDS=(${1//=/ = }); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _sparse_bench; printf '%s|' "${COMPREPLY[@]}"; echo
}
COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
complete_word 'sparse-bench experiment=rasa/d'
complete_word 'python -m sparse_bench model=aw'
complete_word 'python -m pip model=aw'
complete -p python
"""
    script.write_text(capsys.readouterr().out + calls)
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["rasa/diet |", "awd_lstm |"]
    assert "awd_lstm" not in lines[2]
    assert "-F _sparse_bench python" in lines[3]
