"""Loops, optimizers and copies in which a sparse model must stay sparse and learn the same topology."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparse_bench as sb
from sparse_bench.errors import ConfigError
from tests.library.test_sparsify import adam, batch, loss, masks, mlp, rigl, same, train


def outside(sparse: sb.SparseTraining) -> int:
    """Weights other than zero outside the topology."""
    return sum(int(weight.dense()[~weight.mask].count_nonzero()) for weight in sparse.scheme.weights.values())


@pytest.mark.parametrize("execution", ["masked", "kernel"])
def test_growth_sees_the_gradients_of_a_closure_and_of_autograd_grad(execution: str) -> None:
    def closure(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
        def compute() -> float:
            optimizer.zero_grad()
            value = loss(model, x)
            value.backward()
            return value.item()

        optimizer.step(compute)

    def by_hand(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
        parameters = list(model.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss(model, x), parameters), strict=True):
            parameter.grad = gradient
        optimizer.step()

    def ordinary(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
        optimizer.zero_grad()
        loss(model, x).backward()
        optimizer.step()

    found = []
    for step in (ordinary, closure, by_hand):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        sparse = sb.sparsify(model, optimizer, rigl(execution=execution, interval=1), steps=20)
        for number in range(4):
            step(model, optimizer, batch(number))
        found.append(masks(sparse))
    assert same(found[0], found[1])
    assert same(found[0], found[2])


def test_growth_sees_row_sparse_gradients() -> None:
    found = []
    for row_sparse in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(10, 8, sparse=row_sparse))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sparse = sb.sparsify(model, optimizer, rigl(layers=["0.weight"], interval=1), steps=20)
        for _ in range(3):
            for part in range(2):
                (model(torch.tensor([part, 2, 5])) - 1 - part).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        found.append(masks(sparse))
    assert same(*found)


def _unpickled(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


@pytest.mark.parametrize("copied", [copy.deepcopy, _unpickled])
def test_a_copy_of_a_masked_model_trains_sparsely(copied: Callable[[nn.Module], Any]) -> None:
    model = mlp()
    sparse = sb.sparsify(model, adam(model), rigl(), steps=20)
    other = copied(model)
    train(other, adam(other))
    assert other[0].weight[~other[0].weight_mask].eq(0).all()
    assert not torch.equal(other[0].weight, model.get_parameter("0.weight"))
    plain: Any = sparse.export()
    train(plain, adam(plain))
    assert plain[0].weight.count_nonzero() > sparse.scheme.weights["0.weight"].active, "an export is an ordinary model"


def test_weights_outside_stay_zero() -> None:
    class Mixing(torch.optim.Optimizer):
        """Its step of one entry depends on the others."""

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for parameter in self.param_groups[0]["params"]:
                parameter.data -= 0.1 * parameter.grad.mean()

    model = mlp()
    optimizer = Mixing(model.parameters(), {})
    sparse = sb.sparsify(model, optimizer, rigl(), steps=20)
    train(model, optimizer, range(2))
    assert outside(sparse) == 0
    model.load_state_dict(mlp().state_dict(), strict=False)
    assert outside(sparse) == 0
    frozen = mlp()
    frozen.get_parameter("0.weight").requires_grad_(False)
    sparse = sb.sparsify(frozen, adam(frozen), sb.Random(density=0.4), steps=20)
    frozen.get_parameter("0.weight").requires_grad_(True)
    train(frozen, adam(frozen))  # another optimizer
    assert outside(sparse) == 0


@pytest.mark.parametrize("execution", ["masked", "kernel"])
@pytest.mark.parametrize("order", ["model optimizer sparse", "sparse model optimizer", "optimizer sparse model"])
def test_states_load_in_any_order(order: str, execution: str) -> None:
    def begin() -> dict[str, Any]:
        model = mlp()
        optimizer = adam(model)
        scheme = sb.GMP(density=0.2, interval=2, execution=execution)
        return {
            "model": model,
            "optimizer": optimizer,
            "sparse": sb.sparsify(model, optimizer, scheme, steps=30),
        }

    whole = begin()
    train(whole["model"], whole["optimizer"], range(15))
    saved = {key: copy.deepcopy(value.state_dict()) for key, value in whole.items()}
    again = begin()
    for key in order.split():
        again[key].load_state_dict(saved[key])
    for one in (whole, again):
        train(one["model"], one["optimizer"], range(15, 30))
    assert same(masks(whole["sparse"]), masks(again["sparse"]))


@pytest.mark.parametrize("execution", ["masked", "kernel"])
def test_training_goes_on_after_an_exported_state(execution: str) -> None:
    model = mlp()
    optimizer = adam(model)
    sparse = sb.sparsify(model, optimizer, sb.Random(density=0.4, execution=execution), steps=20)
    train(model, optimizer)
    other = mlp()
    state = sb.sparsify(other, adam(other), sb.Random(density=0.2), steps=20, seed=1).export().state_dict()
    sparse.load_exported(state)
    train(model, optimizer)
    assert outside(sparse) == 0
    assert [w.active for w in sparse.scheme.weights.values()] == [38, 26, 6]


def test_groups_of_an_optimizer_keep_their_kinds_of_parameters() -> None:
    model = nn.ModuleDict({"lstm": nn.LSTM(24, 32)})
    kinds = [[p for p in model.parameters() if p.dim() == dim] for dim in (2, 1)]
    optimizer = torch.optim.AdamW([{"params": kinds[0]}, {"params": kinds[1], "weight_decay": 0.0}])
    sb.sparsify(model, optimizer, sb.BlockDiagonal(layers=["lstm.*"], mode="sparse_all", fraction=0.5), steps=3)
    weights, biases = (group["params"] for group in optimizer.param_groups)
    assert {p.dim() for p in weights} == {2}
    assert {p.dim() for p in biases} == {1}
    assert len({*weights, *biases}) == len(weights) + len(biases) == len(list(model.parameters()))


def test_factored_moments_begin_anew() -> None:
    model = mlp()
    optimizer = torch.optim.Adafactor(model.parameters())
    train(model, optimizer, range(1))
    sb.sparsify(model, optimizer, rigl(execution="kernel"), steps=20)
    train(model, optimizer)


def test_an_encoder_with_padding_in_evaluation() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
    model = nn.ModuleDict({"encoder": nn.TransformerEncoder(layer, 2)})
    sb.sparsify(model, adam(model), sb.Random(density=0.4, layers=["*linear*"], execution="kernel"), steps=5)
    x, padding = torch.randn(3, 5, 8), torch.zeros(3, 5, dtype=torch.bool)
    padding[0, 3:] = True
    trained = model["encoder"](x, src_key_padding_mask=padding)
    with torch.no_grad():
        evaluated = model.eval()["encoder"](x, src_key_padding_mask=padding)  # type: ignore[index]
    torch.testing.assert_close(evaluated[~padding], trained[~padding])


def test_an_export_has_the_type_of_the_model() -> None:
    model = mlp()
    sparse = sb.sparsify(model, adam(model), rigl(execution="kernel"), steps=5)
    model.double()
    assert {p.dtype for p in sparse.export().parameters()} == {torch.float64}


def test_a_scheme_by_epochs_rests_after_the_last_step() -> None:
    model = mlp()
    optimizer = adam(model)
    sparse = sb.sparsify(model, optimizer, sb.SET(density=0.3), steps=6, steps_per_epoch=3)
    train(model, optimizer, range(6))
    last = masks(sparse)
    train(model, optimizer, range(12))
    assert same(masks(sparse), last)


def test_refusals_come_before_any_change() -> None:
    model: nn.Module = nn.Sequential(nn.Linear(6, 6), nn.LSTM(6, 4, bidirectional=True))
    with pytest.raises(ConfigError, match="one layer, one direction and no projection"):
        sb.sparsify(model, adam(model), sb.Random(density=0.3, execution="kernel"), steps=3)
    assert type(model.get_submodule("0")) is nn.Linear
    model = mlp()
    model.get_parameter("2.weight").requires_grad_(False)
    names = list(model.state_dict())
    with pytest.raises(ConfigError, match=r"'2.weight' is frozen, and RigL grows"):
        sb.sparsify(model, adam(model), rigl(), steps=3)
    assert list(model.state_dict()) == names
    matrices = nn.Sequential(nn.Linear(6, 6, bias=False))
    with pytest.raises(ConfigError, match="Muon works on matrices"):
        sb.sparsify(
            matrices,
            torch.optim.Muon(matrices.parameters()),
            sb.Random(density=0.3, execution="kernel"),
            steps=3,
        )


def test_pruning_by_new_parameters_is_refused_in_data_parallel_training(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mlp()
    optimizer = adam(model)
    sb.sparsify(model, optimizer, sb.GMP(density=0.2, interval=1, execution="kernel"), steps=5)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ConfigError, match="does not average"):
        train(model, optimizer, range(1))
