"""Dynamic schemes on a small model: counts, zeros, moments, places and values, at every rewiring."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.counting import count
from sparse_bench.sparsity.dynamics.grow import Room, random_free
from sparse_bench.sparsity.dynamics.scheme import Dynamic
from sparse_bench.sparsity.scheme import Length, Scheme
from sparse_bench.sparsity.schemes.chts import CHTs
from sparse_bench.sparsity.schemes.chtss import CHTss
from sparse_bench.sparsity.schemes.combined import Combined
from sparse_bench.sparsity.schemes.gmp import GMP
from sparse_bench.sparsity.schemes.granet import GraNet
from sparse_bench.sparsity.schemes.mest import MEST
from sparse_bench.sparsity.schemes.rigl import RigL
from sparse_bench.sparsity.schemes.set import SET
from sparse_bench.sparsity.schemes.snfs import SNFS
from sparse_bench.sparsity.schemes.srigl import SRigL
from sparse_bench.sparsity.schemes.static_er import StaticER, density_of
from sparse_bench.sparsity.weights import EXECUTIONS, CompressedWeight
from sparse_bench.streams import Streams
from tests.toy import ToyModel

SIZES = {"inputs": 8, "classes": 2}
LAYERS = ("first.weight", "second.weight")


def batch_of(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    points = torch.randn(12, 8, generator=torch.Generator().manual_seed(step))
    return points, (points.sum(1) > 0).long()


def loss_of(model: nn.Module, step: int) -> torch.Tensor:
    points, labels = batch_of(step)
    return nn.functional.cross_entropy(model(points), labels)


@dataclass
class Training:
    """A model under a scheme, trained step by step as the trainer does it."""

    scheme: Scheme
    model: ToyModel
    optimizer: torch.optim.Optimizer
    streams: Streams
    step: int = 0

    def before_rewiring(self) -> int:
        """Everything of the next step up to the scheme's own moment after it."""
        self.step += 1
        self.scheme.before_backward(self.step)
        self.optimizer.zero_grad()
        loss_of(self.model, self.step).backward()
        self.scheme.after_backward()
        self.scheme.before_step(self.optimizer)
        self.optimizer.step()
        return self.step

    def train(self, number: int) -> None:
        for _ in range(number):
            self.scheme.after_step(self.before_rewiring(), self.optimizer, self.streams)

    def without_zeros(self) -> None:
        """A new weight whose unit is never active stays zero; here it gets a value, so that zeros tell something."""
        for name, weight in self.scheme.weights.items():
            parameter = self.model.get_parameter(name).detach()
            exists = weight.mask if parameter.dim() == 2 else torch.ones_like(parameter, dtype=torch.bool)
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(self.step)) / 10
            parameter.copy_(torch.where(exists & (parameter == 0), noise, parameter))

    def end_epoch(self, epoch: int = 0, last: bool = False) -> dict[str, float]:
        return self.scheme.at_epoch_end(epoch, last, self.optimizer, self.streams)

    def masks(self) -> dict[str, torch.Tensor]:
        return {name: weight.mask.clone() for name, weight in self.scheme.weights.items()}

    def dense(self) -> dict[str, torch.Tensor]:
        return {name: weight.dense().clone() for name, weight in self.scheme.weights.items()}

    def moments(self, name: str) -> list[torch.Tensor]:
        weight = self.scheme.weights[name]
        state = self.optimizer.state[self.model.get_parameter(name)]
        found = [state[key].clone() for key in ("exp_avg", "exp_avg_sq")]
        return [weight.structure.scatter(m) for m in found] if isinstance(weight, CompressedWeight) else found


def training(scheme: Scheme, seed: int = 0, steps: int = 40, epochs: int = 4) -> Training:
    torch.manual_seed(0)
    model = ToyModel(SIZES, dropout=0.0)
    streams = Streams(seed)
    scheme.attach(model, streams)
    scheme.before_training(lambda: Length(epochs, steps))
    return Training(scheme, model, torch.optim.Adam(model.parameters(), lr=0.02), streams)


