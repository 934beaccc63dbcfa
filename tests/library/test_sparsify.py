"""A user's own model in a user's own loop."""

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparse_bench as sb
from sparse_bench.errors import ConfigError
from sparse_bench.library import SparseTraining

STEPS = 12


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))


def batch(number: int) -> Tensor:
    return torch.randn(5, 12, generator=torch.Generator().manual_seed(number))


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return (model(x) - x[:, :4].sin()).square().mean()


def adam(model: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), lr=0.02)


def rigl(**settings: Any) -> sb.RigL:
    return sb.RigL(**{"density": 0.4, "layers": ["0.weight", "2.weight"], "interval": 3, **settings})


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: range = range(STEPS), parts: int = 1, clip: float = 0.0
) -> list[float]:
    losses = []
    for step in steps:
        for part in range(parts):
            value = loss(model, batch(parts * step + part)) / parts
            value.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.item())
    return losses


def masks(sparse: SparseTraining) -> dict[str, Tensor]:
    return {name: weight.mask.clone() for name, weight in sparse.scheme.weights.items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("execution", ["masked", "csr", "kernel", "auto"])
def test_a_loop_without_another_word_trains_what_exists_and_nothing_else(execution: str) -> None:
    model = mlp()
    optimizer = adam(model)
    sparse = sb.sparsify(model, optimizer, rigl(execution=execution), steps=STEPS)
    first, counts = masks(sparse), [weight.active for weight in sparse.scheme.weights.values()]
    before = {name: weight.dense().clone() for name, weight in sparse.scheme.weights.items()}
    losses = train(model, optimizer, range(60))
    assert losses[-1] < losses[0]
    assert not same(masks(sparse), first), "RigL has rewired"
    assert [weight.active for weight in sparse.scheme.weights.values()] == counts
    for name, weight in sparse.scheme.weights.items():
        assert weight.dense()[~weight.mask].eq(0).all()
        assert not torch.equal(weight.dense(), before[name]), "an optimizer made before moves the sparse weights"
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in model.parameters()}


def test_every_execution_gives_the_same_training() -> None:
    found = {}
    for execution in ("masked", "csr", "kernel"):
        model = mlp()
        optimizer = adam(model)
        sparse = sb.sparsify(model, optimizer, rigl(execution=execution), steps=STEPS)
        found[execution] = train(model, optimizer, parts=2, clip=0.05), masks(sparse)
    for execution in ("csr", "kernel"):
        assert found[execution][0] == pytest.approx(found["masked"][0], rel=1e-4)
        assert same(found[execution][1], found["masked"][1])


def test_accumulated_gradients_are_ranked_as_their_sum() -> None:
    """Two halves of a batch give the topology of the whole one; the last half alone gives another."""
    topologies = []
    for parts in (1, 2):
        model = mlp().double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sparse = sb.sparsify(model, optimizer, rigl(interval=1), steps=2)
        halves = [batch(0).double(), batch(1).double()]
        for x in [torch.cat(halves)] if parts == 1 else halves:
            (loss(model, x) / parts).backward()
        optimizer.step()
        topologies.append(masks(sparse))
    assert same(*topologies)


def test_clipping_sees_the_existing_weights_alone() -> None:
    model = mlp()
    optimizer = adam(model)
    sparse = sb.sparsify(model, optimizer, rigl(), steps=STEPS)
    loss(model, batch(0)).backward()
    for name, weight in sparse.scheme.weights.items():
        gradient = model.get_parameter(name).grad
        assert gradient is not None
        assert gradient[~weight.mask].eq(0).all()


