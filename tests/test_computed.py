"""What sparse products are really computed with: recorded, and told where it changes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import nn

from sparse_bench.config import run_id
from sparse_bench.kernels import auto, kernel_available, linear
from sparse_bench.kernels.cpu import Availability
from sparse_bench.record import Result, RunFolder
from sparse_bench.row_sparse import RowSparseUpdates, compiled, make_row_sparse
from sparse_bench.run import run
from sparse_bench.sparsity.computed import computed, fallbacks
from sparse_bench.sparsity.weights import sparsify
from sparse_bench.training.trainer import Trainer

Make = Callable[..., DictConfig]
NO_COMPILER = Availability(False, "no C++ compiler found")


@pytest.fixture(autouse=True)
def _own_choices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    assert kernel_available()
    monkeypatch.setattr(auto, "cache_file", lambda: tmp_path / "cache" / "auto.json")
    monkeypatch.setattr(auto, "_remembered", {})
    yield
    linear.kernel_or_csr.cache_clear()


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def forget() -> None:
        monkeypatch.setattr(linear, "kernel_available", lambda: NO_COMPILER)
        linear.kernel_or_csr.cache_clear()

    return forget


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 4)
        self.lstm = nn.LSTM(4, 4)
        self.output = nn.Linear(4, 8)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.output(self.lstm(self.embedding(words))[0])
        return y


def model(execution: str, *names: str) -> Layers:
    torch.manual_seed(0)
    made = Layers()
    masks = {name: torch.rand(made.get_parameter(name).shape) < 0.5 for name in names}
    sparsify(made, masks, execution)
    return made


LSTM = ("lstm.weight_ih_l0", "lstm.weight_hh_l0")


def test_ways_by_kind_of_layer(no_compiler: Callable[[], None]) -> None:
    assert computed(Layers()) == {}
    assert computed(model("masked", "embedding.weight", "output.weight")) == {"embedding": "masked", "linear": "masked"}
    assert computed(model("csr", *LSTM)) == {"lstm": "csr"}
    compiled = model("kernel", *LSTM, "output.weight")
    said = f"kernel ({kernel_available().reason})"
    assert computed(compiled) == {"linear": said, "lstm": said}
    assert fallbacks(compiled) == []
    no_compiler()
    said = "csr (no kernel, no C++ compiler found)"
    assert computed(compiled) == {"linear": said, "lstm": said}
    assert fallbacks(compiled) == [
        f"execution=kernel is not available, so {kind} layers use csr, whose last digits differ: no C++ compiler found."
        for kind in ("linear", "lstm")
    ]
    assert fallbacks(model("csr", *LSTM)) == fallbacks(model("auto", *LSTM)) == []


def test_auto_tells_what_it_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    choices = {"lstm": "csr", "6": "kernel", "8": "masked"}
    monkeypatch.setattr(auto, "_measure", lambda key, *_: choices["lstm" if key.startswith("lstm") else key[0]])
    auto.begin({})
    made = model("auto", *LSTM, "output.weight", "embedding.weight")
    assert computed(made)["linear"].endswith(": nothing yet")
    made(torch.zeros(3, 2, dtype=torch.long))
    found = computed(made)
    assert found["embedding"] == "masked"
    assert found["linear"].startswith(f"auto (kernel, {kernel_available().reason}; timed on ")
    assert {kind: found[kind].rpartition(": ")[2] for kind in ("linear", "lstm")} == {"linear": "masked", "lstm": "csr"}
    auto.begin({})
    assert auto.used() == {}


def test_rows_of_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Layers()
    optimizer = torch.optim.Adam(made.parameters())
    assert RowSparseUpdates(optimizer, made).computed() == {}
    make_row_sparse(made, "embedding.weight", exact=True)
    optimizer = torch.optim.Adam(made.parameters())
    updates = RowSparseUpdates(optimizer, made)
    assert updates.computed() == {"rows of tables": "compiled code"}
    assert updates.fallbacks() == []
    monkeypatch.setattr(compiled, "_library", lambda: None)
    assert updates.computed() == {"rows of tables": "torch"}
    assert "compiled code is not available" in updates.fallbacks()[0]


class Killed(BaseException):
    pass


def killed(config: DictConfig, step: int) -> None:
    update = Trainer.update

    def until_killed(self: Trainer) -> None:
        if self.progress.step == step:
            raise Killed
        update(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "update", until_killed)
        with pytest.raises(Killed):
            run(config)


def finished(config: DictConfig) -> Result:
    result = run(config)
    assert result is not None
    assert result.status == "finished", result.error
    written = RunFolder(Path(config.output) / config.experiment_name / run_id(config)).result()
    assert written is not None
    assert written.machine == result.machine
    return result


@pytest.mark.filterwarnings("ignore:The sparse kernel is not available")
def test_a_run_that_goes_on_without_its_kernel_says_so(
    toy_config: Make, no_compiler: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    config = toy_config(sparsity__execution="kernel", trainer__checkpoint_seconds=0.0)
    kernel = {"linear": f"kernel ({kernel_available().reason})"}
    whole = finished(toy_config(sparsity__execution="kernel", output=f"{config.output}_whole"))
    assert whole.machine["computed"] == kernel
    assert whole.warnings == []
    assert "resumed_from" not in whole.machine
    killed(config, 4)
    killed(config, 8)  # still with the kernel: no change
    assert "resumes with" not in caplog.text
    no_compiler()
    killed(config, 12)
    assert "resumes with {'computed': {'linear': 'csr (no kernel, no C++ compiler found)'}}" in caplog.text
    result = finished(config)  # nothing has changed since the last checkpoint, and it is told all the same
    assert result.machine["computed"] == {"linear": "csr (no kernel, no C++ compiler found)"}
    (before,) = result.machine["resumed_from"]
    assert before["computed"] == kernel
    assert [warning for warning in result.warnings if "layers use csr" in warning]
    assert [warning for warning in result.warnings if "interrupted" in warning]


@pytest.mark.filterwarnings("ignore:The sparse kernel is not available")
def test_a_run_without_its_kernel_from_the_start_says_so(
    toy_config: Make, no_compiler: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    no_compiler()
    for seed in (0, 1):  # not only the first of a process
        caplog.clear()
        result = finished(toy_config(sparsity__execution="kernel", seed=seed))
        assert result.machine["computed"] == {"linear": "csr (no kernel, no C++ compiler found)"}
        (warning,) = result.warnings
        assert "execution=kernel is not available, so linear layers use csr" in warning
        assert warning in caplog.text


def test_choices_go_on_with_a_run(toy_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine, or an emptied cache, would choose otherwise by its clock: the run keeps what it has begun."""
    monkeypatch.setattr(auto, "_measure", lambda key, *_: "csr")
    settings: dict[str, Any] = {"sparsity__execution": "auto", "trainer__checkpoint_seconds": 0.0}
    config = toy_config(**settings)
    whole = finished(toy_config(**settings, output=f"{config.output}_whole"))
    assert whole.machine["computed"]["linear"].endswith(": csr")
    killed(config, 9)
    monkeypatch.setattr(auto, "_remembered", {})
    monkeypatch.setattr(auto, "_measure", lambda key, *_: "kernel")
    result = finished(config)
    assert result.machine["computed"] == whole.machine["computed"]
    assert "resumed_from" not in result.machine
    assert result.metrics == whole.metrics