@pytest.mark.parametrize(
    ("epsilon", "shape", "expected"),
    [(20, (512, 512), 0.078125), (1, (512, 512), 2 / 512), (20, (10, 40), 1.0), (2, (100, 300), 8 / 300)],
)
def test_epsilon_gives_the_density_of_the_paper(epsilon: float, shape: tuple[int, int], expected: float) -> None:
    assert density_of(epsilon, shape) == pytest.approx(expected)


def test_a_bernoulli_mask_has_the_density_of_epsilon() -> None:
    """512 × 512 at ε = 20: 20,480 weights expected, with a standard deviation of 137."""
    shapes = {"a": (512, 512)}
    counts = [int(StaticER(epsilon=20).first_topology(shapes, Streams(s))["a"].sum()) for s in range(20)]
    assert sum(counts) / 20 == pytest.approx(20_480, abs=4 * 137 / 20**0.5)
    assert len(set(counts)) > 10
    exact = StaticER(epsilon=20, sampling="exact").first_topology(shapes, Streams(0))["a"]
    assert int(exact.sum()) == 20_480
    rounded = StaticER(epsilon=1.3, sampling="exact").first_topology({"a": (10, 3)}, Streams(0))["a"]
    assert int(rounded.sum()) == 17  # of 16.9


def test_density_is_shared_among_layers_as_asked() -> None:
    shapes = {"wide": (10, 90), "square": (30, 30)}
    uniform = StaticER(density=0.2, distribution="uniform").densities(shapes)
    assert uniform == {"wide": 0.2, "square": 0.2}
    erdos_renyi = StaticER(density=0.2).densities(shapes)
    assert erdos_renyi["wide"] / erdos_renyi["square"] == pytest.approx(100 / 60, rel=0.01)
    assert sum(erdos_renyi.values()) / 2 == pytest.approx(0.2)


def test_set_starts_as_static_er_does() -> None:
    static, dynamic = training(StaticER(epsilon=1.5)), training(SET(epsilon=1.5))
    for name, mask in static.masks().items():
        assert torch.equal(mask, dynamic.masks()[name])


@pytest.mark.parametrize("execution", EXECUTIONS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 100), zeta=st.floats(0.0, 1.0), drop=st.sampled_from(["signed_magnitude", "magnitude"]))
def test_set_keeps_its_promises_at_every_rewiring(execution: str, seed: int, zeta: float, drop: str) -> None:
    run = training(SET(density=0.3, zeta=zeta, drop=drop, execution=execution), seed)
    numbers = {name: weight.active for name, weight in run.scheme.weights.items()}
    for epoch in range(3):
        run.train(3)
        run.without_zeros()
        masks, values = run.masks(), run.dense()
        moments = {name: run.moments(name) for name in LAYERS}
        run.end_epoch(epoch)
        for name, weight in run.scheme.weights.items():
            old, new, dense = masks[name], weight.mask, weight.dense()
            assert weight.active == int(new.sum()) == numbers[name]
            assert dense[~new].eq(0).all()
            survived = old & dense.ne(0)
            assert torch.equal(dense[survived], values[name][survived])
            if drop == "signed_magnitude":
                for side in (values[name] > 0, values[name] < 0):
                    assert int((side & ~survived).sum()) == round(zeta * int(side.sum()))
            else:
                assert int((old & ~survived).sum()) == round(zeta * numbers[name])
            for before, after in zip(moments[name], run.moments(name), strict=True):
                assert torch.equal(after, before * survived)


def test_set_after_the_last_epoch_removes_and_grows_nothing() -> None:
    run = training(SET(density=0.4))
    run.train(5)
    run.without_zeros()
    before, values = run.masks(), run.dense()
    run.end_epoch(3, last=True)
    for name, mask in run.masks().items():
        positive, negative = int((values[name] > 0).sum()), int((values[name] < 0).sum())
        expected = int(before[name].sum()) - round(0.3 * positive) - round(0.3 * negative)
        assert run.scheme.weights[name].active == int(mask.sum()) == expected
        assert not (mask & ~before[name]).any()
    assert count(run.model, run.scheme).sparse_layers == sum(int(mask.sum()) for mask in run.masks().values())


