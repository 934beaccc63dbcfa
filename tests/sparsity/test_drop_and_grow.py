"""GraNet, SRigL, CHTs, CHTss, MEST, SNFS and tiles in training: each rule beside one written out here."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparse_bench as sb
from sparse_bench.errors import ConfigError
from sparse_bench.kernels.block import tile_side
from sparse_bench.kernels.structure import SparseStructure
from sparse_bench.models.attention import MultiHeadAttention
from sparse_bench.sparsity.dynamics.bipartite import ch2_l3n, relative_importance
from sparse_bench.sparsity.dynamics.tiles import in_tiles, tiles_of
from sparse_bench.sparsity.scheme import Length, Scheme
from sparse_bench.sparsity.schemes.chts import CHTs
from sparse_bench.sparsity.schemes.chtss import CHTss
from sparse_bench.sparsity.schemes.gmp import GMP
from sparse_bench.sparsity.schemes.granet import GraNet
from sparse_bench.sparsity.schemes.mest import MEST
from sparse_bench.sparsity.schemes.rigl import RigL
from sparse_bench.sparsity.schemes.set import SET
from sparse_bench.sparsity.schemes.snfs import SNFS
from sparse_bench.sparsity.schemes.srigl import SRigL
from sparse_bench.sparsity.schemes.static_er import StaticER
from sparse_bench.sparsity.weights import CompressedWeight
from sparse_bench.streams import Streams
from tests.sparsity.test_dynamic_schemes import LAYERS, SIZES, Training, loss_of, training
from tests.toy import ToyModel


def reference(run: Training, step: int) -> dict[str, Tensor]:
    """Dense gradients of a step by hand: a dense model with the same weights sees the same batch."""
    model = ToyModel(SIZES, dropout=0.0)
    others = {name: p for name, p in run.model.state_dict().items() if "bias" in name or "output" in name}
    model.load_state_dict(run.dense() | others)
    loss_of(model, step).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if name in LAYERS and p.grad is not None}


def smallest(score: Tensor, among: Tensor, count: int) -> Tensor:
    """Where the ``count`` smallest scores are ``among`` some places."""
    found = torch.zeros_like(among)
    order = score.masked_fill(~among, math.inf).flatten().argsort(stable=True)[:count]
    found.view(-1)[order] = True
    return found


@pytest.mark.parametrize("execution", ["masked", "kernel"])
def test_granet_prunes_everywhere_and_then_exchanges_in_each_layer(execution: str) -> None:
    run = training(GraNet(density=0.2, interval=4, fraction=0.4, final_fraction=0.1, execution=execution), steps=40)
    assert sum(weight.active for weight in run.scheme.weights.values()) == 192
    run.train(7)
    gradient = reference(run, 8)
    run.before_rewiring()
    values, masks = run.dense(), run.masks()
    run.scheme.after_step(8, run.optimizer, run.streams)
    progress = 8 / 30
    kept_everywhere = round((0.5 - 0.3 * (1 - (1 - progress) ** 3)) * 384)
    sizes = torch.cat([values[name][masks[name]].abs() for name in LAYERS]).sort(descending=True).values
    fraction = 0.1 + 0.15 * (1 + math.cos(math.pi * progress))
    for name in LAYERS:
        left = masks[name] & (values[name].abs() >= sizes[kept_everywhere - 1])
        number = round(fraction * int(left.sum()))
        kept = left & ~smallest(values[name].abs(), left, number)
        grown = smallest(-gradient[name].abs(), ~kept, number)
        assert torch.equal(run.scheme.weights[name].mask, kept | grown)
        assert torch.equal(run.scheme.weights[name].dense(), values[name] * kept)


def test_granet_ends_at_its_density_whatever_the_interval_and_may_begin_dense() -> None:
    for settings in ({"interval": 7}, {"interval": 3, "initial_density": 1.0}, {"interval": 50}):
        run = training(GraNet(density=0.21, **settings), steps=41)
        run.train(20)
        assert not run.scheme.reached()
        run.train(21)
        assert sum(weight.active for weight in run.scheme.weights.values()) == round(0.21 * 384)
        assert sum(int(values.ne(0).sum()) for values in run.dense().values()) <= round(0.21 * 384)
        assert run.scheme.reached()
    with pytest.raises(ConfigError, match="initial_density"):
        GraNet(density=0.6)
    assert "all at once" in " ".join(training(GraNet(density=0.2, interval=50), steps=40).scheme.warnings())


def test_srigl_keeps_a_constant_fan_in_and_never_ablates_the_last_layer() -> None:
    scheme = SRigL(density=0.3, interval=2, gamma=0.95, fraction=0.5)
    run = training(scheme, steps=60)
    fan_in = {name: int(mask.sum(1)[0]) for name, mask in run.masks().items()}
    assert fan_in == {"first.weight": 3, "second.weight": 4}  # Erdős–Rényi: 49.3 of 16 units, and 65.7 of 16
    ablated = []
    for _ in range(30):
        run.train(2)
        for name, mask in run.masks().items():
            number = mask.sum(1)
            live = int((number > 0).sum())
            assert set(number[number > 0].tolist()) == {16 * fan_in[name] // live}
            assert run.scheme.weights[name].active == int(mask.sum())
            assert not run.dense()[name][~mask].any()
        ablated.append(16 - int(run.masks()["first.weight"].any(1).sum()))
        assert run.masks()["second.weight"].any(1).all()
    assert max(ablated) > 0
    assert training(SRigL(density=0.3, interval=2, gamma=0.0), steps=60).masks()["first.weight"].any(1).all()


def test_srigl_refuses_what_has_no_fan_in() -> None:
    with pytest.raises(ConfigError, match=r"leaves the units of 'first\.weight' without an input"):
        training(SRigL(density=0.02, distribution="uniform"))

    class Transposed(nn.Linear):
        rows_are_inputs = True

    with pytest.raises(ConfigError, match=r"The rows of '0\.weight' .* are inputs"):
        SRigL(density=0.5).attach(nn.Sequential(Transposed(4, 4)), Streams(0))


@pytest.mark.parametrize("growth", ["sampled", "top"])
def test_chts_exchanges_an_exact_number_along_paths(growth: str) -> None:
    run = training(CHTs(density=0.3, interval=4, fraction=0.5, growth=growth), steps=40)
    active = {name: weight.active for name, weight in run.scheme.weights.items()}
    assert sum(active.values()) == round(0.3 * 384)
    run.train(3)
    run.before_rewiring()
    run.without_zeros()
    values, masks = run.dense(), run.masks()
    run.scheme.after_step(4, run.optimizer, run.streams)
    for name in LAYERS:
        number = round(0.25 * (1 + math.cos(math.pi * 4 / 30)) * active[name])
        now = run.scheme.weights[name].mask
        kept = masks[name] & (run.dense()[name] != 0)
        assert int(kept.sum()) == active[name] - number
        assert int(now.sum()) == active[name]
        assert torch.equal(run.dense()[name], values[name] * kept)
        score = ch2_l3n(kept)
        grown = now & ~kept
        assert int((score[~kept] > 0).sum()) >= number
        assert (score[grown] > 0).all()
        if growth == "top":
            assert score[grown].min() >= score[~now].max()


def test_chts_drops_softly_and_ever_harder() -> None:
    """The share of drops that a ranking by size would make too rises with τ; zeros always go first."""
    agreed = {}
    for softness, step in ((1.0, 30), (9.0, 1), (9.0, 30)):
        run = training(CHTs(density=0.9, softness=softness), steps=40)
        scheme: Any = run.scheme
        scheme.step = step
        found = []
        for seed in range(30):
            gone = scheme.removed("second.weight", 0.3, torch.Generator().manual_seed(seed))
            places, values = scheme.weights["second.weight"].entries()
            by_size = places[values.abs().argsort()[: gone.numel()]]
            found.append(torch.isin(gone, by_size).float().mean().item())
        agreed[softness, step] = sum(found) / 30
    assert agreed[1.0, 30] == pytest.approx(agreed[9.0, 1], abs=0.08)  # τ = 1.27 at the first step
    assert agreed[9.0, 30] > agreed[1.0, 30] + 0.1
    run = training(CHTs(density=0.5))
    weight = run.scheme.weights["second.weight"]
    places, values = weight.entries()
    weight.rewire(places[:9], places[:9], torch.zeros(9), None)
    fraction = 9 / weight.active
    assert torch.equal(run.scheme.removed("second.weight", fraction, torch.Generator()), places[:9])  # type: ignore[attr-defined]


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(8, 2, scale=0.5)
        self.torchs = nn.MultiheadAttention(8, 4)


@pytest.mark.parametrize("make", [CHTs, CHTss])
def test_queries_keys_and_values_are_rewired_head_by_head(make: Any) -> None:
    scheme = make(density=0.35, fraction=0.5, interval=1, layers=["*"])
    scheme.attach(Attentive(), Streams(0))
    scheme.before_training(lambda: Length(1, 20))
    heads = {name: scheme.heads(name) for name in scheme.weights}
    assert heads["attention.query.weight"] == heads["attention.value.weight"] == 2
    assert heads["torchs.in_proj_weight"] == 12
    assert heads["attention.output.weight"] == heads["torchs.out_proj.weight"] == 1
    optimizer = torch.optim.Adam(
        [weight.owner.get_parameter(name.split(".")[-1]) for name, weight in scheme.weights.items()]
    )
    shapes = {name: weight.shape for name, weight in scheme.weights.items()}
    for step in range(1, 18):
        scheme.after_step(step, optimizer, Streams(0))
        density = scheme.density
        if make is CHTss and step < 16:
            density = scheme.dynamics.pruning.after_step(step, lambda: Length(1, 20))
        for name, counts in scheme.counts_by_head(shapes, density).items():
            per_head = scheme.weights[name].mask.unflatten(0, (heads[name], -1)).sum((1, 2))
            assert per_head.tolist() == counts
            assert max(counts) - min(counts) <= 1
    size = sum(weight.size for weight in scheme.weights.values())
    assert sum(weight.active for weight in scheme.weights.values()) == round(0.35 * size)


def test_chtss_prunes_the_least_important_weights_of_each_layer() -> None:
    run = training(CHTss(density=0.2, interval=4, fraction=0.0, end=0.6, stop=0.3), steps=40)
    assert sum(weight.active for weight in run.scheme.weights.values()) == 192
    run.train(11)
    run.before_rewiring()
    values, masks = run.dense(), run.masks()
    run.scheme.after_step(12, run.optimizer, run.streams)
    assert [run.scheme.weights[name].active for name in LAYERS] == [45, 89]  # halfway, 134 in all, of 44.8 and 89.6
    for name in LAYERS:
        now = run.scheme.weights[name].mask
        score = relative_importance(values[name])
        assert score[now].min() >= score[masks[name] & ~now].max()
    run.train(20)
    assert [run.scheme.weights[name].active for name in LAYERS] == [26, 51]  # of 25.6 and 51.2
    assert run.scheme.reached()


@pytest.mark.parametrize("execution", ["masked", "kernel"])
def test_mest_drops_by_weight_and_gradient(execution: str) -> None:
    run = training(MEST(density=0.4, interval=4, fraction=0.5, gradient_weight=2.0, execution=execution), steps=40)
    run.train(3)
    gradient = reference(run, 4)
    run.before_rewiring()
    run.without_zeros()
    values, masks = run.dense(), run.masks()
    run.scheme.after_step(4, run.optimizer, run.streams)
    fraction, differs = 0.25 * (1 + math.cos(math.pi * 4 / 30)), False
    for name, weight in run.scheme.weights.items():
        number = round(fraction * int(masks[name].sum()))
        dropped = smallest(values[name].abs() + 2.0 * gradient[name].abs(), masks[name], number)
        assert weight.active == int(weight.mask.sum()) == int(masks[name].sum())
        assert torch.equal(run.dense()[name], values[name] * (masks[name] & ~dropped))
        differs |= not torch.equal(dropped, smallest(values[name].abs(), masks[name], number))
    assert differs


@pytest.mark.parametrize("execution", ["masked", "csr"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_snfs_grows_by_dense_momentum_across_layers(execution: str, optimizer: str) -> None:
    run = training(SNFS(density=0.4, interval=5, execution=execution), steps=40)
    if optimizer == "sgd":
        run.optimizer = torch.optim.SGD(run.model.parameters(), lr=0.1, momentum=0.8)
    first, second = ({name: torch.zeros(weight.shape) for name, weight in run.scheme.weights.items()} for _ in range(2))
    beta = 0.9 if optimizer == "adam" else 0.8
    for step in range(1, 6):
        for name, gradient in reference(run, step).items():
            first[name] = beta * first[name] + (1 - beta) * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
        run.before_rewiring()
        if step < 5:
            run.scheme.after_step(step, run.optimizer, run.streams)
    values, masks = run.dense(), run.masks()
    run.scheme.after_step(5, run.optimizer, run.streams)
    fraction = 0.25 * (1 + math.cos(math.pi * 5 / 40))
    dropped = {name: round(fraction * int(masks[name].sum())) for name in LAYERS}
    score = {n: first[n].abs() / (second[n].sqrt() + 1e-8) if optimizer == "adam" else first[n].abs() for n in LAYERS}
    means = {name: score[name][masks[name]].mean().item() for name in LAYERS}
    for name in LAYERS:
        kept = masks[name] & ~smallest(values[name].abs(), masks[name], dropped[name])
        number = run.scheme.weights[name].active - int(kept.sum())
        assert number == pytest.approx(sum(dropped.values()) * means[name] / sum(means.values()), abs=1)
        assert torch.equal(run.scheme.weights[name].mask, kept | smallest(-score[name], ~kept, number))
    assert sum(weight.active for weight in run.scheme.weights.values()) == sum(
        int(mask.sum()) for mask in masks.values()
    )


def test_snfs_momentum_survives_a_step_that_overflows() -> None:
    run = training(SNFS(density=0.4, interval=100), steps=400)
    run.train(2)
    scheme: Any = run.scheme
    before = {name: momentum.clone() for name, momentum in scheme._momentum.items()}
    run.step += 1
    scheme.before_backward(run.step)
    (loss_of(run.model, run.step) * float("inf")).backward()
    scheme.after_backward()
    scheme.before_step(run.optimizer)
    assert all(torch.equal(momentum, before[name]) for name, momentum in scheme._momentum.items())


@pytest.mark.parametrize("execution", ["masked", "block"])
@pytest.mark.parametrize("make", [SET, RigL, MEST, SNFS])
def test_tiles_stay_whole_and_as_many_as_they_were(make: Any, execution: str) -> None:
    settings = {} if make is SET else {"interval": 3}
    run = training(make(density=0.3, sampling="exact", block=4, execution=execution, **settings))
    tiles = sum(weight.active for weight in run.scheme.weights.values()) / 16
    assert tiles == round(0.3 * 24)
    first = run.masks()
    for epoch in range(3):
        run.train(6)
        run.end_epoch(epoch)
        for weight in run.scheme.weights.values():
            mask = weight.mask
            assert set(in_tiles(mask.float(), 4).flatten().tolist()) <= {0.0, 16.0}
            assert weight.active == int(mask.sum())
            assert tile_side(SparseStructure(mask)) >= 4
        assert sum(weight.active for weight in run.scheme.weights.values()) == 16 * tiles
    assert not all(torch.equal(mask, first[name]) for name, mask in run.masks().items())


def test_tiles_are_judged_by_their_sums() -> None:
    run = training(RigL(density=0.5, interval=4, fraction=0.6, block=4), steps=40)
    run.train(3)
    gradient = reference(run, 4)
    run.before_rewiring()
    values, masks = run.dense(), run.masks()
    run.scheme.after_step(4, run.optimizer, run.streams)
    for name in LAYERS:
        tiles = tiles_of(masks[name], 4)
        number = round(0.3 * (1 + math.cos(math.pi * 4 / 30)) * int(tiles.sum()))
        kept = tiles & ~smallest(in_tiles(values[name].abs(), 4), tiles, number)
        grown = smallest(-in_tiles(gradient[name].abs(), 4), ~kept, number)
        assert torch.equal(tiles_of(run.scheme.weights[name].mask, 4), kept | grown)
        assert number > 0


def test_tiles_have_to_fit() -> None:
    with pytest.raises(ConfigError, match=r"block = 16 does not divide 'first\.weight', which is 16 × 8"):
        training(StaticER(density=0.3, block=16))
    assert training(StaticER(epsilon=2.0, block=8)).scheme.weights["second.weight"].active % 64 == 0


MAKES: list[Any] = [
    lambda **more: GraNet(density=0.2, interval=3, new_weight_adam="own_step", **more),
    lambda **more: SRigL(density=0.4, interval=3, gamma=0.6, **more),
    lambda **more: CHTs(density=0.4, interval=3, **more),
    lambda **more: CHTss(density=0.2, interval=3, **more),
    lambda **more: MEST(density=0.4, interval=3, gradient_weight=1.0, new_weight_adam="warm_up", **more),
    lambda **more: SNFS(density=0.4, interval=3, **more),
]
NAMES = ["granet", "srigl", "chts", "chtss", "mest", "snfs"]


@pytest.mark.parametrize("make", MAKES, ids=NAMES)
def test_a_step_without_rewiring_reads_no_value(make: Any) -> None:
    """The meta device has no values to read."""
    scheme: Scheme = make()
    scheme.interval = 10  # type: ignore[attr-defined]
    scheme.__post_init__()
    with torch.device("meta"):
        model = ToyModel(SIZES)
    scheme.attach(model, Streams(0))
    scheme.before_training(lambda: Length(4, 400))
    optimizer = torch.optim.Adam(model.parameters())
    for step in range(1, 4):
        scheme.before_backward(step)
        model(torch.randn(4, 8, device="meta")).sum().backward()
        scheme.after_backward()
        scheme.before_step(optimizer)
        optimizer.step()
        scheme.after_step(step, optimizer, Streams(0))


@pytest.mark.parametrize("make", MAKES, ids=NAMES)
def test_half_batches_are_ranked_as_their_sum(make: Any) -> None:
    whole, halves = training(make()), training(make())
    whole.train(9)
    for step in range(1, 10):
        halves.scheme.before_backward(step)
        halves.optimizer.zero_grad()
        halves.step = step
        loss = loss_of(halves.model, step)
        for _ in range(2):  # the same batch twice is not the last one alone, and costs no rounding
            (loss / 2).backward(retain_graph=True)
        halves.scheme.after_backward()
        halves.scheme.before_step(halves.optimizer)
        halves.optimizer.step()
        halves.scheme.after_step(step, halves.optimizer, halves.streams)
    assert all(torch.equal(mask, halves.masks()[name]) for name, mask in whole.masks().items())


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("make", MAKES, ids=NAMES)
def test_a_step_that_loss_scaling_leaves_out_changes_no_topology(make: Any, fused: bool) -> None:
    """And the scale is no part of any ranking."""
    found = []
    for scale, bad in ((1.0, None), (1024.0, None), (1024.0, 3)):
        torch.manual_seed(0)
        model = ToyModel(SIZES, dropout=0.0)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02, fused=fused)
        sparse = sb.sparsify(model, optimizer, make(), steps=40)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
        masks = [{name: weight.mask.clone() for name, weight in sparse.scheme.weights.items()}]
        for step in range(1, 8):
            optimizer.zero_grad()
            loss = loss_of(model, step) * (math.inf if step == bad else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            masks.append({name: weight.mask.clone() for name, weight in sparse.scheme.weights.items()})
        found.append(masks)
    plain, scaled, skipping = found
    for one, other in zip(plain, scaled, strict=True):
        assert all(torch.equal(mask, other[name]) for name, mask in one.items())
    assert all(torch.equal(mask, skipping[0][name]) for name, mask in skipping[3].items())
    assert not all(torch.equal(mask, skipping[3][name]) for name, mask in skipping[4].items())


@pytest.mark.parametrize("make", MAKES, ids=NAMES)
def test_the_library_takes_them_on_linear_layers_and_an_lstm(make: Any) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read, self.lstm, self.out = nn.Linear(5, 8), nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.lstm(torch.relu(self.read(x)))[0])

    torch.manual_seed(0)
    model = Recurrent()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    sparse = sb.sparsify(model, optimizer, make(execution="auto", layers=["read.weight", "lstm.weight_*"]), steps=30)
    first = sparse.report()
    x = torch.randn(4, 3, 5)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (model(x) - x[..., :2]).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert any(isinstance(weight, CompressedWeight) for weight in sparse.scheme.weights.values())
    assert (sparse.report()["rewirings"] > first["rewirings"]).all()
    assert sparse.scheme.reached()


def test_a_pruning_that_was_put_off_is_made_up_for() -> None:
    """The last step that prunes overflows; the next one exchanges weights, and prunes nothing by itself."""
    run = training(CHTss(density=0.2, interval=1, end=0.5, stop=0.8), steps=10)
    run.train(4)
    before = run.masks()
    step = run.before_rewiring()
    run.optimizer.found_inf = torch.ones(())  # type: ignore[attr-defined]
    run.scheme.after_step(step, run.optimizer, run.streams)
    assert all(torch.equal(mask, before[name]) for name, mask in run.masks().items())
    del run.optimizer.found_inf  # type: ignore[attr-defined]
    again = training(CHTss(density=0.2, interval=1, end=0.5, stop=0.8), steps=10)
    again.model.load_state_dict(run.model.state_dict())
    again.scheme.load_state_dict(run.scheme.state_dict())
    again.step = run.step
    for one in (run, again):
        one.train(1)
        assert sum(weight.active for weight in one.scheme.weights.values()) == 77
        assert one.scheme.reached()


def test_a_change_that_an_earlier_version_put_off_is_understood() -> None:
    for scheme, expected in ((GMP(density=0.2), (0.0, 0.3)), (RigL(density=0.2), (0.3, None))):
        training(scheme)
        scheme.load_state_dict({**scheme.state_dict(), "put_off": 0.3})
        assert scheme._put_off == expected
