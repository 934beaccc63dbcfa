"""Optimizer steps on row-sparse gradients against torch's own on dense ones."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RMSprop, SparseAdam
from torch.utils._python_dispatch import TorchDispatchMode

from sparse_bench.errors import ConfigError
from sparse_bench.row_sparse import (
    ELEMENTWISE,
    RowSparseUpdates,
    clip_gradient_norm,
    compiled,
    deferral,
    gradients,
    make_row_sparse,
    updates,
)
from sparse_bench.row_sparse.deferral import AdamDeferral

Make = Callable[[Any], Optimizer]
ROWS, DIM, TOKENS = 40, 3, 6

#: What the exact form can put off, and the tolerance in float64.
DEFERRED: dict[str, tuple[Make, float]] = {
    "sgd": (lambda p: SGD(p, 0.1), 1e-13),
    "sgd, weight decay": (lambda p: SGD(p, 0.1, weight_decay=0.01), 1e-13),
    "sgd, momentum": (lambda p: SGD(p, 0.1, momentum=0.9), 1e-13),
    "sgd, both": (lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=0.01), 1e-13),
    "sgd, dampening": (lambda p: SGD(p, 0.1, momentum=0.9, dampening=0.3, weight_decay=0.01), 1e-13),
    "sgd, nesterov": (lambda p: SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01), 1e-13),
    "adam": (lambda p: Adam(p, 0.01), 1e-9),
    "adam, large eps": (lambda p: Adam(p, 0.01, eps=1e-2), 1e-9),
    "adam, other betas": (lambda p: Adam(p, 0.01, betas=(0.8, 0.98)), 1e-9),
    "adam, no momentum": (lambda p: Adam(p, 0.01, betas=(0.0, 0.999)), 1e-9),
    "adamw": (lambda p: AdamW(p, 0.01, weight_decay=0.1), 1e-9),
    "rmsprop": (lambda p: RMSprop(p, 0.01), 1e-13),
    "rmsprop, momentum": (lambda p: RMSprop(p, 0.01, momentum=0.9, centered=True), 1e-12),
    "adagrad": (lambda p: Adagrad(p, 0.1, lr_decay=0.01, initial_accumulator_value=0.1), 1e-13),
}
#: What it cannot: every step is dense.
DENSE: dict[str, Make] = {
    "adam, weight decay": lambda p: Adam(p, 0.01, weight_decay=0.1),
    "adam, amsgrad": lambda p: Adam(p, 0.01, amsgrad=True),
    "adam, no short expansion": lambda p: Adam(p, 0.01, betas=(0.99, 0.9)),
    "rmsprop, weight decay": lambda p: RMSprop(p, 0.01, weight_decay=0.1),
    "adagrad, weight decay": lambda p: Adagrad(p, 0.1, weight_decay=0.1),
    "nadam": lambda p: NAdam(p, 0.01),
}


@dataclass
class Training:
    """A table and a dense layer on random batches: the mixed model of the tests."""

    model: nn.Sequential
    optimizer: Optimizer
    updates: RowSparseUpdates | None
    step: int = 0

    @classmethod
    def of(cls, make: Make, form: str, dtype: torch.dtype = torch.float64) -> "Training":
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(ROWS, DIM, dtype=dtype), nn.Linear(DIM, 4, dtype=dtype))
        if form != "dense":
            make_row_sparse(model, "0.weight", exact=form == "exact")
        optimizer = make(model.parameters())
        # A tolerance that makes the expansion of Adam short enough to be put to use within the test.
        tolerance = 1e-10 if dtype == torch.float64 else None
        updates = None if form == "dense" else RowSparseUpdates(optimizer, model, tolerance)
        return cls(model, optimizer, updates)

    def train(self, steps: int, clip: float | None = None, accumulate: int = 1, all_rows: bool = False) -> None:
        shares = 1.0 / torch.arange(1, ROWS + 1) ** 1.3  # some rows come often, some after hundreds of steps
        base = self.optimizer.param_groups[0].setdefault("base", self.optimizer.param_groups[0]["lr"])
        for _ in range(steps):
            self.step += 1
            draw = torch.Generator().manual_seed(self.step)
            self.optimizer.param_groups[0]["lr"] = base * (0.2 + self.step * 7 % 11 / 11)  # another one at every step
            for _ in range(accumulate):
                words = torch.arange(ROWS) if all_rows else torch.multinomial(shares, TOKENS, True, generator=draw)
                labels = torch.randint(4, words.shape, generator=draw)
                nn.functional.cross_entropy(self.model(words), labels).mul(5.0).backward()
            if clip is not None:
                clip_gradient_norm(self.model.parameters(), clip)
            self.optimizer.step()
            self.optimizer.zero_grad()

    def flushed(self) -> dict[str, Tensor]:
        """Weights and moments, all up to date."""
        if self.updates is not None:
            self.updates.flush()
        found = {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}
        for name, parameter in self.model.named_parameters():
            state = self.optimizer.state.get(parameter, {})
            found |= {f"{name}/{key}": value for key, value in state.items() if isinstance(value, Tensor)}
        return found


def assert_same(one: Training, other: Training, tolerance: float) -> None:
    expected, found = one.flushed(), other.flushed()
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=tolerance, rtol=tolerance, msg=lambda m, k=key: f"{k}: {m}")


CLIPPED = ("sgd, both", "adamw", "rmsprop", "adagrad")
#: One or two of each optimizer. All variants are slow.
VARIANTS = ("sgd, both", "sgd, nesterov", "adam, other betas", "rmsprop, momentum", "adagrad", "adamw, clipped")


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        pytest.param(name, clip, marks=[] if (f"{name}, clipped" if clip else name) in VARIANTS else pytest.mark.slow)
        for clip, names in ((None, DEFERRED), (0.5, CLIPPED))
        for name in names
    ],
)
def test_the_exact_form_has_the_dense_trajectory(name: str, clip: float | None) -> None:
    """Over 200 steps, each with another learning rate."""
    make, tolerance = DEFERRED[name]
    dense, exact = Training.of(make, "dense"), Training.of(make, "exact")
    for steps in (130, 70):  # looked at twice: what has been flushed goes on
        dense.train(steps, clip)
        exact.train(steps, clip)
        assert_same(dense, exact, tolerance)
    assert exact.updates is not None
    assert exact.updates.dense_steps["0.weight"] < 130, "otherwise nothing has been put off"


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_trajectory_without_compiled_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_library", lambda: None)
    make, tolerance = DEFERRED[name]
    dense, exact = Training.of(make, "dense"), Training.of(make, "exact")
    dense.train(150)
    exact.train(150)
    assert_same(dense, exact, tolerance)


@pytest.mark.parametrize("name", ["sgd, both", "adam", "adamw", "rmsprop, momentum"])
def test_in_single_precision_it_has_it_to_rounding(name: str) -> None:
    make, _ = DEFERRED[name]
    dense, exact = (Training.of(make, form, torch.float32) for form in ("dense", "exact"))
    dense.train(220)
    exact.train(220)
    assert_same(dense, exact, 1e-4)
    moved = (dense.flushed()["0.weight"] - Training.of(make, "dense", torch.float32).flushed()["0.weight"]).abs()
    assert moved.max() > 0.1


@pytest.mark.parametrize("name", DENSE)
def test_what_cannot_be_put_off_is_done_in_dense_steps_and_said(name: str, caplog: pytest.LogCaptureFixture) -> None:
    dense, exact = Training.of(DENSE[name], "dense"), Training.of(DENSE[name], "exact")
    assert "'0.weight' is updated densely" in caplog.text
    assert exact.updates is not None
    assert exact.updates.dense_steps == {"0.weight": None}
    dense.train(40, clip=0.5)
    exact.train(40, clip=0.5)
    assert_same(dense, exact, 1e-13)


def test_rows_are_up_to_date_when_they_are_read_and_only_then() -> None:
    make, _ = DEFERRED["sgd, momentum"]
    dense, exact = Training.of(make, "dense"), Training.of(make, "exact")
    dense.train(50)
    exact.train(50)
    behind = (dense.model[0].weight - exact.model[0].weight).abs().amax(1) > 1e-9
    assert behind.any()
    words = behind.nonzero()[:1].flatten()
    torch.testing.assert_close(exact.model[0](words), dense.model[0](words))
    still_behind = (dense.model[0].weight - exact.model[0].weight).abs().amax(1) > 1e-9
    assert int(still_behind.sum()) == int(behind.sum()) - 1


def test_the_pass_over_all_rows_that_bounds_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparse_bench.row_sparse.updates._CAPACITY", 7)
    for name in ("sgd, both", "adamw"):
        make, tolerance = DEFERRED[name]
        dense, exact = Training.of(make, "dense"), Training.of(make, "exact")
        dense.train(150)
        exact.train(150)
        assert_same(dense, exact, tolerance)


@pytest.mark.parametrize("name", ["sgd, both", "adamw"])
def test_a_gradient_gathered_over_several_batches(name: str) -> None:
    make, tolerance = DEFERRED[name]
    dense, exact = Training.of(make, "dense"), Training.of(make, "exact")
    dense.train(120, clip=1.0, accumulate=2)
    exact.train(120, clip=1.0, accumulate=2)
    assert_same(dense, exact, tolerance)


@pytest.mark.parametrize("name", ["sgd, both", "adam", "adagrad"])
@pytest.mark.parametrize("form", ["exact", "lazy"])
def test_where_the_host_does_not_see_the_rows_repeats_take_the_same_step(
    name: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, tolerance = DEFERRED[name]
    seen = Training.of(make, form)
    seen.train(120, clip=1.0)
    for module in (gradients, deferral, updates):
        monkeypatch.setattr(module, "readable_without_wait", lambda tensor: False)
    unseen = Training.of(make, form)
    unseen.train(120, clip=1.0)
    assert_same(seen, unseen, tolerance)


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_the_lazy_form_is_the_optimizer_itself_where_all_rows_are_touched(kind: type[Optimizer]) -> None:
    def make(parameters: Any) -> Optimizer:
        return kind(parameters, lr=0.01, weight_decay=0.01)  # type: ignore[call-arg]

    dense, lazy = Training.of(make, "dense"), Training.of(make, "lazy")
    dense.train(20, all_rows=True)
    lazy.train(20, all_rows=True)
    assert_same(dense, lazy, 1e-14)


def test_the_lazy_form_of_adam_is_sparse_adam() -> None:
    """But for ε, which torch adds to √v in one and to √v over its bias correction in the other."""
    lazy = Training.of(lambda p: Adam(p, 0.01, eps=1e-16), "lazy")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(ROWS, DIM, sparse=True), nn.Linear(DIM, 4)).double()
    model.load_state_dict(lazy.model.state_dict())
    table, rest = SparseAdam(model[0].parameters(), 0.01, eps=1e-16), Adam(model[1].parameters(), 0.01, eps=1e-16)

    class Both:
        param_groups = (table.param_groups + rest.param_groups)[:1]

        def step(self) -> None:
            rest.param_groups[0]["lr"] = table.param_groups[0]["lr"]
            table.step()
            rest.step()

        def zero_grad(self) -> None:
            model.zero_grad()

    other = Training(model, Both(), None)  # type: ignore[arg-type]
    lazy.train(200)
    other.train(200)
    for one, two in zip(lazy.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-9, rtol=0)
    moments = lazy.optimizer.state[lazy.model[0].weight]
    torch.testing.assert_close(moments["exp_avg"], table.state[model[0].weight]["exp_avg"])


def test_the_lazy_form_leaves_other_rows_alone() -> None:
    lazy = Training.of(lambda p: AdamW(p, 0.01, weight_decay=0.1), "lazy")
    lazy.train(30)
    before = lazy.model[0].weight.detach().clone()
    moments = {key: value.clone() for key, value in lazy.optimizer.state[lazy.model[0].weight].items()}
    lazy.model(torch.tensor([5, 9])).sum().backward()
    lazy.optimizer.step()
    changed = (lazy.model[0].weight != before).any(1)
    assert changed.nonzero().flatten().tolist() == [5, 9]
    after = lazy.optimizer.state[lazy.model[0].weight]["exp_avg"]
    assert (after != moments["exp_avg"]).any(1).nonzero().flatten().tolist() == [5, 9]


@pytest.mark.parametrize("form", ["exact", "lazy"])
@pytest.mark.parametrize("name", ["sgd, both", "adamw", "rmsprop, momentum", "adagrad"])
def test_resuming_goes_on_bit_for_bit(name: str, form: str, tmp_path: Any) -> None:
    make, _ = DEFERRED[name]
    whole = Training.of(make, form)
    whole.train(130)
    first = Training.of(make, form)
    first.train(115)
    torch.save({"model": first.model.state_dict(), "optimizer": first.optimizer.state_dict()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    second = Training.of(make, form)
    second.model.load_state_dict(state["model"])
    second.optimizer.load_state_dict(state["optimizer"])
    second.step = 115
    second.train(15)
    for key, value in whole.flushed().items():
        assert torch.equal(second.flushed()[key], value), key


def test_a_reset_forgets_moments_and_counts_from_one_again() -> None:
    make, tolerance = DEFERRED["adamw"]
    dense, exact = Training.of(make, "dense"), Training.of(make, "exact")
    for training in (dense, exact):
        training.train(120)
        if training.updates is not None:
            training.updates.reset()
        training.optimizer.state.clear()
        training.train(120)
    assert_same(dense, exact, tolerance)


def test_steps_without_a_gradient_for_the_table_are_no_steps_of_it() -> None:
    """torch's optimizers pass over a parameter without gradient: no decay, and its steps are not counted."""
    for form in ("dense", "exact", "lazy"):
        training = Training.of(lambda p: AdamW(p, 0.01), form)
        training.train(3)
        training.model[1](torch.ones(1, DIM, dtype=torch.float64)).sum().backward()
        before = training.flushed()
        training.optimizer.step()
        after = training.flushed()
        assert torch.equal(before["0.weight"], after["0.weight"])
        assert float(after["0.weight/step"]) == 3
        assert not torch.equal(before["1.weight"], after["1.weight"])