def test_set_draws_anew_at_every_rewiring_and_for_every_layer() -> None:
    """No rewiring has the random numbers of another one, and no layer those of another."""
    run, seeds = training(SET(density=0.3, zeta=1.0)), []

    def noting(room: Room, count: int) -> torch.Tensor:
        seeds.append(room.generator.initial_seed())
        return random_free(room, count)

    assert isinstance(run.scheme, Dynamic)
    run.scheme.dynamics = replace(run.scheme.dynamics, grow=noting)
    run.train(1)
    run.end_epoch(0)
    first = run.masks()
    run.train(1)
    run.end_epoch(1)
    assert not torch.equal(first["second.weight"], run.masks()["second.weight"])
    assert len(set(seeds)) == len(seeds) == 4
    again = training(SET(density=0.3, zeta=1.0))
    again.train(1)
    again.end_epoch(0)
    assert torch.equal(first["second.weight"], again.masks()["second.weight"])


def test_a_removed_place_may_grow_again_as_a_new_weight() -> None:
    """A full layer has no other free places than those just removed."""
    run = training(SET(density=1.0, zeta=0.5))
    run.train(3)
    values = run.dense()
    run.end_epoch(0)
    for name, weight in run.scheme.weights.items():
        assert weight.active == weight.size
        removed = weight.dense() == 0
        assert 0 < int(removed.sum()) < weight.size
        assert values[name][removed].abs().max() <= values[name].abs().max()
        assert all(moment[removed].eq(0).all() for moment in run.moments(name))


@pytest.mark.parametrize("execution", ["masked", "csr"])
def test_new_weights_from_the_initialiser(execution: str) -> None:
    torch.manual_seed(0)
    initial = {name: p.detach().clone() for name, p in ToyModel(SIZES).named_parameters()}
    run = training(SET(density=0.3, new_weights="initial", execution=execution))
    run.train(3)
    values = run.dense()
    run.end_epoch(0)
    for name, weight in run.scheme.weights.items():
        new = weight.mask & (weight.dense() != values[name])
        assert int(new.sum()) > 0
        assert torch.isin(weight.dense()[new], initial[name]).all()
        assert all(moment[new].eq(0).all() for moment in run.moments(name))


def test_annealed_zeta_follows_the_epochs() -> None:
    run = training(SET(density=0.5, zeta=0.8, final_zeta=0.0, drop="magnitude"), epochs=3)
    lost = []
    for epoch in range(3):
        run.train(2)
        run.without_zeros()
        before = run.dense()
        run.end_epoch(epoch)
        lost.append(sum(int((before[n].ne(0) & (w.dense() == 0)).sum()) for n, w in run.scheme.weights.items()))
    active = [w.active for w in run.scheme.weights.values()]
    assert lost == [sum(round(f * n) for n in active) for f in (0.8, 0.4, 0.0)]


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_rigl_drops_the_smallest_and_grows_where_the_gradient_is_largest(execution: str) -> None:
    run = training(RigL(density=0.3, interval=4, fraction=0.5, execution=execution), steps=40)
    run.train(3)
    # The gradient of step 4 by hand: a dense model with the same weights sees the same batch.
    reference = ToyModel(SIZES, dropout=0.0)
    reference.load_state_dict(
        run.dense() | {name: p for name, p in run.model.state_dict().items() if "bias" in name or "output" in name}
    )
    loss_of(reference, 4).backward()
    run.before_rewiring()
    values, masks = run.dense(), run.masks()
    run.scheme.after_step(4, run.optimizer, run.streams)
    fraction = 0.25 * (1 + math.cos(math.pi * 4 / 30))
    for name, weight in run.scheme.weights.items():
        gradient = reference.get_parameter(name).grad
        assert gradient is not None
        number = round(fraction * int(masks[name].sum()))
        least = values[name][masks[name]].abs().sort().values[number - 1]
        kept = masks[name] & (values[name].abs() > least)
        assert int(kept.sum()) == weight.active - number
        largest = gradient[~kept].abs().sort(descending=True).values[number - 1]
        grown = ~kept & (gradient.abs() >= largest)
        assert torch.equal(weight.mask, kept | grown)
        assert torch.equal(weight.dense(), values[name] * kept)
        assert all(moment[~kept].eq(0).all() and moment[kept].any() for moment in run.moments(name))


