"""Tests for a scheme, a model or a dataset of one's own. They need no test framework: a failed check raises.

:func:`check_scheme` takes a scheme through its life on a small model. :func:`run_briefly` trains two steps of any
configuration, in a temporary folder.
"""

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from sparse_bench.errors import ConfigError, SparseBenchError
from sparse_bench.library import SparseTraining, sparsify
from sparse_bench.record import FINISHED, Result
from sparse_bench.sparsity.driver import Driver
from sparse_bench.sparsity.scheme import Length, Scheme
from sparse_bench.streams import Streams

#: Makes the scheme, with the given settings (``execution``) in place of its own.
Make = Callable[..., Scheme]
_WORDS, _CLASSES, _BATCH, _LENGTH = 30, 5, 8, 4


class SmallModel(nn.Module):
    """Words [B, 4] → an embedding, two linear layers → scores of five classes [B, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_WORDS, 12)
        self.first, self.second = nn.Linear(12 * _LENGTH, 32), nn.Linear(32, 24)
        self.output = nn.Linear(24, _CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        hidden = torch.relu(self.first(self.embedding(words).flatten(1)))
        return self.output(torch.relu(self.second(hidden)))

    def layer_groups(self) -> dict[str, list[str]]:
        return {
            "default": ["first.weight", "second.weight"],
            "output": ["output.weight"],
            "embedding": ["embedding.weight"],
        }


def small_loss(model: nn.Module, step: int) -> Tensor:
    """The loss of a :class:`SmallModel` on a batch of random words; their sum decides the class."""
    device = next(model.parameters()).device
    draw = torch.Generator().manual_seed(step)
    words = torch.randint(_WORDS, (_BATCH, _LENGTH), generator=draw)
    return nn.functional.cross_entropy(model(words.to(device)), (words.sum(1) % _CLASSES).to(device))


def check_scheme(
    make: Make,
    model: Callable[[], nn.Module] = SmallModel,
    loss: Callable[[nn.Module, int], Tensor] = small_loss,
    steps: int = 12,
) -> None:
    """Check what every scheme promises: counts, equal executions, exact resumption, and no device of its own.

    - Counts: a weight exists where its mask says, all others are exactly zero with zero moments, before and after
      training, and the same seed gives the same topology.
    - Executions: where the scheme can be computed by ``csr`` or ``kernel``, these train as ``masked`` does.
    - Resumption: a training that is stopped and continued ends with the same bits.
    - Device: attached to a model on torch's ``meta`` device, the scheme takes a step without reading a value.

    Args:
        make: makes the scheme; it gets no arguments, or ``execution``. ``functools.partial(RigL, density=0.2)`` does.
        model: makes the model, the same each time under one seed.
        loss: loss of the model at a step, from 0, on the model's device.
        steps: optimizer steps of a training. A third of them is an epoch.

    Raises:
        AssertionError: a promise is broken; the message says which.
        ConfigError: the scheme does not fit the model.
    """
    trial = _Trial(make, model, loss, steps)
    check_counts(trial)
    check_executions(trial)
    check_resumption(trial)
    check_meta(trial)


@dataclass(frozen=True)
class _Trial:
    make: Make
    model: Callable[[], nn.Module]
    loss: Callable[[nn.Module, int], Tensor]
    steps: int

    def begin(self, *, global_seed: int = 0, **settings: Any) -> SparseTraining:
        torch.manual_seed(0)
        model = self.model()
        torch.manual_seed(global_seed)
        optimizer = Adam(model.parameters(), lr=0.02)
        epoch = max(1, self.steps // 3)
        return sparsify(model, optimizer, self.make(**settings), steps=self.steps, steps_per_epoch=epoch)

    def train(self, sparse: SparseTraining, until: int | None = None) -> list[float]:
        losses = []
        for step in range(sparse.steps, self.steps if until is None else until):
            loss = self.loss(sparse.model, step)
            loss.backward()
            sparse.optimizer.step()
            sparse.optimizer.zero_grad()
            losses.append(loss.item())
        return losses


def _masks(sparse: SparseTraining) -> dict[str, Tensor]:
    return {name: weight.mask.clone() for name, weight in sparse.scheme.weights.items()}


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def check_counts(trial: _Trial) -> None:
    """Check masks, counts and zeros before and after training."""
    sparse = trial.begin()
    assert sparse.scheme.weights or sparse.scheme.asked() is None, "the scheme makes no layer sparse"
    again = trial.begin(global_seed=1)  # topologies depend on the run's streams alone
    assert _same(_masks(sparse), _masks(again)), "the same seed gives another topology"
    before = {name: weight.dense().clone() for name, weight in sparse.scheme.weights.items()}
    for when in ("before training", "after training"):
        for name, weight in sparse.scheme.weights.items():
            place, mask = f"{name} {when}", weight.mask
            assert mask.dtype == torch.bool, f"{place}: the mask is not boolean"
            assert weight.active == int(mask.sum()), (
                f"{place}: {weight.active} weights, but {int(mask.sum())} in the mask"
            )
            outside = int(weight.dense()[~mask].count_nonzero())
            assert not outside, f"{place}: {outside} weights outside the topology are not zero"
            parameter = dict(sparse.model.named_parameters()).get(name)
            state = {} if parameter is None else sparse.optimizer.state.get(parameter, {})
            for key, moment in state.items():
                if isinstance(moment, Tensor) and moment.shape == mask.shape:
                    assert moment[~mask].eq(0).all(), f"{place}: {key} outside the topology is not zero"
        if when == "before training":
            trial.train(sparse)
    moved = [not torch.equal(weight.dense(), before[name]) for name, weight in sparse.scheme.weights.items()]
    assert not moved or any(moved), "training moves no sparse weight"


def check_executions(trial: _Trial) -> None:
    """Check that ``csr`` and ``kernel`` train as ``masked`` does, up to rounding; what they refuse is left out."""
    for execution in ("csr", "kernel"):
        try:
            masked, other = trial.begin(execution="masked"), trial.begin(execution=execution)
        except (ConfigError, TypeError):  # layers that it does not compute, or a scheme without the setting
            continue
        for one, its in zip(trial.train(masked), trial.train(other), strict=True):
            assert abs(one - its) <= 1e-3 * max(abs(one), 1e-2), f"masked has the loss {one}, and {execution} {its}"
        assert _same(_masks(masked), _masks(other)), f"masked and {execution} end with different topologies"
        for name, weight in masked.scheme.weights.items():
            torch.testing.assert_close(weight.dense(), other.scheme.weights[name].dense(), rtol=1e-2, atol=1e-3)


def check_resumption(trial: _Trial) -> None:
    """Check that a training which is stopped at several places and continued ends with the same bits."""
    whole = trial.begin()
    losses = trial.train(whole)
    for stop in sorted({1, trial.steps // 2 + 1}):
        first = trial.begin()
        begun = trial.train(first, until=stop)
        file = io.BytesIO()
        parts = [first.model.state_dict(), first.optimizer.state_dict(), first.state_dict()]
        torch.save(parts, file)
        file.seek(0)
        model, optimizer, sparse = torch.load(file, weights_only=True)
        second = trial.begin()
        second.model.load_state_dict(model)
        second.optimizer.load_state_dict(optimizer)
        second.load_state_dict(sparse)
        assert [*begun, *trial.train(second)] == losses, f"stopped at step {stop}, training has other losses"
        assert _same(_masks(second), _masks(whole)), f"stopped at step {stop}, training ends with another topology"
        states = (dict(training.model.state_dict()) for training in (second, whole))
        assert _same(*states), f"stopped at step {stop}, training ends with other weights"


def check_meta(trial: _Trial) -> None:
    """Check that a step on torch's ``meta`` device, which has no values, works."""
    with torch.device("meta"):
        model = trial.model()
    try:
        scheme = trial.make(execution="masked")  # the others compute with numbers
    except TypeError:
        scheme = trial.make()
    scheme.attach(model, Streams(0))
    optimizer = Adam(model.parameters())
    Driver(scheme, optimizer, Streams(0), lambda: Length(3, trial.steps))
    trial.loss(model, 0).backward()
    optimizer.step()
    elsewhere = [name for name, tensor in model.state_dict().items() if tensor.device.type != "meta"]
    assert not elsewhere, f"{', '.join(elsewhere)} are not on the device of the model"


def run_briefly(*overrides: str, config_dir: str | Path = "conf", steps: int = 2) -> Result:
    """Train a configuration for a few steps, in a temporary folder.

    Args:
        overrides: as on the command line, such as ``model=mine``.
        config_dir: folder with one's own configuration files, in addition to the shipped ones.
        steps: optimizer steps.

    Raises:
        ConfigError: the configuration cannot be run.
        AssertionError: the run failed; the message has its traceback.
    """
    from hydra import compose, initialize_config_dir

    from sparse_bench.config import CONF, register
    from sparse_bench.run import run

    register()
    own = [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"]
    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(CONF), version_base="1.3"):
        short = [f"trainer.steps={steps}", "threads=1", "logger=none", "progress=false", f"output={folder}"]
        result = run(compose("config", overrides=[*own, *overrides, *short]))
    if not isinstance(result, Result):
        raise SparseBenchError("Another process works on this run.")
    assert result.status == FINISHED, (result.error or {}).get("traceback")
    return result
