"""Where parts of different origin meet: schemes in one model, options of one scheme, and the loops that drive them."""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

import sparse_bench as sb
from sparse_bench.batch.text import TextSizes
from sparse_bench.errors import ConfigError
from sparse_bench.library import SparseTraining
from sparse_bench.model_factory import ModelFactory
from sparse_bench.models.bag_of_embeddings import BagOfEmbeddings
from sparse_bench.run import run
from sparse_bench.sparsity.counting import count
from sparse_bench.sparsity.held import HeldWeight
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.sparsity.schemes.lottery import LotteryTicket
from sparse_bench.sparsity.schemes.small_dense import SmallDense
from sparse_bench.sparsity.schemes.sparse_gradient import SparseGradient
from sparse_bench.sparsity.schemes.sparse_ift import SparseIFT
from sparse_bench.streams import Streams


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.lstm, self.output = nn.Embedding(24, 8), nn.LSTM(8, 12), nn.Linear(12, 4)

    def forward(self, words: Tensor) -> Tensor:
        return self.output(self.lstm(self.table(words))[0])


def adam(model: nn.Module, **settings: Any) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), lr=0.02, **settings)


def points(step: int) -> Tensor:
    return torch.randn(8, 8, generator=torch.Generator().manual_seed(step))


def train(sparse: SparseTraining, steps: range, scale: Callable[[int], float] = lambda step: 1.0) -> None:
    for step in steps:
        ((sparse.model(points(step)) - 1).square().mean() * scale(step)).backward()
        for parameter in sparse.model.parameters():
            assert parameter.grad is not None
            parameter.grad /= scale(step)
        sparse.optimizer.step()
        sparse.optimizer.zero_grad()


def combined(*parts: Scheme) -> sb.Combined:
    return sb.Combined(parts={f"part{number}": part for number, part in enumerate(parts)})


def test_what_a_scheme_cannot_do_alone_it_cannot_do_as_a_part() -> None:
    first = ["0.weight"]
    model = mlp()
    with pytest.raises(ConfigError, match="LBFGS computes the loss several times"):
        sb.sparsify(model, torch.optim.LBFGS(model.parameters()), combined(sb.STE(density=0.5, layers=first)), steps=3)
    with pytest.raises(ConfigError, match="SET rewires between epochs: give steps_per_epoch"):
        sb.sparsify(model, adam(model), combined(sb.SET(density=0.5, layers=first)), steps=3)
    model[0].weight.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"'0\.weight' is frozen, and RigL grows"):
        sb.sparsify(model, adam(model), combined(sb.RigL(density=0.5, layers=first)), steps=3)
    with pytest.raises(ConfigError, match="width_ratio and sigma belong to the parts"):
        sb.Combined(parts={"one": sb.Random(density=0.5)}, width_ratio=2.0)
    with pytest.raises(ConfigError, match="BlockDiagonal gives its layers rates and first weights of their own"):
        sb.BlockDiagonal(mode="blocks", blocks=2, width_ratio=2.0)


def test_only_the_layers_of_the_parts_are_looked_at() -> None:
    tied = mlp()
    tied.extra = nn.Linear(8, 4)
    tied.extra.weight = tied[4].weight
    sb.sparsify(tied, adam(tied), combined(sb.Random(density=0.5, layers=["0.weight"])), steps=3)
    with pytest.raises(ConfigError, match=r"'4\.weight' is tied to extra\.weight"):
        sb.sparsify(tied, adam(tied), combined(sb.Random(density=0.5, layers=["4.weight"])), steps=3)


def test_one_part_that_is_sparser_does_not_make_up_for_another() -> None:
    """The second layer has lost all of its weights, and the first is still dense."""
    model = mlp()
    scheme = combined(sb.GMP(density=0.5, layers=["0.weight"]), sb.GMP(density=0.9, layers=["2.weight"]))
    sb.sparsify(model, adam(model), scheme, steps=9)
    weight = scheme.weights["2.weight"]
    gone = torch.arange(128)
    weight.rewire(gone, gone[:0], torch.zeros(0), None)
    assert scheme.missing() >= scheme.missing_in_the_end()
    assert not scheme.reached()


