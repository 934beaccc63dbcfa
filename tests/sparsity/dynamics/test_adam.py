"""Adam's own step for grown weights: beside fresh optimizers of torch, bit by bit."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparse_bench as sb
from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.dynamics.adam import BORN, OwnSteps, _Grown, parameter_of

OPTIMIZERS = {
    "adam": (torch.optim.Adam, {}),
    "adam, decay": (torch.optim.Adam, {"weight_decay": 0.1}),
    "amsgrad, each": (torch.optim.Adam, {"amsgrad": True, "foreach": True}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}),
    "adamw, maximize": (torch.optim.AdamW, {"maximize": True, "betas": (0.8, 0.99)}),
}
#: Steps before the rewiring.
EARLIER = 50


class Grown:
    """A layer of 6 × 8 whose gradients are given; after step 50 its twelve smallest weights are replaced."""

    def __init__(self, option: str, execution: str, kind: str = "adam", **settings: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(8, 6))
        made, more = OPTIMIZERS[kind]
        self.optimizer = made(self.model.parameters(), **{"lr": 0.01, **more, **settings})
        rule: Any = {"density": 0.5, "sampling": "exact", "zeta": 0.5, "drop": "magnitude", "layers": ["0.weight"]}
        scheme = sb.SET(**rule, execution=execution, new_weight_adam=option)
        self.sparse = sb.sparsify(self.model, self.optimizer, scheme, steps=1000, steps_per_epoch=EARLIER)
        self.weight = scheme.weights["0.weight"]
        self.steps = 0
        self.seen: list[Tensor] = []

    def step(self) -> Tensor:
        """One step with a random gradient; returns the full matrix before it."""
        gradient = torch.randn(6, 8, generator=torch.Generator().manual_seed(self.steps))
        before, parameter = self.weight.dense().clone(), parameter_of(self.weight)
        places, _ = self.weight.entries()
        whole = gradient * self.weight.mask
        parameter.grad = whole if parameter.dim() == 2 else whole.flatten()[places]
        self.model[0].bias.grad = torch.zeros(6)
        self.optimizer.step()
        self.steps += 1
        self.seen.append(gradient)
        return before

    def run(self, number: int) -> "Grown":
        for _ in range(number):
            self.step()
        return self


def grown_places(one: Grown) -> Tensor:
    """Those whose weight is exactly zero after the rewiring."""
    return one.weight.mask & (one.weight.dense() == 0)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("execution", ["masked", "csr"])
def test_a_grown_weight_is_updated_like_one_of_a_fresh_optimizer(kind: str, execution: str) -> None:
    one = Grown("own_step", execution, kind)
    made, more = OPTIMIZERS[kind]
    one.run(EARLIER)
    for _ in range(3):  # rewirings
        new = grown_places(one)
        assert int(new.sum()) == 12
        fresh = nn.Parameter(torch.zeros(6, 8))
        optimizer = made([fresh], **{"lr": 0.01, **more})
        for _ in range(EARLIER - 1):
            one.step()
            fresh.grad = one.seen[-1].clone()
            optimizer.step()
            assert torch.equal(one.weight.dense()[new], fresh.detach()[new])
        one.step()


@pytest.mark.parametrize("execution", ["masked", "csr", "kernel"])
def test_the_first_update_is_3_times_too_large_with_torchs_step(execution: str) -> None:
    sizes = {}
    for option in ("torch", "own_step", "warm_up"):
        one = Grown(option, execution).run(EARLIER - 1)
        one.optimizer.state[parameter_of(one.weight)]["step"].fill_(30_000)  # so late that nothing is left to correct
        one.step()
        new = grown_places(one)
        before = one.step()
        sizes[option] = (one.weight.dense() - before)[new].abs() / 0.01
    ones = torch.ones(12)
    torch.testing.assert_close(sizes["own_step"], ones, rtol=1e-5, atol=0)
    torch.testing.assert_close(sizes["warm_up"], ones / 100, rtol=1e-5, atol=0)
    torch.testing.assert_close(sizes["torch"], ones * 0.1 / 0.001**0.5, rtol=1e-5, atol=0)  # 3.16


@pytest.mark.parametrize("execution", ["masked", "csr"])
@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_all_other_weights_keep_their_bits(kind: str, execution: str) -> None:
    torchs, own = (Grown(option, execution, kind).run(EARLIER) for option in ("torch", "own_step"))
    new = grown_places(own)
    for one in (torchs, own):
        one.run(20)
    differ = torchs.weight.dense() != own.weight.dense()
    assert torch.equal(differ & ~new, torch.zeros_like(new))
    assert differ[new].all()


@pytest.mark.parametrize("execution", ["masked", "csr"])
def test_fused_steps_are_corrected_up_to_rounding(execution: str) -> None:
    plain, fused = (Grown("own_step", execution, fused=way) for way in (False, True))
    for one in (plain, fused):
        one.run(EARLIER + 30)
    torch.testing.assert_close(plain.weight.dense(), fused.weight.dense(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("execution", ["masked", "csr"])
def test_a_killed_training_goes_on_bit_for_bit(execution: str) -> None:
    """By states that went through a file's form, into objects that have never trained."""
    one = Grown("own_step", execution).run(EARLIER + 7)
    states = [part.state_dict() for part in (one.model, one.optimizer, one.sparse)]
    other = Grown("own_step", execution)
    for part, state in zip((other.model, other.optimizer, other.sparse), states, strict=True):
        part.load_state_dict(copy.deepcopy(state))
    other.steps = one.steps
    for _ in range(EARLIER):  # past another rewiring
        one.step()
        other.step()
        assert torch.equal(one.weight.dense(), other.weight.dense())
    born = [part.optimizer.state[parameter_of(part.weight)][BORN] for part in (one, other)]
    assert torch.equal(*born)
    assert born[0].max() == 2 * EARLIER


