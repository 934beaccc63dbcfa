"""What a loop can do to a sparse model behind its back: initialise, average, clip between passes, be refused."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import sparse_bench as sb
from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.held import HeldWeight
from tests.library.test_sparsify import adam, batch, loss, mlp, rigl, same, train


def outside(sparse: sb.SparseTraining) -> int:
    """Weights other than zero outside the topology."""
    return sum(int(weight.dense()[~weight.mask].count_nonzero()) for weight in sparse.scheme.weights.values())


def moving_average(by_hand: bool, average: nn.Module, model: nn.Module) -> None:
    """One step of an exponential average, by torch or as people write it."""
    if not by_hand:
        average.update_parameters(model)  # type: ignore[operator]
        return
    for mine, its in zip(average.parameters(), model.parameters(), strict=True):
        mine.data.mul_(0.5).add_(its.data, alpha=0.5)


@pytest.mark.parametrize("by_hand", [False, True])
def test_an_average_of_weights_that_moved_is_refused_and_one_of_exports_is_right(by_hand: bool) -> None:
    def average_of(model: nn.Module) -> Any:
        return copy.deepcopy(model) if by_hand else AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))

    found: dict[str, list[Tensor]] = {}
    for execution in ("masked", "kernel"):
        model = mlp()
        optimizer = adam(model)
        sparse = sb.sparsify(model, optimizer, rigl(execution=execution), steps=12)
        average, of_exports = average_of(model), average_of(sparse.export())
        for step in range(9):
            train(model, optimizer, range(step, step + 1))
            moving_average(by_hand, average, model)
            moving_average(by_hand, of_exports, sparse.export())
            if step == 1:  # no rewiring yet
                torch.testing.assert_close(average(batch(0)), of_exports(batch(0)))
        found[execution] = [parameter.detach() for parameter in of_exports.parameters()]
        if execution == "masked":
            torch.testing.assert_close(average(batch(0)), of_exports(batch(0)))
            continue
        for use in (
            lambda m: m(batch(0)),
            lambda m: m.state_dict(),
            copy.deepcopy,
            lambda m: torch.save(m, io.BytesIO()),
        ):
            with pytest.raises(ConfigError, match=r"Average exported models instead"):
                use(average)
    for masked, kernel in zip(found["masked"], found["kernel"], strict=True):
        torch.testing.assert_close(kernel, masked)


@pytest.mark.parametrize("loaded", [False, True])
def test_other_copies_of_a_rewired_model_may_be_used(loaded: bool) -> None:
    model = mlp()
    optimizer = adam(model)
    sb.sparsify(model, optimizer, rigl(execution="kernel"), steps=12)
    best, own = copy.deepcopy(model), copy.deepcopy(model)
    expected = best(batch(0)).detach()
    train(own, adam(own), range(4))  # a training of its own
    trained = own(batch(0)).detach()
    train(model, optimizer)
    assert torch.equal(best(batch(0)), expected)
    assert torch.equal(own(batch(0)), trained)
    if loaded:
        best.load_state_dict(model.state_dict())
        assert torch.equal(best(batch(0)), model(batch(0)))
    best.double()
    copy.deepcopy(best)(batch(0).double())
    train(own, adam(own), range(2))


SETTINGS: dict[str, dict[str, Any]] = {
    "RigL": {"interval": 2},
    "STE": {"end": 0},
    "Powerpropagation": {"interval": 1, "begin": 0.0},
}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("scheme", SETTINGS)
def test_weights_that_are_initialised_anew_keep_their_topology(scheme: str, late: bool) -> None:
    def initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear) and late:
            nn.init.normal_(module.weight)
        elif isinstance(module, nn.Linear):
            module.weight.data.normal_()

    model = mlp()
    optimizer = adam(model)
    settings = SETTINGS[scheme]
    sparse = sb.sparsify(model, optimizer, getattr(sb, scheme)(density=0.4, **settings), steps=12)
    if late:
        train(model, optimizer, range(4))
    torch.manual_seed(1)
    model.apply(initialise)
    fresh = mlp()
    torch.manual_seed(1)
    fresh.apply(initialise)
    if not late:
        model(batch(0))
        assert outside(sparse) == 0, "before the first forward pass"
        for name, weight in sparse.scheme.weights.items():
            new = fresh.get_parameter(name)
            torch.testing.assert_close(weight.dense(), torch.where(weight.mask, new, 0))
            if isinstance(weight, HeldWeight) and scheme == "STE":
                torch.testing.assert_close(weight.full, new.detach())
    train(model, optimizer, range(4, 6))
    assert outside(sparse) == 0


def test_two_forward_passes_before_the_first_step() -> None:
    """Nothing is written between them, so the backward pass of the first still finds its weights."""
    model = mlp()
    optimizer = adam(model)
    sb.sparsify(model, optimizer, rigl(), steps=12)
    (loss(model, batch(0)) + loss(model, batch(1))).backward()
    optimizer.step()


@pytest.mark.parametrize("clip", [0.01, None])
def test_clipping_between_the_passes_of_a_step(clip: float | None) -> None:
    """What the first pass left is scaled in all places alike. Clearing the gradients instead leaves nothing."""
    found = []
    for execution in ("masked", "kernel", "by hand"):
        model = mlp().double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scheme = rigl(interval=1, execution="masked" if execution == "by hand" else execution)
        sparse = sb.sparsify(model, optimizer, scheme, steps=12)
        if execution == "by hand":
            found.append(_sums_by_hand(model, sparse, clip))
        for part in range(2):
            loss(model, batch(part).double()).backward()
            if part == 0 and clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            elif part == 0:
                optimizer.zero_grad(set_to_none=False)
        if execution != "by hand":
            found.append({name: weight.dense_gradient() for name, weight in sparse.scheme.weights.items()})
    masked, kernel, expected = found
    for name, gradient in expected.items():
        torch.testing.assert_close(masked[name], gradient)
        torch.testing.assert_close(kernel[name].double(), gradient, rtol=1e-5, atol=1e-7)


def _sums_by_hand(model: nn.Module, sparse: sb.SparseTraining, clip: float | None) -> dict[str, Any]:
    """The dense gradient of each sparse layer, the first pass scaled by the factor that clipping applies to it."""
    parameters = list(model.parameters())
    passes = [torch.autograd.grad(loss(model, batch(part).double()), parameters) for part in range(2)]
    masked = [
        gradient * sparse.scheme.weights[name].mask if name in sparse.scheme.weights else gradient
        for (name, _), gradient in zip(model.named_parameters(), passes[0], strict=True)
    ]
    norm = torch.stack([gradient.norm() for gradient in masked]).norm()
    factor = 0.0 if clip is None else min(1.0, clip / (float(norm) + 1e-6))
    sums = [factor * one + other for one, other in zip(*passes, strict=True)]
    names = [name for name, _ in model.named_parameters()]
    return {name: value for name, value in zip(names, sums, strict=True) if name in sparse.scheme.weights}


class Everything:
    """All of a model and its optimizer that a refusal must leave alone."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.state = {name: value.clone() for name, value in model.state_dict().items()}
        self.modules = list(model.modules())
        self.attributes = [{k: v for k, v in vars(m).items() if not isinstance(v, dict)} for m in self.modules]
        self.hooks = [[list(v) for k, v in vars(m).items() if "hooks" in k] for m in self.modules]
        self.parameters = [(id(p), p.requires_grad, bool(p._post_accumulate_grad_hooks)) for p in model.parameters()]
        self.groups = [{**g, "params": [id(p) for p in g["params"]]} for g in optimizer.param_groups]
        self.moments = {id(p): {k: id(v) for k, v in s.items()} for p, s in optimizer.state.items()}
        self.steps = [len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks)]

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Everything)
        mine, its = ({k: v for k, v in vars(one).items() if k != "state"} for one in (self, other))
        return mine == its and same(self.state, other.state)