@pytest.mark.parametrize("make", [sb.RigL, sb.SNFS])
def test_a_tile_with_a_zero_in_it_is_loaded_whole(make: Callable[..., Scheme]) -> None:
    source, target = (
        sb.sparsify(model, adam(model), make(density=0.25, block=4, interval=2), steps=9) for model in (mlp(), mlp())
    )
    state = source.export().state_dict()
    name, weight = "0.weight", source.scheme.weights["0.weight"]
    state[name].view(-1)[weight.entries()[0][0]] = 0.0
    target.load_exported(state)
    assert torch.equal(target.scheme.weights[name].mask, weight.mask)
    train(target, range(5))
    for one in target.scheme.weights.values():
        assert one.active == int(one.mask.sum())
        assert one.dense()[~one.mask].count_nonzero() == 0


def test_layers_of_a_predefined_shape_take_an_exported_state() -> None:
    def begin(blocks: int = 2) -> SparseTraining:
        tiers = sb.EmbeddingTiers(density=0.5, blocks=4, layers=["table.weight"])
        diagonal = sb.BlockDiagonal(mode="blocks", blocks=blocks, layers=["lstm.*", "output.weight"], permute=True)
        model = Words()
        return sb.sparsify(model, adam(model), combined(tiers, diagonal), steps=5)

    words = torch.arange(24).view(6, 4)
    source, target, other = begin(), begin(), begin(blocks=4)
    for sparse in (source, target):
        for _ in range(2):
            sparse.model(words).square().sum().backward()
            sparse.optimizer.step()
    with torch.no_grad():
        source.model.lstm.components[1].bias_hh_l0.add_(1.0)  # type: ignore[union-attr, index, operator]
    state = source.export().state_dict()
    target.load_exported(state)
    assert torch.equal(target.model(words), source.model(words))
    assert all(torch.equal(value, state[name]) for name, value in target.export().state_dict().items())
    moments = [entry["exp_avg"] for p, entry in target.optimizer.state.items() if p.dim() == 2]
    assert moments
    assert not any(moment.any() for moment in moments)
    with pytest.raises(ConfigError, match=r"'lstm\.weight_ih_l0' has weights where the layer's predefined shape has"):
        other.load_exported(state)


