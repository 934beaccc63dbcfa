"""Files of tensors: every damage is noticed, and nothing in them is run."""

import errno
import os
import pickle
import random
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparse_bench.errors import CheckpointError
from sparse_bench.training import checkpoint

STATE: dict[str, Any] = {
    "model": OrderedDict(weight=torch.arange(64.0).view(8, 8), bias=torch.zeros(8, dtype=torch.bfloat16)),
    "optimizer": {"state": {0: {"step": 3, "rate": 0.1}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]},
    "progress": {"best": None, "history": [0.5, 0.25], "stopped": False},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "checkpoint.pt", STATE)
    return tmp_path / "checkpoint.pt"


def test_what_is_saved_is_loaded_and_is_a_file_of_torch_s(path: Path) -> None:
    for state in (checkpoint.load(path), torch.load(path, weights_only=True)):
        assert state.keys() == STATE.keys()
        assert all(torch.equal(state["model"][name], value) for name, value in STATE["model"].items())
        assert state["optimizer"] == STATE["optimizer"]
        assert state["progress"] == STATE["progress"]


def test_a_checkpoint_that_could_not_be_written_leaves_the_one_before(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, {"progress": {"best": 0.5}})
    assert checkpoint.load(path)["progress"] == STATE["progress"]


def test_every_flipped_byte_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    draw = random.Random(0)
    places = [draw.randrange(len(whole)) for _ in range(200)]
    for place in [*places, 0, *range(len(whole) - 120, len(whole))]:  # the comment with the checksum too
        broken = bytearray(whole)
        broken[place] ^= 1 << draw.randrange(8)
        path.write_bytes(broken)
        with pytest.raises(CheckpointError, match=r"checkpoint.pt .*force=true"):
            checkpoint.load(path)
    path.write_bytes(whole)
    checkpoint.load(path)


@pytest.mark.parametrize("kept", [0, 1, 100, -1, -200])
def test_a_file_that_was_cut_off_is_refused(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="force=true"):
        checkpoint.load(path)


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def test_nothing_in_a_checkpoint_is_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "run"
    monkeypatch.setattr(checkpoint, "_plain", lambda value, place: value)
    checkpoint.save(path, {"model": Malicious(marker)})  # with a checksum that is right
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt cannot be read"):
        checkpoint.load(path)
    path.write_bytes(pickle.dumps(Malicious(marker)))
    with pytest.raises(CheckpointError):
        checkpoint.load(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists()  # it would have been seen


def test_other_versions_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "VERSION", checkpoint.VERSION + 1)
    with pytest.raises(CheckpointError, match=r"has version 4, this program writes 5\. .* force=true"):
        checkpoint.load(path)
    monkeypatch.undo()
    torch.save({"version": 2, **STATE}, path)  # as the last version without a checksum wrote it
    with pytest.raises(CheckpointError, match=r"no checksum: it is damaged, or older than version 3\).*force=true"):
        checkpoint.load(path)


def test_numbers_of_numpy_become_python_s(path: Path) -> None:
    checkpoint.save(path, {"best": np.float64(0.1), "n": [np.int64(3), (np.float32(0.5),)], np.str_("k"): np.bool_(1)})
    state = checkpoint.load(path)
    assert state == {"best": 0.1, "n": [3, (0.5,)], "k": True}
    assert type(state["best"]) is float
    assert type(state["n"][0]) is int


def test_what_could_not_be_read_again_is_refused_when_it_is_saved(path: Path) -> None:
    for value, name in [({1, 2}, "builtins.set"), (Path("x"), "PosixPath"), (np.zeros(2), "numpy.ndarray")]:
        with pytest.raises(CheckpointError, match=rf"checkpoint.pt\['task'\]\['a'\]\[1\] cannot be saved: .*{name}"):
            checkpoint.save(path, {"task": {"a": [0, value]}})
    checkpoint.save(path, {"task": defaultdict(list, a=[1])})
    assert checkpoint.load(path) == {"task": {"a": [1]}}


def test_a_model_s_own_dict_keeps_the_versions_of_its_layers(path: Path) -> None:
    model = torch.nn.BatchNorm1d(3)
    checkpoint.save(path, {"model": model.state_dict()})
    assert checkpoint.load(path)["model"]._metadata == model.state_dict()._metadata  # type: ignore[attr-defined]


def test_random_states_go_on_where_they_were(path: Path) -> None:
    def draws() -> list[float]:
        more = [random.random(), random.gauss(0, 1), *np.random.normal(size=3), np.random.rand()]  # noqa: NPY002
        return [*map(float, more), *torch.rand(3).tolist()]

    device = torch.device("cpu")
    draws()
    np.random.normal()  # noqa: NPY002 - one of a pair of normal numbers is kept for the next call
    random.gauss(0, 1)
    checkpoint.save(path, checkpoint.random_state(device))
    expected = draws()
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    checkpoint.restore_random_state(checkpoint.load(path), device)
    assert draws() == expected


def test_fingerprints_are_those_of_the_numbers() -> None:
    first = {"b": torch.arange(4.0), "a": torch.tensor(3)}
    assert checkpoint.fingerprint(first) == checkpoint.fingerprint({"a": torch.tensor(3), "b": torch.arange(4.0)})
    others = [
        first | {"b": torch.arange(4.0).view(2, 2)},
        first | {"b": torch.arange(4.0).double()},
        first | {"b": torch.tensor([0.0, 1.0, 2.0, 3.0000002])},
        first | {"c": torch.zeros(0)},
        {"b": first["b"]},
    ]
    assert len({checkpoint.fingerprint(state) for state in [first, *others]}) == 6
    strided = torch.arange(8.0).view(4, 2).t()
    assert checkpoint.fingerprint({"a": strided}) == checkpoint.fingerprint({"a": strided.contiguous()})
