"""Schemes that hold hidden weights, against rules worked out by hand and against plain autograd."""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

import sparse_bench as sb
from sparse_bench.errors import ConfigError
from sparse_bench.library import SparseTraining
from sparse_bench.models.sparse_features import SparseProjection
from sparse_bench.sparsity import ranking
from sparse_bench.sparsity.held import HeldWeight
from sparse_bench.sparsity.phases import Phases
from sparse_bench.sparsity.ranking import highest, highest_in_groups, lamp
from sparse_bench.sparsity.scheme import Length, Scheme

#: A 4×6 matrix with ties, one of them between signs.
MATRIX = torch.tensor(
    [
        [0.9, -0.1, 0.2, 0.4, -0.4, 0.0],
        [0.3, -0.8, 0.1, 0.5, 0.6, -0.7],
        [-0.2, 0.2, 0.2, 0.0, 0.0, 0.0],
        [1.0, 0.1, -0.9, 0.3, -0.6, 0.5],
    ]
)


def layer(matrix: Tensor = MATRIX) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(matrix.shape[1], matrix.shape[0]))
    with torch.no_grad():
        model[0].weight.copy_(matrix)
        model[0].bias.zero_()
    return model


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def adam(model: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), lr=0.03)


def points(step: int, size: int = 6) -> Tensor:
    return torch.randn(5, size, generator=torch.Generator().manual_seed(step))


def loss_of(y: Tensor) -> Tensor:
    return (y - 1).square().mean() + y.sin().mean()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range, size: int = 6) -> None:
    for step in steps:
        loss_of(model(points(step, size))).backward()
        optimizer.step()
        optimizer.zero_grad()


def held(sparse: SparseTraining, name: str = "0.weight") -> HeldWeight:
    weight = sparse.scheme.weights[name]
    assert isinstance(weight, HeldWeight)
    return weight


def by_hand(rows: list[str]) -> Tensor:
    return torch.tensor([[letter == "x" for letter in row] for row in rows])


def test_the_largest_and_of_equal_ones_the_first() -> None:
    assert torch.equal(highest(MATRIX.abs(), 10), by_hand(["x..x..", ".x.xxx", "......", "x.x.xx"]))  # 0.4 ties
    assert torch.equal(highest_in_groups(MATRIX.abs(), 2, 3), by_hand(["x.xxx.", "xx..xx", "xx.xx.", "x.x.xx"]))
    assert torch.equal(highest_in_groups(MATRIX.abs(), 1, 2)[2], torch.tensor([True, False] * 3))
    assert highest(MATRIX, 0).sum() == 0
    assert highest(MATRIX, 24).all()
    with pytest.raises(ValueError, match="cannot take 25 of 24 scores"):
        highest(MATRIX, 25)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data())
def test_counts_are_exact_whatever_is_equal(scores: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(scores)))
    chosen = sorted(np.argsort(-np.array(scores), kind="stable")[:count])
    ours = torch.tensor(scores, dtype=torch.float32)
    assert highest(ours, count).nonzero().flatten().tolist() == chosen
    with pytest.MonkeyPatch.context() as patch:  # as on another device
        patch.setattr(ranking, "on_host", None)
        patch.setattr(ranking.torch.Tensor, "device", SimpleNamespace(type="cuda"))
        there = ranking.highest(ours, count)
    assert there.nonzero().flatten().tolist() == chosen


def test_lamp_by_hand() -> None:
    """Squares 1, 4, 4, 16 → over 25, 24, 20 and 16."""
    scores = lamp(torch.tensor([[2.0, -1.0], [-2.0, 4.0]]))
    assert scores.flatten().tolist() == pytest.approx([4 / 24, 1 / 25, 4 / 20, 1.0])


@settings(max_examples=20)
@given(
    st.floats(0.02, 0.98), st.integers(1, 9), st.integers(1, 9), st.sampled_from(["ste", "top_kast", "ac_dc", "power"])
)
def test_the_final_density_is_the_one_asked_for(density: float, rows: int, columns: int, kind: str) -> None:
    size = rows * columns
    if round(density * size) == size:
        return
    schemes: dict[str, Callable[[], Scheme]] = {
        "ste": lambda: sb.STE(density=density),
        "top_kast": lambda: sb.TopKAST(density=density),
        "ac_dc": lambda: sb.ACDC(density=density, phase=0.2),
        "power": lambda: sb.Powerpropagation(density=density, interval=2),
    }
    model = layer(torch.randn(rows, columns, generator=torch.Generator().manual_seed(size)))
    sparse = sb.sparsify(model, sgd(model), schemes[kind](), steps=8)
    train(model, sparse.optimizer, range(8), columns)
    assert sparse.scheme.reached()
    assert sparse.scheme.weights["0.weight"].active == round(density * size)
    shown = sparse.scheme.weights["0.weight"]
    assert int(shown.mask.sum()) == shown.active
    assert model[0].weight[~shown.mask].count_nonzero() == 0


