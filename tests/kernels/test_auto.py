"""Choosing the fastest way: measured once, remembered, repeated in later runs."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sparse_bench.kernels import SparseStructure, auto, kernel_available, linear, sparse_linear
from sparse_bench.kernels.build import BuildError
from sparse_bench.training.precision import Precision
from tests.kernels.problems import EXPLICIT, assert_close, expected, lstm_problem, problem, results


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
    monkeypatch.setattr(auto, "_measure", lambda *_: pytest.fail("measured again"))
    wanted = sparse_linear(x, structure, values, bias, "csr")
    assert torch.equal(sparse_linear(x, structure, values, bias, "auto"), wanted)


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", b"\xff\xfe", '{"a": 1', "a folder"])
def test_a_cache_that_cannot_be_read_is_measured_again(content: str | bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = auto.cache_file()
    path.parent.mkdir(parents=True)
    if content == "a folder":
        path.mkdir()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    structure, x, values, bias, _ = problem(8, 8, 8, 0.5)
    sparse_linear(x, structure, values, bias, "auto")
    assert "cannot be read" in caplog.text
    if content == "a folder":
        assert "cannot be stored" in caplog.text
        return
    assert len(json.loads(path.read_text())) == 1
    assert {one.name for one in path.parent.iterdir()} == {"auto.json", "auto.lock"}


@pytest.mark.parametrize("entry", [None, 1, "csr", [], {}, {"execution": None}, {"execution": ["csr"]}])
def test_an_entry_that_is_no_choice_is_measured_again(
    entry: object, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    structure = problem(8, 8, 8, 0.5)[0]
    auto.cache_file().parent.mkdir(parents=True)
    auto.cache_file().write_text(json.dumps({"a product": entry, "another": {"execution": "csr"}}))
    assert choose(structure, ("masked",), lambda execution: None) == "masked"
    assert ("is malformed" in caplog.text) == (entry is not None)
    kept = json.loads(auto.cache_file().read_text())
    assert kept["a product"]["execution"] == "masked"
    assert kept["another"] == {"execution": "csr"}


def test_auto_can_choose_in_inference_mode_and_training_goes_on() -> None:
    wanted = expected(*problem(64, 48, 40, 0.1))
    structure, x, values, bias, grad = problem(64, 48, 40, 0.1)  # from which nothing has been derived
    with torch.inference_mode():
        assert_close([sparse_linear(x, structure, values, bias, "auto")], wanted[:1])
        assert_close([sparse_linear(x.clone(), structure, values.clone(), bias + 0, "auto")], wanted[:1])
    (entry,) = json.loads(auto.cache_file().read_text()).values()
    assert set(entry["seconds"]) == set(EXPLICIT) - {"block"}  # none has failed
    for execution in ("auto", *EXPLICIT):  # what was derived from the structure in that mode serves training too
        assert_close(results(structure, x, values, bias, grad, execution), wanted)


def test_an_lstm_layer_can_choose_in_inference_mode() -> None:
    _, layer, (x, h, c, *_) = lstm_problem(steps=5, batch=6, inputs=7, hidden=40, density=0.1)
    layer.execution = "auto"
    with torch.inference_mode():
        y = layer(x.clone(), (h, c))[0]
    layer.execution = "csr"
    torch.testing.assert_close(layer(x, (h, c))[0], y)
    seconds = [
        set(entry["seconds"]) for key, entry in json.loads(auto.cache_file().read_text()).items() if "lstm" in key
    ]
    assert seconds == [{"kernel", "csr", "masked"}]


def choose(structure: SparseStructure, ways: tuple[str, ...], trial: Callable[[str], object]) -> str:
    return auto.choose(structure, "here", lambda: "a product", lambda: ways, lambda: trial)


def test_auto_works_without_a_home(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def no_directory() -> Path:
        raise BuildError("there is no directory")

    monkeypatch.setattr(auto, "cache_file", no_directory)
    structure, x, values, bias, grad = problem(8, 8, 8, 0.5)
    for _ in range(2):
        assert_close(results(structure, x, values, bias, grad, "auto"), expected(structure, x, values, bias, grad))
    assert caplog.text.count("cannot be stored: there is no directory") == 1


def test_auto_leaves_out_what_fails() -> None:
    structure = problem(8, 8, 8, 0.5)[0]

    def trial(execution: str) -> None:
        if execution != "masked":
            raise RuntimeError("not on this device")

    with pytest.raises(RuntimeError, match="no way to compute"):
        choose(structure, ("kernel", "csr"), trial)
    assert choose(structure, EXPLICIT, trial) == "masked"


def test_of_two_processes_the_first_choice_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has written its choice while this one was measuring."""
    structure = problem(8, 8, 8, 0.5)[0]
    assert choose(structure, ("masked",), lambda execution: None) == "masked"
    structure.rewire(structure.mask())
    monkeypatch.setattr(auto, "_remembered", {})
    monkeypatch.setattr(auto, "_recall", lambda key, candidates: None)
    monkeypatch.setattr(auto, "_time", lambda trial, execution, device: float(execution == "masked"))
    assert choose(structure, ("masked", "csr"), lambda execution: None) == "masked"
    assert set(json.loads(auto.cache_file().read_text()).popitem()[1]["seconds"]) == {"masked"}


