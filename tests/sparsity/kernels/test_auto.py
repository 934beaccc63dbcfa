"""Choosing the fastest way: measured once, remembered, repeated in later runs."""

import json
import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sparse_bench.sparsity.kernels import SparseStructure, auto, kernel_available, sparse_linear
from tests.sparsity.kernels.problems import EXPLICIT, assert_close, expected, problem, results


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert kernel_available()  # compiled before anything is timed
    monkeypatch.setattr(auto, "cache_file", lambda: tmp_path / "cache" / "auto.json")
    monkeypatch.setattr(auto, "_remembered", {})


def test_auto_measures_once_and_remembers(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    structure, x, values, bias, grad = problem(64, 48, 40, 0.1)
    state = torch.get_rng_state()
    with caplog.at_level(logging.INFO, "sparse_bench"):
        for _ in range(3):
            wanted = expected(structure, x, values, bias, grad)
            assert_close(results(structure, x, values, bias, grad, "auto"), wanted)
    assert torch.equal(state, torch.get_rng_state())
    assert len([r for r in caplog.records if "sparse product" in r.getMessage()]) == 1
    ((key, entry),) = json.loads(auto.cache_file().read_text()).items()
    assert "64x48 density 2^-3.5 tokens 2^6 float32 cpu" in key
    assert entry["execution"] == min(entry["seconds"], key=entry["seconds"].get)
    assert set(entry["seconds"]) == set(EXPLICIT) - {"block"}  # it is not made of tiles
    # Another process finds the choice on disk, even one that it would not have made.
    auto.cache_file().write_text(json.dumps({key: {"execution": "csr"}}))
    monkeypatch.setattr(auto, "_remembered", {})
    structure.rewire(structure.mask())
    assert auto.choose(x, structure, values, bias, EXPLICIT, sparse_linear) == "csr"


def test_auto_survives_a_damaged_cache(caplog: pytest.LogCaptureFixture) -> None:
    auto.cache_file().parent.mkdir(parents=True)
    auto.cache_file().write_text("{")
    structure, x, values, bias, _ = problem(8, 8, 8, 0.5)
    sparse_linear(x, structure, values, bias, "auto")
    assert "cannot be read" in caplog.text
    assert len(json.loads(auto.cache_file().read_text())) == 1


def test_auto_leaves_out_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    structure, x, values, bias, _ = problem(8, 8, 8, 0.5)

    def compute(x: Tensor, structure: SparseStructure, values: Tensor, bias: Tensor | None, execution: str) -> Tensor:
        if execution != "masked":
            raise RuntimeError("not on this device")
        return sparse_linear(x, structure, values, bias, execution)

    assert auto.choose(x, structure, values, bias, EXPLICIT, compute) == "masked"
    structure.rewire(~structure.mask())
    monkeypatch.setattr(auto, "_remembered", {})
    auto.cache_file().unlink()
    with pytest.raises(RuntimeError, match="no way of computing"):
        auto.choose(x, structure, values, bias, ("kernel", "csr"), compute)


def test_of_two_processes_the_first_choice_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has written its choice while this one was measuring."""
    structure, x, values, bias, _ = problem(8, 8, 8, 0.5)
    assert auto.choose(x, structure, values, bias, ("masked",), sparse_linear) == "masked"
    structure.rewire(structure.mask())
    monkeypatch.setattr(auto, "_remembered", {})
    monkeypatch.setattr(auto, "_recall", lambda key, candidates: None)
    monkeypatch.setattr(auto, "_time", lambda leaves, structure, execution, compute: float(execution == "masked"))
    assert auto.choose(x, structure, values, bias, ("masked", "csr"), sparse_linear) == "masked"
    assert set(json.loads(auto.cache_file().read_text()).popitem()[1]["seconds"]) == {"masked"}