class Reference(torch.autograd.Function):
    """The SR-STE of the authors' code: the forward pass masks, the backward pass adds λ (1 − mask) w."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, decay: float) -> Tensor:
        ctx.save_for_backward(weight, mask)
        ctx.decay = decay
        return weight * mask

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        weight, mask = ctx.saved_tensors
        return gradients[0] + ctx.decay * ~mask * weight, None, None


@pytest.mark.parametrize("optimizer", [sgd, adam])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_ste_and_sr_ste_against_autograd(optimizer: Any, decay: float) -> None:
    ours, plain = layer(), layer()
    sparse = sb.sparsify(ours, optimizer(ours), sb.STE(density=1 / 3, pattern=(1, 3), decay=decay), steps=20)
    reference = optimizer(plain)
    flips = 0
    for step in range(20):
        mask = highest_in_groups(plain[0].weight.detach().abs(), 1, 3)
        flips += int((mask != held(sparse).mask).sum())
        weight = Reference.apply(plain[0].weight, mask, decay)
        loss_of(functional_call(plain, {"0.weight": weight}, (points(step),))).backward()
        reference.step()
        reference.zero_grad()
        train(ours, sparse.optimizer, range(step, step + 1))
    assert flips == 0
    assert torch.allclose(held(sparse).full, plain[0].weight, atol=1e-6)
    first = highest_in_groups(MATRIX.abs(), 1, 3)
    assert not torch.equal(held(sparse).mask, first), "the choice follows the weights"
    assert held(sparse).full[~held(sparse).mask].abs().min() > 0, "hidden weights are held"


def test_ste_falls_along_the_cubic_curve() -> None:
    """Steps 10 to 80 of 100: at step 45 half-way, sparsity .75 · (1 − 1/8)."""
    model = layer(torch.randn(8, 10))
    sparse = sb.sparsify(model, sgd(model), sb.STE(density=0.25), steps=100)
    counts = []
    for step in range(100):
        train(model, sparse.optimizer, range(step, step + 1), 10)
        counts.append(held(sparse).active)
    assert counts[9] == 80
    assert counts[44] == round(80 * (1 - 0.75 * 7 / 8))
    assert counts[78] >= 20 == counts[79] == counts[99]
    assert counts == sorted(counts, reverse=True)


def test_a_pattern_runs_along_the_inputs_of_a_transposed_matrix_too() -> None:
    model = nn.Sequential(SparseProjection(4, 3))
    sparse = sb.sparsify(model, sgd(model), sb.STE(density=0.5, pattern=(1, 2), layers=["0.weight"]), steps=3)
    assert held(sparse).mask.view(2, 2, 3).sum(1).eq(1).all()
    model = nn.Sequential(nn.Linear(6, 4))
    with pytest.raises(ConfigError, match="6 inputs are no whole number of groups of 4"):
        sb.sparsify(model, sgd(model), sb.STE(density=0.5, pattern=(2, 4)), steps=3)
    with pytest.raises(ConfigError, match=r"pattern 2:4 has density 0.5, and sparsity.density is 0.2"):
        sb.STE(density=0.2, pattern=(2, 4))


def test_top_kast_by_hand() -> None:
    """A has 4 of 24 weights, B has 8; one step with λ = 0.05."""
    model = layer()
    scheme = sb.TopKAST(density=4 / 24, backward_density=8 / 24, regularization=0.05)
    sparse = sb.sparsify(model, sgd(model), scheme, steps=5)
    a = by_hand(["x.....", ".x....", "......", "x.x..."])
    b = by_hand(["x.....", ".x..xx", "......", "x.x.x."]) | by_hand(["......", "...x..", "......", "......"])
    assert torch.equal(held(sparse).mask, a)
    assert torch.equal(held(sparse).trained_places, b)
    assert torch.equal(model[0].weight, MATRIX * a)
    # The same by autograd: the loss on θ_A plus the additional term, and steps on B alone.
    theta = MATRIX.clone().requires_grad_()
    visible = theta + (theta * a - theta).detach()
    term = 0.05 * ((theta * a).square().sum() + (theta * (b & ~a)).square().sum() / (4 / 24))
    (loss_of(points(0) @ visible.T) + term).backward()
    train(model, sparse.optimizer, range(1))
    assert theta.grad is not None
    assert torch.allclose(held(sparse).full, MATRIX - 0.1 * theta.grad * b, atol=1e-6)
    assert torch.equal(held(sparse).full[~b], MATRIX[~b])


def test_top_kast_leaves_what_is_outside_b_alone_in_spite_of_momentum() -> None:
    model = layer(torch.randn(4, 6, generator=torch.Generator().manual_seed(1)))
    sparse = sb.sparsify(model, adam(model), sb.TopKAST(density=0.25, backward_density=0.5), steps=40)
    left = 0
    for step in range(40):
        before, b = held(sparse).full.clone(), held(sparse).trained_places
        assert b is not None
        b = b.clone()
        train(model, sparse.optimizer, range(step, step + 1))
        assert torch.equal(held(sparse).full[~b], before[~b])
        assert (held(sparse).full[b] != before[b]).any()
        left += int((b & ~held(sparse).trained_places).sum())
    assert left > 0, "weights with momentum have left B"
    with pytest.raises(ConfigError, match=r"backward_density \(0.1\) has to be at least sparsity.density \(0.2\)"):
        sb.TopKAST(density=0.2, backward_density=0.1)


def test_phases_of_ac_dc_at_a_hundred_epochs() -> None:
    """Dense 0-10, then sparse and dense for 5 in turn, dense 75-85, sparse 85-100."""
    schedule, now, table = Phases(0.1), 1.0, []
    for step in range(1, 101):
        table.append(now)
        density = schedule.after_step(step, lambda: Length(100, 100))
        now = now if density is None else density
    sparse = [epoch for epoch, density in enumerate(table) if density == 0.1]
    assert sparse == [e for start in range(10, 75, 10) for e in range(start, start + 5)] + list(range(85, 100))
    assert Phases(0.1).switches(2000)[200] == Phases(0.1).switches(2000)[1700] == 0.1
    assert set(Phases(0.1).switches(3)) <= {1, 2, 3}
    assert Phases(0.1).switches(3)[3] == 0.1
    with pytest.raises(ConfigError, match="begin, last_dense and end have to rise"):
        Phases(0.1, begin=0.8)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("execution", ["masked", "csr"])
def test_ac_dc_gives_weights_back_at_zero(reset: bool, execution: str) -> None:
    model = layer()
    scheme = sb.ACDC(density=0.25, execution=execution, reset_moments=reset)
    sparse = sb.sparsify(model, adam(model), scheme, steps=20)
    (weight,) = scheme.weights.values()
    for step in range(20):
        train(model, sparse.optimizer, range(step, step + 1))
        if step + 1 == 2:  # the first sparse phase begins with the largest magnitudes
            largest = weight.dense().abs().flatten().topk(6).indices.sort().values
            assert torch.equal(weight.entries()[0], largest)
            removed = ~weight.mask
        if step + 1 == 3:
            assert weight.active == 24
            assert weight.dense()[removed].eq(0).all()
            assert (sparse.optimizer.state == {}) == reset
        if step + 1 == 4:
            assert weight.active == 6
    assert sparse.tally.held == 24


@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_powerpropagation_against_autograd(optimizer: Any) -> None:
    ours = layer()
    start = MATRIX.sign() * MATRIX.abs().pow(1 / 3)
    sparse = sb.sparsify(
        ours, optimizer(ours), sb.Powerpropagation(density=0.5, alpha=3.0, begin=0.5, interval=1), steps=10
    )
    assert torch.allclose(held(sparse).full, start)
    assert torch.allclose(ours[0].weight, MATRIX, atol=1e-6)
    plain = layer(start)
    reference = optimizer(plain)
    for step in range(5):
        v = plain[0].weight
        loss_of(functional_call(plain, {"0.weight": v * v.abs().square()}, (points(step),))).backward()
        reference.step()
        reference.zero_grad()
        train(ours, sparse.optimizer, range(step, step + 1))
    assert torch.allclose(held(sparse).full, plain[0].weight, atol=1e-6)
    train(ours, sparse.optimizer, range(5, 10))
    gone = ~held(sparse).mask
    assert int(gone.sum()) == 12
    assert held(sparse).full[gone].eq(0).all()
    moments = [m for m in sparse.optimizer.state[ours[0].weight].values() if m is not None and m.shape == (4, 6)]
    assert all(moment[gone].eq(0).all() for moment in moments)


SCHEMES: dict[str, Callable[[], Scheme]] = {
    "ste": lambda: sb.STE(density=0.25, decay=0.1),
    "pattern": lambda: sb.STE(density=0.5, pattern=(1, 2)),
    "top_kast": lambda: sb.TopKAST(density=0.25, backward_density=0.5, interval=3),
    "ac_dc": lambda: sb.ACDC(density=0.25),
    "powerpropagation": lambda: sb.Powerpropagation(density=0.25, interval=3),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_a_training_resumes_in_another_process_to_the_last_bit(name: str) -> None:
    whole, part, again = (layer() for _ in range(3))
    sparse = [sb.sparsify(model, adam(model), SCHEMES[name](), steps=20) for model in (whole, part, again)]
    train(whole, sparse[0].optimizer, range(20))
    train(part, sparse[1].optimizer, range(11))
    saved = copy.deepcopy([part.state_dict(), sparse[1].optimizer.state_dict(), sparse[1].state_dict()])
    again.load_state_dict(saved[0])
    sparse[2].optimizer.load_state_dict(saved[1])
    sparse[2].load_state_dict(saved[2])
    train(again, sparse[2].optimizer, range(11, 20))
    for one, other in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    exported = sparse[0].export()
    assert set(exported.state_dict()) == {"0.weight", "0.bias"}
    assert torch.equal(exported(points(0)), whole(points(0)))
    sparse[2].load_exported(exported.state_dict())
    assert torch.equal(again(points(0)), whole(points(0)))
    train(again, sparse[2].optimizer, range(20, 22))


@pytest.mark.parametrize("name", ["ste", "top_kast", "powerpropagation"])
@pytest.mark.parametrize("unscale", [False, True])
def test_scaled_gradients_of_several_passes_train_the_same(name: str, unscale: bool) -> None:
    results = []
    for scale, parts in ((1.0, 1), (1024.0, 2)):
        model = layer()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.03, fused=True)
        sparse = sb.sparsify(model, optimizer, SCHEMES[name](), steps=8)
        for step in range(8):
            for part in points(step).tensor_split(parts):
                y = model(part)
                (scale * ((y - 1).square() + y.sin()).sum() / 20).backward()
            if scale > 1 and unscale:
                for parameter in model.parameters():
                    parameter.grad /= scale
            elif scale > 1:  # as a GradScaler does for a fused optimizer, which divides in its step
                sparse.optimizer.grad_scale = torch.tensor(scale)  # type: ignore[attr-defined]
            sparse.optimizer.step()
            sparse.optimizer.zero_grad()
        results.append(held(sparse).full.clone())
    assert torch.allclose(*results, atol=1e-5)


def test_layers_of_all_kinds_see_the_visible_weights() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(7, 8)
            self.lstm = nn.LSTM(8, 8, bidirectional=True)
            self.attention = nn.MultiheadAttention(16, 2)
            self.output = nn.Linear(16, 7)
            self.output.weight = nn.Parameter(self.output.weight.detach())

        def forward(self, words: Tensor) -> Tensor:
            x, _ = self.lstm(self.table(words))
            return self.output(self.attention(x, x, x)[0])

    torch.manual_seed(0)
    model = Mixed()
    optimizer = adam(model)
    sparse = sb.sparsify(model, optimizer, sb.STE(density=0.25, layers=["*weight*"], end=0), steps=6)
    words = torch.arange(12).view(6, 2) % 7
    for _ in range(6):
        nn.functional.cross_entropy(model(words).flatten(0, 1), words.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, weight in sparse.scheme.weights.items():
        assert int(model.get_parameter(name).count_nonzero()) == weight.active == round(0.25 * weight.size), name
    twin = copy.deepcopy(model)
    assert torch.equal(twin.eval()(words), model.eval()(words))
    assert torch.allclose(sparse.export().eval()(words), model(words))


def test_what_holds_hidden_weights_refuses_what_it_cannot_do() -> None:
    model = layer()
    with pytest.raises(ConfigError, match=r"computes with full matrices\. Use execution=masked"):
        sb.STE(density=0.5, execution="csr")
    with pytest.raises(ConfigError, match="LBFGS computes the loss several times per step"):
        sb.sparsify(model, torch.optim.LBFGS(model.parameters()), sb.STE(density=0.5), steps=3)
    sb.sparsify(model, sgd(model), sb.STE(density=0.5), steps=3)
    with pytest.raises(ConfigError, match="already has a topology"):
        sb.sparsify(model, sgd(model), sb.TopKAST(density=0.5), steps=3)