def test_a_gradient_written_by_hand_is_masked_before_the_step() -> None:
    model = mlp()
    optimizer = adam(model)
    sparse = sb.sparsify(model, optimizer, sb.Random(density=0.4), steps=STEPS)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for weight in sparse.scheme.weights.values():
        assert weight.dense()[~weight.mask].eq(0).all()


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_scaler_leaves_out_changes_no_topology(fused: bool) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02, fused=fused)
    sparse = sb.sparsify(model, optimizer, rigl(interval=1), steps=STEPS)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    first = masks(sparse)
    for number, factor in enumerate((float("inf"), 1.0)):
        scaler.scale(loss(model, batch(number)) * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert same(masks(sparse), first) is (number == 0)
    assert all(weight.dense().isfinite().all() for weight in sparse.scheme.weights.values())


@pytest.mark.parametrize("execution", ["csr", "kernel"])
def test_checkpoints_load_across_executions_and_into_exported_models(execution: str) -> None:
    model, other = mlp(), mlp()
    sparse = sb.sparsify(model, adam(model), rigl(execution="masked"), steps=STEPS)
    its = sb.sparsify(other, adam(other), rigl(execution=execution), steps=STEPS, seed=1)
    assert not same(masks(sparse), masks(its))
    other.load_state_dict(model.state_dict())
    assert same(masks(sparse), masks(its))
    x = batch(0)
    torch.testing.assert_close(other(x), model(x))
    third = mlp()
    again = sb.sparsify(third, adam(third), rigl(), steps=STEPS, seed=2)
    third.load_state_dict(other.state_dict())
    assert same(masks(again), masks(its))
    torch.testing.assert_close(third(x), model(x))
    fourth = mlp()
    loaded = sb.sparsify(fourth, adam(fourth), rigl(), steps=STEPS, seed=3)
    loaded.load_exported(its.export().state_dict())
    assert same(masks(loaded), masks(its))
    mlp().load_state_dict(its.export().state_dict())  # names and shapes of the plain model


LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], Tensor]]] = {
    "LSTM": (lambda: nn.LSTM(6, 8), lambda m: m(torch.ones(3, 2, 6))[0]),
    "GRU": (lambda: nn.GRU(6, 8, num_layers=2, bidirectional=True), lambda m: m(torch.ones(3, 2, 6))[0]),
    "Embedding": (lambda: nn.Embedding(9, 6), lambda m: m(torch.arange(9))),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(8, 2), lambda m: m(*[torch.ones(3, 2, 8)] * 3)[0]),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0), lambda m: m(torch.ones(3, 2, 8))),
}


@pytest.mark.parametrize("execution", ["masked", "auto"])
@pytest.mark.parametrize("layer", LAYERS)
def test_layers_of_torch(layer: str, execution: str) -> None:
    make, call = LAYERS[layer]
    torch.manual_seed(0)
    model = nn.ModuleDict({"layer": make()})
    optimizer = adam(model)
    scheme = rigl(layers=["*weight*"], execution=execution, interval=2)
    sparse = sb.sparsify(model, optimizer, scheme, steps=6)
    for _ in range(6):
        call(model["layer"]).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    plain = sparse.export()
    for one in (model, plain):
        one.eval()
    with torch.no_grad():  # where torch's fast paths read weights as matrices
        torch.testing.assert_close(call(plain["layer"]), call(model["layer"]))  # type: ignore[index]
    assert not any(name.endswith("_mask") for name in plain.state_dict())
    assert type(plain["layer"]) is type(make())  # type: ignore[index]


def test_an_export_in_csr_computes_the_same() -> None:
    model = mlp()
    optimizer = adam(model)
    sparse = sb.sparsify(model, optimizer, rigl(execution="kernel"), steps=STEPS)
    train(model, optimizer)
    plain = sparse.export("csr")
    assert plain[0].weight.layout == torch.sparse_csr  # type: ignore[index]
    assert plain[4].weight.layout == torch.strided  # type: ignore[index]
    torch.testing.assert_close(plain(batch(3)), model(batch(3)))
    with pytest.raises(ConfigError, match="Valid choices: csr, dense"):
        sparse.export("coo")  # type: ignore[arg-type]


def test_copies_and_compiled_models() -> None:
    model = mlp()
    optimizer = adam(model)
    sparse = sb.sparsify(model, optimizer, rigl(), steps=STEPS)
    average = torch.optim.swa_utils.AveragedModel(model)
    compiled = torch.compile(model, backend="eager")
    train(compiled, optimizer, range(4))  # type: ignore[arg-type]
    average.update_parameters(model)
    copied = copy.deepcopy(model)
    assert torch.equal(copied(batch(0)), model(batch(0)))
    assert sparse.steps == 4


def test_a_scheme_by_epochs_and_an_optimizer_with_state() -> None:
    model = mlp()
    optimizer = adam(model)
    train(model, optimizer, range(2))  # moments of the dense model
    with pytest.raises(ConfigError, match="SET rewires between epochs: give steps_per_epoch"):
        sb.sparsify(model, optimizer, sb.SET(density=0.3), steps=STEPS)
    sparse = sb.sparsify(model, optimizer, sb.SET(density=0.3, execution="kernel"), steps=STEPS, steps_per_epoch=4)
    for name, weight in sparse.scheme.weights.items():
        moment = optimizer.state[model.get_parameter(name)]["exp_avg"]
        assert moment.shape == (weight.active,)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    seen = [sparse.report()]
    for epoch in range(3):
        train(model, optimizer, range(4 * epoch, 4 * epoch + 4))
        scheduler.step()
        seen.append(sparse.report())
    assert [int(report["rewirings"][0]) for report in seen] == [0, 1, 2, 3]
    assert list(seen[1]["weights"]) == list(seen[0]["weights"])
    assert all(seen[3]["weights"] < seen[0]["weights"]), "the last removal"
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.02 * 0.9**3)


