"""What stands behind the numbers, and what a reader is warned of."""

from pathlib import Path

from sparse_bench.report.load import load
from sparse_bench.report.provenance import Provenance, duration, provenance, shared_settings
from tests.report.runs import write_run


def of(root: Path) -> Provenance:
    return provenance(load([root]).records)


def test_runs_made_alike_give_no_warning(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, seed=seed)
    found = of(tmp_path)
    assert found.warnings == ()
    assert found.commits.values == [("0123456789abcdef0123456789abcdef01234567", 2)]
    assert found.machines.values == [("Test Processor, 2 cores, 1 threads, device cpu", 2)]
    assert {fact.name: fact.values for fact in found.software} == {"python": [("3.11.9", 2)], "torch": [("2.6.0", 2)]}
    assert found.data[0].values == [("ab" * 32, 2)]
    assert found.seconds == 2 * 164


def test_warnings(tmp_path: Path) -> None:
    write_run(tmp_path, seed=0, git={"commit": "a", "dirty": True})
    write_run(tmp_path, seed=1, git={"commit": None, "dirty": None}, data={"nlu.yml": "cd" * 32})
    write_run(tmp_path, seed=2, machine={"processor": "Other", "cores": 8, "threads": 4, "device": "cpu"})
    text = " ".join(of(tmp_path).warnings)
    assert "1 of 3 runs were made with uncommitted changes" in text
    assert "do not know the commit" in text
    assert "3 different commits" in text
    assert "checksums differ of nlu.yml" in text
    assert "2 kinds of machine" in text


def test_results_with_little_in_them(tmp_path: Path) -> None:
    write_run(tmp_path, git={}, versions={}, data={}, machine={}, seconds={})
    found = of(tmp_path)
    assert found.commits.values == [("unknown", 1)]
    assert found.machines.values == [("unknown", 1)]
    assert found.seconds == 0


def test_shared_settings_leave_out_seeds_and_file_paths(tmp_path: Path) -> None:
    write_run(tmp_path, seed=0, width=16, settings={"corpus": "/home/somebody/corpus"})
    write_run(tmp_path, seed=0, width=32, settings={"corpus": "/home/somebody/corpus"})
    settings = dict(shared_settings(load([tmp_path]).records))
    assert settings["model.layers"] == "2"
    assert settings["optimizer.lr"] == "0.001"
    assert settings["sparsity.layers"] == '["default"]'
    for name in ("seed", "output", "threads", "model.transformer_size", "sparsity.corpus", "trainer.keep"):
        assert name not in settings


def test_duration() -> None:
    assert [duration(seconds) for seconds in (4.23, 200, 18_720, 3_600_000)] == [
        "4.2 s",
        "3 min 20 s",
        "5 h 12 min",
        "1,000 h 0 min",
    ]