def test_chtss_ends_with_the_density_asked_for_whatever_is_rounded() -> None:
    """Near the end of the curve, rounding gave a layer one weight more than it had, which was lost then."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 9), nn.Linear(9, 5), nn.Linear(5, 11), nn.Linear(11, 3))
    scheme = sb.CHTss(density=0.3, interval=1, fraction=0.0)
    sparse = sb.sparsify(model, torch.optim.SGD(model.parameters(), lr=0.01), scheme, steps=200)
    for step in range(200):
        model(points(step)[:2, :7]).square().mean().backward()
        sparse.optimizer.step()
        sparse.optimizer.zero_grad()
    assert sum(weight.active for weight in scheme.weights.values()) == round(0.3 * scheme.size) == 59


@pytest.mark.parametrize("sampling", ["exact", "bernoulli"])
def test_tiles_are_shared_among_layers_by_scores(sampling: str) -> None:
    """The layers have 8, 8 and 2 tiles of 4 × 4, of which half exist."""
    model = mlp()
    scheme = sb.RigL(density=0.5, block=4, distribution="lamp", sampling=sampling)
    sparse = sb.sparsify(model, adam(model), scheme, steps=3)
    active = [weight.active for weight in sparse.scheme.weights.values()]
    assert all(number % 16 == 0 for number in active)
    if sampling == "exact":
        assert sum(active) == 9 * 16
    else:
        assert 0 < sum(active) < 18 * 16


def test_snfs_puts_a_change_off_beyond_its_stop() -> None:
    model = mlp()
    optimizer = adam(model, fused=True)
    scheme = sb.SNFS(density=0.25, interval=2, stop=0.12, fraction=1.0)  # until step 2.4
    sb.sparsify(model, optimizer, scheme, steps=20)
    for step in range(4):
        (model(points(step)) - 1).square().mean().backward()
        optimizer.found_inf, optimizer.grad_scale = torch.tensor(float(step == 1)), torch.tensor(1.0)  # type: ignore[attr-defined]
        optimizer.step()
        optimizer.zero_grad()
        assert scheme.rewirings() == [0, 0, 1, 1][step]


def test_snfs_averages_gradients_without_the_scale_of_the_loss() -> None:
    schemes = []
    for scale in (lambda step: 1.0, lambda step: 2.0 ** (3 * step % 11)):
        model = mlp()
        schemes.append(sb.SNFS(density=0.25, interval=4))
        train(sb.sparsify(model, adam(model), schemes[-1], steps=20), range(10), scale)
    plain, scaled = (scheme.state_dict()["momentum"] for scheme in schemes)
    for name, momentum in plain.items():
        assert torch.allclose(momentum, scaled[name], rtol=1e-3, atol=1e-9), name


def test_lottery_tickets_go_back_to_the_weights_of_supar() -> None:
    model = mlp()
    scheme = LotteryTicket(density=0.25, width_ratio=4.0, sigma=0.02)
    sparse = sb.sparsify(model, adam(model), scheme, steps=5)
    first = model[0].weight.detach().clone()
    train(sparse, range(5))
    scheme.next_stage(model)
    weight = scheme.weights["0.weight"]
    assert torch.equal(weight.dense(), first * weight.mask)


def test_the_best_weights_may_be_older_than_the_early_ones() -> None:
    model = mlp()
    scheme = LotteryTicket(density=0.25, rewind=3)
    sparse = sb.sparsify(model, adam(model), scheme, steps=5)
    best = copy.deepcopy(scheme.state_dict())
    train(sparse, range(3))
    early = model[0].weight.detach().clone()
    train(sparse, range(3, 5))
    scheme.load_state_dict(best)
    scheme.next_stage(model)
    weight = scheme.weights["0.weight"]
    assert torch.equal(weight.dense(), early * weight.mask)


def test_new_weights_follow_the_start_of_supar() -> None:
    """σ / √(mρ) = 0.001 / √(2 · 0.5); the model's own first weights are a hundred times as large."""
    model = mlp()
    scheme = sb.SET(density=0.5, new_weights="initial", zeta=0.5, width_ratio=2.0, sigma=0.001)
    sparse = sb.sparsify(model, torch.optim.Adam(model.parameters(), lr=0.0), scheme, steps=4, steps_per_epoch=1)
    train(sparse, range(3))
    for weight in scheme.weights.values():
        assert 0 < weight.entries()[1].abs().max() < 0.006


@pytest.mark.parametrize("make", [partial(sb.STE, end=0.0), sb.TopKAST])
def test_hidden_weights_follow_the_start_of_supar(make: Callable[..., Scheme]) -> None:
    model = mlp()
    scheme = make(density=0.25, width_ratio=2.0, sigma=0.01)
    sb.sparsify(model, adam(model), scheme, steps=4)
    weight = scheme.weights["0.weight"]
    assert isinstance(weight, HeldWeight)
    deviation = 0.01 / math.sqrt(2 * 0.25)
    assert float(weight.full.std()) == pytest.approx(deviation, rel=0.3)
    assert weight.full[weight.mask].abs().min() >= weight.full[~weight.mask].abs().max()
    assert weight.active == round(0.25 * weight.size)