def test_a_step_that_loss_scaling_leaves_out_does_not_count() -> None:
    skipping, plain = (Grown("own_step", "masked", fused=True).run(EARLIER) for _ in range(2))
    skipping.optimizer.found_inf = torch.ones(())  # type: ignore[attr-defined]  # as a gradient scaler does it
    skipping.optimizer.grad_scale = torch.ones(())  # type: ignore[attr-defined]
    before = skipping.step()
    assert torch.equal(skipping.weight.dense(), before)
    del skipping.optimizer.found_inf, skipping.optimizer.grad_scale
    skipping.steps -= 1
    for _ in range(3):
        skipping.step()
        plain.step()
    assert torch.equal(skipping.weight.dense(), plain.weight.dense())


def test_a_layer_without_gradient_stays_as_it_is() -> None:
    one = Grown("own_step", "masked").run(EARLIER + 1)
    before = one.weight.dense().clone()
    parameter_of(one.weight).grad = None
    one.optimizer.step()
    assert torch.equal(one.weight.dense(), before)


def test_a_normal_step_reads_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Grown("own_step", "masked", capturable=False).run(EARLIER + 1)

    def refuse(*_: object) -> Any:
        raise AssertionError("waits for the device")

    for name in ("nonzero", "tolist", "cpu", "numpy", "__bool__"):
        monkeypatch.setattr(Tensor, name, refuse)
    one.sparse.scheme.before_step(one.optimizer)
    one.sparse.scheme._own_steps.after_step(one.optimizer, one.sparse.scheme.weights)  # type: ignore[attr-defined]


def test_what_has_no_steps_to_count_is_refused() -> None:
    def attempt(optimizer: type[torch.optim.Optimizer], dtype: torch.dtype, scheme: Any) -> None:
        model = nn.Sequential(nn.Linear(8, 6, dtype=dtype))
        sb.sparsify(model, optimizer(model.parameters(), lr=0.01), scheme, steps=10)  # type: ignore[call-arg]

    with pytest.raises(ConfigError, match=r"the optimizer is SGD\. Use optimizer=adam or adamw"):
        attempt(torch.optim.SGD, torch.float32, sb.RigL(density=0.5, new_weight_adam="own_step"))
    with pytest.raises(ConfigError, match=r"'0\.weight' is torch\.bfloat16, which cannot count steps"):
        attempt(torch.optim.Adam, torch.bfloat16, sb.RigL(density=0.5, new_weight_adam="own_step"))
    table = nn.Sequential(nn.Embedding(8, 6, sparse=True))
    rule = sb.RigL(density=0.5, layers=["0.weight"], new_weight_adam="own_step")
    with pytest.raises(ConfigError, match=r"'0\.weight' has row-sparse gradients"):
        sb.sparsify(table, torch.optim.Adam(table.parameters()), rule, steps=10)
    with pytest.raises(ConfigError, match="GMP grows no weight"):
        sb.GMP(density=0.5, new_weight_adam="own_step")
    with pytest.raises(ConfigError, match="Valid choices"):
        sb.RigL(density=0.5, new_weight_adam="own")


def test_a_warm_up_ends_after_100_steps_of_each_weight() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.Adam([parameter], lr=0.01)
    parameter.grad = torch.tensor([1.0, 2.0, 3.0])
    optimizer.step()
    state, group = optimizer.state[parameter], optimizer.param_groups[0]
    state["step"].fill_(1000)
    births = torch.tensor([100.0, 900.0, 975.0])  # 900, 100 and 25 steps ago
    grown = _Grown(parameter, torch.arange(3), births, torch.arange(3))
    warm, plain = (OwnSteps(way)._update(grown, state, group) for way in (True, False))
    torch.testing.assert_close(warm / plain, torch.tensor([1.0, 1.0, 0.25]))