def test_a_dense_gradient_is_refused() -> None:
    exact = Training.of(lambda p: SGD(p, 0.1), "exact")
    (exact.model(torch.tensor([1])).sum() + exact.model[0].weight.square().sum()).backward()
    with pytest.raises(ConfigError, match=r"'0.weight' has a gradient for all of its rows.*tied decoder"):
        exact.optimizer.step()


def test_optimizers_that_mix_elements_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"LBFGS.*Valid choices: .*Adam.*SGD"):
        Training.of(lambda p: torch.optim.LBFGS(p), "lazy")


def test_nothing_changes_for_models_without_tables() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.LBFGS(model.parameters())
    RowSparseUpdates(optimizer, model).flush()
    assert not optimizer._optimizer_step_pre_hooks
    assert "row_sparse" not in optimizer.state_dict()


@pytest.mark.parametrize("make", [lambda p: SGD(p, 0.1, momentum=0.9), lambda p: Adam(p, 0.1), lambda p: Adagrad(p)])
@pytest.mark.parametrize("form", ["exact", "lazy"])
def test_everything_in_a_step_runs_on_the_meta_device(make: Make, form: str) -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Embedding(ROWS, DIM, padding_idx=0), nn.Linear(DIM, 4))
    make_row_sparse(model, "0.weight", exact=form == "exact")
    optimizer = make(model.parameters())
    table_updates = RowSparseUpdates(optimizer, model)
    early = table_updates.dense_steps["0.weight"]
    assert early is not None
    for _ in range(early + 3):
        model(torch.zeros(2, 3, dtype=torch.int64, device="meta")).sum().backward()
        clip_gradient_norm(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    table_updates.flush()
    assert model[0].weight.device.type == "meta"


def test_a_loss_scaler_leaves_out_steps_that_overflow() -> None:
    dense, exact = (
        Training.of(lambda p: AdamW(p, 0.01, fused=True), form, torch.float32) for form in ("dense", "exact")
    )
    for training in (dense, exact):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
        for step in range(130):
            factor = float("inf") if step % 10 == 9 else 1.0
            words = torch.tensor([step % ROWS, step * 7 % ROWS])
            scaler.scale(training.model(words).square().sum() * factor).backward()
            scaler.unscale_(training.optimizer)
            clip_gradient_norm(training.model.parameters(), 1.0)
            scaler.step(training.optimizer)
            scaler.update()
            training.optimizer.zero_grad()
    assert float(exact.flushed()["0.weight/step"]) == 117
    assert_same(dense, exact, 1e-5)


def test_the_expansion_of_adam_keeps_its_promise() -> None:
    """The movement over k skipped steps against their sum, element by element, from √v far below ε to far above."""
    group = {"betas": (0.9, 0.999), "eps": 1e-3}
    like = torch.zeros(1, dtype=torch.float64)
    root = torch.logspace(-9, 3, 40, dtype=torch.float64)[None]
    for tolerance in (1e-6, 1e-9):
        found = AdamDeferral(group, 0.0, 400, like, tolerance)
        start = found.dense_steps
        found.restart(start)
        expected = torch.zeros_like(root)
        for skipped in range(1, 301):
            step = start + skipped
            found.record(1.0)
            scale = (0.999**skipped / (1 - 0.999**step)) ** 0.5
            expected += 0.9**skipped / (1 - 0.9**step) / (scale * root + 1e-3)
            weight = torch.zeros_like(root)
            state = {"exp_avg": torch.ones_like(root), "exp_avg_sq": root**2}
            found.apply(weight, state, torch.tensor([start]))
            assert ((-weight - expected) / expected).abs().max() < 10 * tolerance
            torch.testing.assert_close(state["exp_avg"], torch.full_like(root, 0.9**skipped))


@pytest.mark.parametrize("name", ["sgd, both", "adam", "adamw", "rmsprop, momentum"])
def test_a_step_copies_no_number_from_the_host(name: str) -> None:
    """On a GPU such a copy waits for all work before it."""
    make, _ = DEFERRED[name]
    weight = nn.Parameter(torch.zeros(ROWS, DIM, dtype=torch.float64))
    optimizer = make([weight])
    deferred = deferral.deferral(optimizer, optimizer.param_groups[0], weight, 16)
    assert isinstance(deferred, deferral.Deferral)
    copies: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if "copy" in str(function):
                copies.append(str(function))
            return function(*args, **(kwargs or {}))

    with Watch():
        deferred.open_row(torch.zeros(8, dtype=torch.float64))
    assert not copies, "row[0] = number"