def test_rigl_asks_for_the_dense_gradient_at_its_own_steps_alone() -> None:
    run = training(RigL(density=0.3, interval=5, execution="csr"), steps=40)
    asked = []
    for step in range(1, 41):
        run.before_rewiring()
        if run.scheme._scores:  # type: ignore[attr-defined]
            asked.append(step)
        run.scheme.after_step(step, run.optimizer, run.streams)
        assert all(weight.dense_gradient() is None for weight in run.scheme.weights.values())
    assert asked == [5, 10, 15, 20, 25]  # 30 is three quarters


def test_rigl_leaves_the_topology_where_the_gradient_is_not_finite() -> None:
    """Loss scaling leaves a step out whose gradient overflows."""
    run = training(RigL(density=0.3, interval=2), steps=40)
    run.train(1)
    before = run.masks()
    run.step += 1
    run.scheme.before_backward(run.step)
    (loss_of(run.model, run.step) * float("inf")).backward()
    run.scheme.after_backward()
    run.scheme.after_step(run.step, run.optimizer, run.streams)
    assert all(torch.equal(mask, before[name]) for name, mask in run.masks().items())
    run.optimizer.zero_grad()
    run.train(2)
    assert not all(torch.equal(mask, before[name]) for name, mask in run.masks().items())


def test_rigl_hooks_work_without_numbers() -> None:
    """On the meta device, at a step that asks for the dense gradient."""
    scheme = RigL(density=0.3, interval=1)
    with torch.device("meta"):
        model = ToyModel(SIZES)
    scheme.attach(model, Streams(0))
    scheme.before_training(lambda: Length(1, 100))
    scheme.before_backward(1)
    model(torch.randn(4, 8, device="meta")).sum().backward()
    scheme.after_backward()
    for name, weight in scheme.weights.items():
        assert scheme._scores[name].shape == (weight.size,)
        assert scheme._scores[name].is_meta


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_gradual_pruning_ends_at_its_density_by_global_magnitude(execution: str) -> None:
    run = training(GMP(density=0.2, interval=5, execution=execution), steps=40)
    assert all(weight.active == weight.size for weight in run.scheme.weights.values())
    actives = []
    for step in range(1, 41):
        run.train(1)
        actives.append(sum(weight.active for weight in run.scheme.weights.values()))
        if step == 32:  # 80 %
            assert sum(int(values.ne(0).sum()) for values in run.dense().values()) == 77
        assert run.scheme.reached() == (actives[-1] == 77)
    assert actives == sorted(actives, reverse=True)
    assert actives[0] == 384
    assert actives[-1] == 77  # of 76.8
    assert count(run.model, run.scheme).density == 77 / 384
    shares = {weight.active / weight.size for weight in run.scheme.weights.values()}
    assert len(shares) == 2  # layers keep what their magnitudes earn


def test_gradual_pruning_removes_the_smallest_of_all_layers() -> None:
    run = training(GMP(density=0.5), steps=40)
    run.train(2)
    values = run.dense()
    run.scheme.rewire(0.0, run.optimizer, run.streams, density=0.75)  # type: ignore[attr-defined]
    assert sum(weight.active for weight in run.scheme.weights.values()) == 288
    threshold = torch.cat([v.abs().flatten() for v in values.values()]).sort().values[95]
    for name, weight in run.scheme.weights.items():
        assert torch.equal(weight.mask, values[name].abs() > threshold)