@pytest.mark.parametrize(("kind", "width"), [(SmallDense, 7), (SparseIFT, 32)])
def test_rates_follow_the_width_that_a_scheme_chooses(kind: type[Scheme], width: int) -> None:
    """Density 0.25: of 16 units, the narrower model has 7 and the wider one 32. At 16 units m would be 4."""
    scheme = kind(density=0.25, width_ratio=4.0, sigma=0.5)
    factory = ModelFactory({"_target_": "tests.toy.ToyModel", "_partial_": True}, {"inputs": 8, "classes": 2})
    model = scheme.build(factory)
    assert model.second.out_features == width
    scheme.attach(model, Streams(0))
    optimizer = adam(model)
    scheme.scale_rates(optimizer, model)
    density = 1.0 if kind is SmallDense else 0.25
    scaled = next(group for group in optimizer.param_groups if any(p is model.second.weight for p in group["params"]))
    assert scaled["lr"] == pytest.approx(0.02 / (4 * width / 16 * density))
    values = model.second.weight.detach()
    assert float(values[values != 0].std()) == pytest.approx(0.5 / math.sqrt(4 * width / 16 * density), rel=0.25)


def test_a_narrower_model_with_sparse_gradients_is_described_as_without() -> None:
    def factory(**settings: Any) -> BagOfEmbeddings:
        sizes = TextSizes(vocabulary=20, frequencies=tuple(range(20, 0, -1)), types=3)
        return BagOfEmbeddings(sizes, **{"embedding_dim": 8, **settings})

    factory.widths = lambda **settings: BagOfEmbeddings.widths({"embedding_dim": 8} | settings)  # type: ignore[attr-defined]
    scheme = SparseGradient(combined_with=SmallDense(density=0.01, layers=["embedding"]))
    model = scheme.build(factory)
    scheme.attach(model, Streams(0))
    assert count(model, scheme).of_full == pytest.approx(1 / 8)
    assert "small_dense: density 0.01 means" in scheme.warnings()[0]


def test_products_are_those_of_the_trained_topology(toy_config: Callable[..., DictConfig]) -> None:
    """8 · 16 + 16 · 16 weights, of which a quarter exists in the end, and 32 of the output."""
    sparsity = {"_target_": "sparse_bench.sparsity.schemes.gmp.GMP", "density": 0.25, "interval": 3}
    result: Any = run(toy_config(sparsity=sparsity))
    assert result.macs_per_example == {"dense": 416, "sparse": 96 + 32}


def test_phases_of_both_kinds_are_counted() -> None:
    """Sparse after steps 2, 6 and 16, dense after 4 and 8."""
    model = mlp()
    scheme = sb.ACDC(density=0.25, phase=0.1, begin=0.1, last_dense=0.4, end=0.8)
    sparse = sb.sparsify(model, adam(model), scheme, steps=20)
    densities = []
    for step in range(20):
        train(sparse, range(step, step + 1))
        densities.append(1 - scheme.missing() / scheme.size)
    changes = sum(one != other for one, other in zip([1.0, *densities], densities, strict=False))
    assert changes == scheme.rewirings() == 5


def test_a_scheme_that_only_prunes_does_not_say_that_it_changes_nothing() -> None:
    model = mlp()
    with pytest.warns(UserWarning, match="GraNet never replaces weights in this run, and only prunes: "):
        sb.sparsify(model, adam(model), sb.GraNet(density=0.25, interval=2, fraction=0.0), steps=20)


def test_a_part_that_empties_the_optimizer_leaves_the_steps_of_another_part_alone() -> None:
    model = mlp()
    phases = sb.ACDC(density=0.25, phase=0.1, reset_moments=True, layers=["0.weight"])
    own = sb.RigL(density=0.25, interval=1, new_weight_adam="own_step", layers=["2.weight"])
    train(sb.sparsify(model, adam(model), combined(phases, own), steps=20), range(20))
    assert phases.rewirings()
    assert own.rewirings()
    assert model[2].weight.isfinite().all()
