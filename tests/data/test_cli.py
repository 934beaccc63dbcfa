"""``python -m sparse_bench.data``."""

import subprocess
import sys
from pathlib import Path

import pytest

from sparse_bench.data import __main__ as cli
from sparse_bench.data.corpora import corpora

NAMES = ["brouns", "brown", "multi30k", "ptb", "ptb_pos", "sara", "ted"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SPARSE_BENCH_DATA", str(folder))
    monkeypatch.delenv("SPARSE_BENCH_MIRROR", raising=False)
    return folder


def states(output: str) -> dict[str, str]:
    """Name → files, size and state, from the table."""
    lines = output.split("\n\n")[0].splitlines()
    end = lines[0].index("licence")
    return {line.split()[0]: " ".join(line[:end].split()[1:]) for line in lines[1:]}


def test_list_of_an_empty_cache(capsys, cache):
    assert cli.main(["list"]) == 0
    output = capsys.readouterr().out
    assert list(states(output)) == NAMES
    assert states(output)["ptb"] == "3 6.0 MB absent"
    for corpus in corpora().values():
        assert corpus.licence in output
    assert output.endswith(f"in {cache}\n")
    assert not cache.exists()


def test_download_list_path_verify(capsys, cache, shared_data):
    assert cli.main(["download", "ted", "ptb_pos", "--mirror", str(shared_data)]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines() == [
        f"{name}: {size} in {cache / name}. {corpora()[name].notice}"
        for name, size in (("ted", "0.1 MB"), ("ptb_pos", "4.2 MB"))
    ]
    assert output.err == ""  # no progress bar: this is no terminal

    (cache / "ptb_pos" / "treebank.zip").unlink()
    assert cli.main(["list"]) == 0
    found = states(capsys.readouterr().out)
    assert found["ted"] == "5 0.1 MB present"
    assert found["ptb_pos"] == "4 4.2 MB 3 of 4 present"
    assert found["sara"] == "26 0.4 MB absent"

    assert cli.main(["path", "ted"]) == 0
    assert capsys.readouterr().out == f"{cache / 'ted'}\n"
    assert cli.main(["path", "ptb_pos"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "python -m sparse_bench.data download ptb_pos" in output.err

    assert cli.main(["verify", "ted"]) == 0
    assert capsys.readouterr().out == "ted: 5 of 5 files are correct\n"
    assert cli.main(["verify"]) == 1  # of all that are here
    output = capsys.readouterr()
    assert output.out.splitlines() == [
        "ptb_pos: 3 of 4 files are correct",
        "ted: 5 of 5 files are correct",
    ]
    assert output.err.splitlines()[0] == "ptb_pos/treebank.zip: absent"
    assert cli.main(["verify", "sara"]) == 1


def test_download_repairs_what_verify_finds(capsys, cache, shared_data, monkeypatch):
    monkeypatch.setenv("SPARSE_BENCH_MIRROR", str(shared_data))
    assert cli.main(["download", "ted"]) == 0
    path = cache / "ted" / "train" / "hotel_happy.md"
    content = path.read_bytes()
    path.write_bytes(b"?" + content[1:])
    assert cli.main(["verify"]) == 1
    assert "ted/train/hotel_happy.md: expected SHA-256 eecf7241" in capsys.readouterr().err
    assert cli.main(["download", "ted"]) == 0
    assert path.read_bytes() == content
    assert cli.main(["verify"]) == 0


def test_download_all(cache, shared_data):
    assert cli.main(["download", "--all", "--mirror", str(shared_data)]) == 0
    assert sorted(path.name for path in cache.iterdir() if path.is_dir()) == NAMES


def test_verify_of_an_empty_cache_fails(capsys, cache):
    assert cli.main(["verify"]) == 1
    assert f"No corpus is in {cache}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["download", "pbt"], f"Unknown corpus 'pbt'. Did you mean 'ptb'? Valid choices: {', '.join(NAMES)}."),
        (["path", "nope"], f"Unknown corpus 'nope'. Valid choices: {', '.join(NAMES)}."),
        (["verify", "nope"], "Unknown corpus 'nope'."),
        (["download"], "give the names of corpora, or --all"),
        (["download", "ptb", "--all"], "give the names of corpora, or --all"),
        ([], "required: command"),
        (["fetch"], "invalid choice: 'fetch'"),
    ],
)
def test_wrong_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_errors_of_the_data_and_of_the_disk_are_one_line(capsys, monkeypatch, tmp_path):
    assert cli.main(["download", "ted", "--mirror", str(tmp_path / "absent")]) == 1
    assert capsys.readouterr().err == f"error: The mirror {tmp_path / 'absent'} is not a folder.\n"
    (tmp_path / "file").write_text("where the folder should be")
    monkeypatch.setenv("SPARSE_BENCH_DATA", str(tmp_path / "file"))
    assert cli.main(["download", "ted", "--mirror", str(tmp_path)]) == 1
    output = capsys.readouterr().err
    assert output.startswith("error: ")
    assert output.count("\n") == 1


def test_an_interrupted_download_says_so(capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "fetch", interrupted)
    assert cli.main(["download", "ted"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_as_a_process():
    command = [sys.executable, "-m", "sparse_bench.data", "path", "nope"]
    done = subprocess.run(command, cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Unknown corpus 'nope'" in done.stderr
    assert "Traceback" not in done.stderr