@pytest.mark.parametrize(
    "make",
    [
        lambda execution: SET(density=0.4, execution=execution),
        lambda execution: SET(density=0.4, drop="magnitude", new_weights="initial", execution=execution),
        lambda execution: RigL(density=0.4, interval=3, execution=execution),
        lambda execution: GMP(density=0.4, interval=3, execution=execution),
        lambda execution: GraNet(density=0.2, interval=3, execution=execution),
        lambda execution: SRigL(density=0.4, interval=3, gamma=0.6, execution=execution),
        lambda execution: CHTs(density=0.4, interval=3, execution=execution),
        lambda execution: CHTss(density=0.2, interval=3, growth="top", execution=execution),
        lambda execution: MEST(density=0.4, interval=3, gradient_weight=1.0, execution=execution),
        lambda execution: SNFS(density=0.4, interval=3, execution=execution),
        lambda execution: SET(density=0.4, block=4, execution=execution),
        lambda execution: RigL(density=0.4, interval=3, block=4, execution=execution),
        lambda execution: RigL(density=0.4, interval=3, new_weight_adam="own_step", execution=execution),
        lambda execution: GraNet(density=0.2, interval=3, new_weight_adam="warm_up", execution=execution),
    ],
    ids=[
        *("set", "set, magnitude", "rigl", "gmp", "granet", "srigl", "chts", "chtss", "mest", "snfs"),
        *("set, block", "rigl, block", "rigl, own step", "granet, warm-up"),
    ],
)
@pytest.mark.parametrize("execution", ["csr", "kernel"])
def test_true_sparse_training_equals_masked_training(make: Any, execution: str) -> None:
    runs = [training(make(way)) for way in ("masked", execution)]
    entries = []
    for run in runs:
        entries.append([])
        for epoch in range(4):
            run.train(10)
            entries[-1].append(run.end_epoch(epoch, last=epoch == 3))
    masked, sparse = runs
    assert entries[0] == entries[1]
    for name in LAYERS:
        assert torch.equal(masked.masks()[name], sparse.masks()[name])
        torch.testing.assert_close(masked.dense()[name], sparse.dense()[name], rtol=1e-4, atol=1e-6)


def test_a_step_without_rewiring_looks_at_no_value() -> None:
    """Reading a value waits for the device: the meta device has none to read."""
    for scheme in (SET(density=0.3), RigL(density=0.3), GMP(density=0.3, begin=0.5)):
        with torch.device("meta"):
            model = ToyModel(SIZES)
        scheme.attach(model, Streams(0))
        scheme.before_training(lambda: Length(4, 400))
        optimizer = torch.optim.Adam(model.parameters())
        for step in range(1, 4):
            scheme.before_backward(step)
            model(torch.randn(4, 8, device="meta")).sum().backward()
            scheme.after_backward()
            optimizer.step()
            scheme.after_step(step, optimizer, Streams(0))