REFUSED: dict[str, tuple[Any, str]] = {
    "removes nothing": (lambda: sb.Random(density=0.999, layers=["0.weight"]), "removes no weight"),
    "kernel": (lambda: sb.Random(density=0.999, layers=["0.weight"], execution="kernel"), "removes no weight"),
    "held": (lambda: sb.STE(density=0.999, layers=["0.weight"]), "removes no weight"),
    "rooted": (lambda: sb.Powerpropagation(density=0.999, layers=["0.weight"]), "removes no weight"),
    "drawn anew": (
        lambda: sb.Random(density=0.999, layers=["0.weight"], width_ratio=2.0, sigma=0.1),
        "removes no weight",
    ),
    "optimizer": (lambda: rigl(new_weight_adam="own_step", execution="kernel"), "about Adam's bias correction"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_leaves_model_optimizer_and_scheme_as_they_were(kind: str) -> None:
    make, match = REFUSED[kind]
    model = mlp()
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) if kind == "optimizer" else adam(model)
    train(model, optimizer, range(2))
    before = Everything(model, optimizer)
    scheme = make()
    for _ in range(2):  # the scheme is as new, too
        with pytest.raises(ConfigError, match=match):
            sb.sparsify(model, optimizer, scheme, steps=900)
    assert Everything(model, optimizer) == before
    sparse = sb.sparsify(model, optimizer, rigl(), steps=12)
    train(model, optimizer)
    assert outside(sparse) == 0


@pytest.mark.parametrize(("first", "second"), [("masked", "masked"), ("kernel", "kernel"), ("masked", "kernel")])
def test_two_calls_own_their_layers(first: str, second: str) -> None:
    model = mlp()
    optimizer = adam(model)
    one = sb.sparsify(model, optimizer, rigl(layers=["0.weight"], execution=first), steps=12)
    before = Everything(model, optimizer)
    for selected in (["0.weight"], ["*weight"], ["default"]):
        with pytest.raises(ConfigError, match=r"'0.weight' already has a topology"):
            sb.sparsify(model, optimizer, rigl(layers=selected, execution=second), steps=12)
    assert Everything(model, optimizer) == before
    other = sb.sparsify(model, optimizer, sb.Random(density=0.3, layers=["2.weight"], execution=second), steps=12)
    train(model, optimizer)
    assert list(one.scheme.weights) == ["0.weight"]
    assert list(other.scheme.weights) == ["2.weight"]
    assert outside(one) == outside(other) == 0
    exported: Any = one.export()
    assert type(exported[2]) is type(model[2])
    train(exported, adam(exported))
    assert type(exported[0]) is nn.Linear
    if second == "masked":
        still = exported[2]
        assert still.weight[~still.weight_mask].eq(0).all(), "the other's layer is still sparse"
    plain = other.export(model=one.export())
    assert list(plain.state_dict()) == list(mlp().state_dict())
    assert [type(layer) for layer in plain.children()] == [type(layer) for layer in mlp()]
    torch.testing.assert_close(plain(batch(0)), model(batch(0)))