def test_full_matrices_are_not_made_only_to_time_them(monkeypatch: pytest.MonkeyPatch) -> None:
    structure, x, *_ = problem(8, 8, 8, 0.5)
    assert "masked" in linear.candidates(x, structure)
    monkeypatch.setattr(linear, "_LARGEST_FULL", 63)
    assert linear.candidates(x, structure) == ("kernel", "csr")


def test_an_lstm_layer_is_timed_as_a_whole_and_its_choice_holds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def trained() -> list[Tensor]:
        _, layer, (x, h, c, *_) = lstm_problem(steps=5, batch=6, inputs=7, hidden=40, density=0.1)
        layer.execution = "auto"
        for _ in range(2):
            y, _ = layer(x, (h, c))
            y.square().sum().backward()
        return [y.detach(), layer.weight_hh_l0.grad]

    with caplog.at_level(logging.INFO, "sparse_bench"):
        first = trained()
    assert len([r for r in caplog.records if "lstm" in r.getMessage()]) == 1
    choices = json.loads(auto.cache_file().read_text())
    (key,) = (key for key in choices if key.startswith("lstm 7 density 2^-3.0 and 40 density 2^-3.5 batch 6"))
    assert set(choices[key]["seconds"]) == {"kernel", "csr", "masked"}
    # A run that goes on in another process computes the same bits, since the choice on disk holds there.
    monkeypatch.setattr(auto, "_remembered", {})
    monkeypatch.setattr(auto, "_measure", lambda *_: pytest.fail("measured again"))
    for before, after in zip(first, trained(), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("chosen", ["kernel", "csr", "masked"])
def test_an_lstm_layer_follows_the_choice_on_disk(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "_recall", lambda key, candidates: chosen)
    results = {}
    for execution in ("auto", chosen):
        _, layer, (x, h, c, *_) = lstm_problem(steps=5, batch=6, inputs=7, hidden=40, density=0.1)
        layer.execution = execution
        results[execution] = layer(x, (h, c))[0]
    assert torch.equal(results["auto"], results[chosen])


def test_the_first_repetition_may_compile_and_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seconds = [0.0], {"kernel": [0.9, 0.001, 0.001, 0.001], "csr": [0.02] * 4}
    monkeypatch.setattr(auto.time, "perf_counter", lambda: clock[0])

    def trial(way: str) -> None:
        clock[0] += seconds[way].pop(0)

    structure, *_ = problem(8, 8, 8, 0.5)
    assert choose(structure, ("csr", "kernel"), trial) == "kernel"


def test_nothing_is_timed_while_products_are_counted() -> None:
    """The counter switches libraries off, with which a choice for all later runs would be timed."""
    structure, x, values, bias, grad = problem(64, 48, 40, 0.1)
    with auto.paused():
        wanted = expected(structure, x, values, bias, grad)
        assert_close(results(structure, x, values, bias, grad, "auto"), wanted)
    assert not auto.cache_file().exists()
    sparse_linear(x, structure, values, bias, "auto")
    assert auto.cache_file().exists()


def test_a_choice_on_a_gpu_is_for_its_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "_device_name", lambda device: "H100")
    Precision("fp32", torch.device("cpu"))
    exact = auto.Setting(6, torch.float32, torch.device("cuda"), 1, auto._modes())
    Precision("tf32", torch.device("cpu"))
    rounded = exact._replace(modes=auto._modes())
    Precision("fp32", torch.device("cpu"))
    assert str(exact) != str(rounded)
    assert "H100 tf32" in str(rounded)