def test_bad_settings_name_the_problem() -> None:
    for make, message in [
        (lambda: SET(), r"Give one of sparsity\.density \(now None\) and sparsity\.epsilon \(now None\)"),
        (
            lambda: SET(density=0.2, epsilon=20),
            r"now 0\.2\) and sparsity\.epsilon \(now 20\), and set the other to null",
        ),
        (lambda: SET(density=1.2), "at most 1"),
        (lambda: StaticER(epsilon=-1.0), r"'epsilon' = -1\.0 .* more than 0"),
        (lambda: StaticER(epsilon=1.0, distribution="uniform"), "with distribution=uniform use density"),
        (lambda: StaticER(density=0.1, distribution="binomial"), "erdos_renyi, lamp, snip, uniform"),
        (lambda: StaticER(density=0.1, sampling="poisson"), "bernoulli, exact"),
        (lambda: SET(density=0.1, drop="smallest"), "magnitude, signed_magnitude"),
        (lambda: SET(density=0.1, new_weights="zeros"), "Did you mean 'zero'"),
        (lambda: SET(density=0.1, zeta=1.5), r"'zeta'"),
        (lambda: RigL(density=0.1, interval=0), r"'interval'"),
        (lambda: GMP(density=0.1, begin=0.9), r"sparsity\.begin"),
    ]:
        with pytest.raises(ConfigError, match=message):
            make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: RigL(density=0.3, interval=3),
        lambda: GMP(density=0.3, interval=3),
        lambda: MEST(density=0.3, interval=3, new_weight_adam="own_step"),
        lambda: SNFS(density=0.3, interval=3),
    ],
)
def test_the_hooks_of_an_optimizer_can_drive_a_scheme(make: Any) -> None:
    """Somebody else's loop, which knows nothing of the scheme, gives the same weights."""
    expected, run = training(make()), training(make())
    expected.train(40)
    scheme, steps = run.scheme, iter(range(1, 41))

    def after_step(optimizer: torch.optim.Optimizer, *_: object) -> None:
        step = next(steps)
        scheme.after_step(step, optimizer, run.streams)
        scheme.before_backward(step + 1)

    def before_step(*_: object) -> None:
        scheme.after_backward()
        scheme.before_step(run.optimizer)

    run.optimizer.register_step_pre_hook(before_step)
    run.optimizer.register_step_post_hook(after_step)
    scheme.before_backward(1)
    for step in range(1, 41):
        run.optimizer.zero_grad()
        loss_of(run.model, step).backward()
        run.optimizer.step()
    assert scheme.rewirings() == expected.scheme.rewirings() != 0
    assert all(torch.equal(values, run.dense()[name]) for name, values in expected.dense().items())


def test_a_schedule_that_needs_a_length_says_so() -> None:
    scheme = RigL(density=0.3, interval=1)
    scheme.attach(ToyModel(SIZES), Streams(0))
    with pytest.raises(RuntimeError, match="before_training"):
        scheme.before_backward(1)


def test_dynamic_parts_of_a_combination_are_told_and_counted_together() -> None:
    parts = {"a": SET(density=0.3, layers=["first"]), "b": GMP(density=0.2, interval=3, layers=["second.weight"])}
    scheme = Combined(parts=parts)
    run = training(scheme, epochs=2, steps=40)
    assert scheme.asked() == "a: density 0.3, b: density 0.2"
    assert (scheme.reached(), scheme.rewirings(), scheme.warnings()) == (False, 0, [])
    first, second = (scheme.weights[name] for name in LAYERS)
    drawn = first.active
    run.train(20)
    run.end_epoch(0)
    assert first.active == drawn
    assert not scheme.reached()
    run.train(20)
    assert scheme.reached()
    assert second.active == round(0.2 * 256)
    run.end_epoch(1, last=True)
    assert first.active < drawn
    assert scheme.rewirings() == parts["a"].rewirings() + parts["b"].rewirings() > 3
    assert parts["a"].rewirings() == 2
    scheme.before_training(lambda: Length(1, 40))
    assert len(scheme.warnings()) == 1
    assert "SET never rewires in this run" in scheme.warnings()[0]
    static = Combined(parts={"a": StaticER(density=0.3, layers=["first"])})
    assert training(static).scheme.rewirings() is None


def test_every_dynamic_scheme_is_one() -> None:
    assert all(issubclass(scheme, Dynamic) for scheme in (SET, RigL, GMP, GraNet, SRigL, CHTs, CHTss, MEST, SNFS))
    assert not issubclass(StaticER, Dynamic)


def test_lamp_shares_the_density_among_layers() -> None:
    """The first layer's weights are a hundred times as large, and LAMP sees each within its layer."""
    counts = {}
    for score in ("magnitude", "lamp"):
        model = ToyModel(SIZES)
        with torch.no_grad():
            model.second.weight.copy_(model.first.weight.repeat(1, 2))
            model.first.weight.mul_(100)
        scheme = GMP(density=0.25, score=score)
        scheme.attach(model, Streams(0))
        scheme.before_training(lambda: Length(1, 100))
        scheme.rewire(0.0, None, Streams(0), density=0.25)
        counts[score] = [scheme.weights[name].active for name in LAYERS]
    assert counts["magnitude"] == [96, 0]
    assert sum(counts["lamp"]) == 96
    assert min(counts["lamp"]) > 20
