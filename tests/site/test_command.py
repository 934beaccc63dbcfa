"""The command line."""

from pathlib import Path

import pytest

from sparse_bench.site.__main__ import main
from tests.evidence.runs import write_run


def test_the_command_writes_a_report_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "runs", seed=0, weights=21_000, metrics={"test/f1": 0.5, "test/no": 1.0}, history=False)
    write_run(tmp_path / "runs", seed=1, weights=21_600, metrics={"test/f1": 0.7, "test/no": 1.0}, history=False)
    write_run(tmp_path / "runs", seed=2, status="failed", history=False)
    write_run(tmp_path / "more", experiment="rasa/ted", history=False)
    folders = ["--runs", str(tmp_path / "runs"), str(tmp_path / "more")]
    code = main(
        [str(tmp_path / "out"), *folders, "--experiment", "rasa/diet", "--metric", "test/f1", "--title", "Mine"]
    )
    printed = capsys.readouterr().out.replace("\N{NO-BREAK SPACE}", " ")
    assert code == 0
    assert "rasa/diet · diet · sara" in printed
    # 0.5, 0.7: deviation √0.02, 12.706205 · 0.1
    assert "density 20 %, 21,300 weights in sparse layers: test/f1 0.600 ± 1.271" in printed
    assert "rasa/ted" not in printed
    assert "NonFiniteLossError: diverged" in printed
    for name in ("runs.csv", "summary.csv", "summary.md", "index.html"):
        assert str(tmp_path / "out" / name) in printed
        assert (tmp_path / "out" / name).is_file()
    assert "<h1>Mine</h1>" in (tmp_path / "out/index.html").read_text()


def test_no_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "out"), "--runs", str(tmp_path)]) == 1
    printed = capsys.readouterr().err
    assert f"No results found in '{tmp_path}'" in printed
    assert "python -m sparse_bench experiment=NAME" in printed
    assert not (tmp_path / "out").exists()


def test_an_unknown_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "runs", history=False)
    assert main([str(tmp_path / "out"), "--runs", str(tmp_path / "runs"), "--metric", "test/intent"]) == 1
    printed = capsys.readouterr().err
    assert "Unknown metric 'test/intent'. Did you mean 'test/intent_f1'?" in printed
    assert "Valid choices: test/entity_f1, test/intent_f1" in printed