def test_the_report() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False))
    sparse = sb.sparsify(model, adam(model), sb.Random(density=0.25), steps=1)
    weight = sparse.scheme.weights["0.weight"]
    (row,) = sparse.report().to_dict("records")
    assert (row["layer"], row["shape"], row["nominal_density"], row["density"]) == ("0.weight", "4x4", 0.25, 0.25)
    assert row["weights"] == 4
    assert row["dead_inputs"] == 4 - int(weight.mask.any(0).sum())
    assert row["rewirings"] == 0


def test_structured_schemes_replace_layers_and_are_exported() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"lstm": nn.LSTM(24, 32)})
    optimizer = adam(model)
    sparse = sb.sparsify(
        model, optimizer, sb.BlockDiagonal(layers=["lstm.*"], mode="sparse_all", fraction=0.5), steps=3
    )
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}
    x = torch.ones(3, 2, 24)
    before = model["lstm"](x)[0].detach().clone()
    model["lstm"](x)[0].sum().backward()
    optimizer.step()
    assert not torch.equal(model["lstm"](x)[0], before)
    plain: Any = sparse.export()
    assert type(plain["lstm"]) is nn.LSTM
    torch.testing.assert_close(plain["lstm"](x)[0], model["lstm"](x)[0])


def test_block_diagonal_linear_layers_take_over_a_trained_model() -> None:
    """Moments of the full matrices do not fit the blocks; biases and the dense layer keep theirs."""
    model = mlp()
    optimizer = adam(model)
    train(model, optimizer, range(4))
    moment = optimizer.state[model[0].bias]["exp_avg"].clone()
    scheme = sb.BlockDiagonal(mode="blocks", blocks=3, permute=True, layers=["0.*", "2.*"])
    sparse = sb.sparsify(model, optimizer, scheme, steps=40)
    assert torch.equal(optimizer.state[model[0].bias]["exp_avg"], moment)
    assert model[0].weight not in optimizer.state
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert {*map(id, held)} == {*map(id, model.parameters())}
    losses = train(model, optimizer, range(4, 44))
    assert sum(losses[-5:]) < sum(losses[:5])
    plain = sparse.export()
    assert [type(layer) for layer in plain] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    torch.testing.assert_close(plain(batch(0)), model(batch(0)))
    assert int((plain[0].weight != 0).sum()) == 12 * 16 // 3 == sparse.scheme.weights["0.weight"].active


def test_an_encoder_layer_of_torch_evaluates_with_blocks() -> None:
    """Its fast path would read the blocks as matrices."""
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True), 1)
    scheme = sb.BlockDiagonal(mode="blocks", blocks=4, layers=["*linear*"])
    sparse = sb.sparsify(model, adam(model), scheme, steps=1)
    x = torch.randn(2, 3, 16)
    expected = model(x)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), expected)
        torch.testing.assert_close(sparse.export().eval()(x), expected)


def test_what_cannot_work_is_refused_and_nothing_is_changed() -> None:
    def refused(model: nn.Module, match: str, scheme: Any = None, optimizer: Any = None, **settings: Any) -> None:
        names = list(model.state_dict())
        with pytest.raises(ConfigError, match=match):
            sb.sparsify(model, optimizer or adam(model), scheme or rigl(), **{"steps": 5, **settings})
        assert list(model.state_dict()) == names

    refused(mlp(), "steps = 0", steps=0)
    refused(mlp(), "matches no weight matrix", rigl(layers=["*attention*"]))
    refused(mlp(), "The optimizer does not hold '0.weight'", optimizer=adam(mlp()))
    tied = mlp()
    tied.append(nn.Linear(12, 16))
    tied[5].weight = tied[0].weight
    refused(tied, "'0.weight' is tied to 5.weight")
    refused(nn.DataParallel(mlp()), "is a DataParallel: call sparsify first")
    used = rigl()
    model = mlp()
    sb.sparsify(model, adam(model), used, steps=5)
    refused(mlp(), "attached to a model already", used)
    refused(model, "already has a topology")
    with pytest.raises(ConfigError, match=r"'density' = 2.* does not fit"):
        sb.RigL(density=2)


def test_names_are_listed_and_the_import_is_light() -> None:
    assert {"RigL", "SET", "GMP", "Random"} <= set(sb.schemes())
    assert all(issubclass(getattr(sb, name), sb.Scheme) for name in sb.schemes())
    assert {"sparsify", "RigL"} <= set(dir(sb))
    with pytest.raises(AttributeError, match="no attribute 'rigl'"):
        sb.rigl  # noqa: B018
    code = "import sys, sparse_bench; print([m for m in ('torch', 'hydra', 'wandb', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    used = "import sys, sparse_bench; sparse_bench.sparsify, sparse_bench.RigL; print('hydra' in sys.modules, 'wandb' in sys.modules)"  # noqa: E501
    assert (
        subprocess.run([sys.executable, "-c", used], capture_output=True, text=True, check=True).stdout
        == "False False\n"
    )
