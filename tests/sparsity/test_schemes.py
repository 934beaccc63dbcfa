"""Schemes on a small model: what they select, how many weights they leave, and what they refuse."""

import pytest
import torch
from torch import nn

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.counting import count
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.sparsity.schemes.combined import Combined
from sparse_bench.sparsity.schemes.dense import Dense
from sparse_bench.sparsity.schemes.gmp import GMP
from sparse_bench.sparsity.schemes.random import Random
from sparse_bench.sparsity.schemes.random_connected import RandomConnected
from sparse_bench.sparsity.schemes.random_fan_in import RandomFanIn
from sparse_bench.sparsity.schemes.rigl import RigL
from sparse_bench.sparsity.schemes.set import SET
from sparse_bench.sparsity.schemes.small_dense import SmallDense
from sparse_bench.sparsity.schemes.sparse_ift import SparseIFT
from sparse_bench.sparsity.schemes.static_er import StaticER
from sparse_bench.sparsity.selection import heads, select
from sparse_bench.streams import Streams
from tests.toy import ToyModel

SIZES = {"inputs": 8, "classes": 2}


class Factory:
    def __call__(self, **settings: int) -> ToyModel:
        return ToyModel(SIZES, **settings)

    def widths(self, **settings: int) -> list[dict[str, int]]:
        return ToyModel.widths({"width": 16, **settings})


def attached(scheme: Scheme, seed: int = 0) -> ToyModel:
    torch.manual_seed(0)
    model = scheme.build(Factory())
    scheme.attach(model, Streams(seed))
    assert isinstance(model, ToyModel)
    return model


@pytest.mark.parametrize(("density", "expected"), [(0.0, 0), (0.1, 38), (0.5, 192), (1.0, 384)])
@pytest.mark.parametrize("distribution", ["uniform", "erdos_renyi"])
def test_random_has_the_exact_count(density: float, expected: int, distribution: str) -> None:
    scheme = Random(density=density, distribution=distribution)
    counts = count(attached(scheme), scheme)
    assert counts.sparse_layers == expected
    assert counts.groups["output"].active == 32


def test_the_topology_depends_on_the_seed_and_the_layer_alone() -> None:
    masks = {}
    for key, scheme, seed in [
        ("both", Random(density=0.5), 0),
        ("one", Random(density=0.5, layers=["first"]), 0),
        ("seed", Random(density=0.5), 1),
    ]:
        attached(scheme, seed)
        masks[key] = scheme.weights["first.weight"].mask
    assert torch.equal(masks["both"], masks["one"])
    assert not torch.equal(masks["both"], masks["seed"])


@pytest.mark.parametrize(
    "scheme",
    [Random(density=0.5), RandomConnected(density=0.5), StaticER(density=0.5), RandomFanIn(density=0.5)],
    ids=lambda scheme: type(scheme).__name__,
)
def test_layers_of_the_same_shape_have_topologies_of_their_own(scheme: Scheme) -> None:
    one, other = scheme.first_topology({"a.weight": (20, 20), "b.weight": (20, 20)}, Streams(0)).values()
    assert not torch.equal(one, other)


def test_dense_weights_can_start_as_small_as_the_products_of_sparse_ones() -> None:
    plain, scaled = attached(Dense()), attached(Dense(gain=0.5, layers=["first"]))
    assert torch.equal(scaled.first.weight, 0.5 * plain.first.weight)
    assert torch.equal(scaled.output.weight, plain.output.weight)
    with pytest.raises(ConfigError, match=r"'gain' = 0 does not fit: it has to be more than 0"):
        Dense(gain=0)


def test_random_connected_keeps_the_initial_weights_unscaled() -> None:
    scheme = RandomConnected(density=0.2)
    sparse, dense = attached(scheme), attached(Dense())
    mask = scheme.weights["second.weight"].mask
    assert torch.equal(sparse.second.weight, dense.second.weight * mask)
    assert mask.diagonal().all()


def test_random_connected_at_density_one_has_no_mask() -> None:
    scheme = RandomConnected(density=1.0)
    model = attached(scheme)
    assert scheme.weights == {}
    assert count(model, scheme).density == 1.0
    assert not dict(model.named_buffers())


def test_small_dense_takes_the_nearest_width() -> None:
    """Width w holds 8w + w² weights in the default group; the full model's 16 → 384."""
    for density, width in [(1.0, 16), (0.5, 10), (0.25, 7), (0.0, 1)]:
        model = attached(SmallDense(density=density))
        assert model.first.out_features == width
    # 0.5 · 384 = 192: width 10 → 180 (12 away), 11 → 209 (17 away); 96: width 6 → 84 (12 away), 7 → 105 (9 away)


@pytest.mark.parametrize(
    ("scheme", "asked"),
    [
        (Random(density=0.999), "density 0.999"),  # 383.6 of 384 weights
        (RandomConnected(density=0.999999), "density 0.999999"),
        (RandomConnected(density=0.0, layers=["unit.weight"]), "density 0"),  # the tiled identity is all there is
        (StaticER(epsilon=20), "epsilon 20"),
        (SET(epsilon=20), "epsilon 20"),
        (RigL(density=0.999), "density 0.999"),
        (GMP(density=0.999), "density 0.999"),
        (SmallDense(density=0.99), "density 0.99"),
        (Combined(parts={"a": Random(density=0.5), "b": Random(density=0.99, layers=["output"])}), "density 0.99"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Scheme) else "",
)
def test_a_scheme_that_would_remove_nothing_is_refused(scheme: Scheme, asked: str) -> None:
    model = scheme.build(Factory())
    model.unit = torch.nn.Linear(1, 3)
    with pytest.raises(ConfigError, match=rf"\({asked}\) removes no weight from .*would train the dense model\. Use"):
        scheme.attach(model, Streams(0))


@pytest.mark.parametrize(
    "scheme",
    [Dense(), Random(), RandomConnected(), StaticER(density=1.0), SET(density=1.0), GMP(), SmallDense()],
    ids=lambda scheme: type(scheme).__name__,
)
def test_what_is_asked_to_stay_dense_stays_dense(scheme: Scheme) -> None:
    model = attached(scheme)
    assert scheme.asked() is None
    assert scheme.reached()
    assert count(model, scheme).density == 1.0


def test_dense_is_dense() -> None:
    with pytest.raises(ConfigError, match="small_dense"):
        Dense(density=0.5)


def test_selection_by_group_and_pattern() -> None:
    model = ToyModel(SIZES)
    groups = model.layer_groups()
    assert select(model, groups, ["output", "first"]) == ["first.weight", "output.weight"]
    assert select(model, groups, ["*.weight"]) == ["first.weight", "second.weight", "output.weight"]
    assert select(model, groups, ["second.weight", "default"]) == ["first.weight", "second.weight"]
    with pytest.raises(ConfigError, match=r"Did you mean 'first'\? Valid choices: default, first, output"):
        select(model, groups, ["firts"])
    with pytest.raises(ConfigError, match=r"matches no weight matrix\. Weight matrices: first.weight"):
        select(model, groups, ["encoder.*"])


def test_torchs_attention_holds_the_heads_of_three_matrices_in_one() -> None:
    model = nn.ModuleDict({"first": nn.MultiheadAttention(8, 2), "second": nn.Linear(8, 8)})
    assert heads(model) == {"first.in_proj_weight": 6}
    assert heads(nn.MultiheadAttention(8, 4)) == {"in_proj_weight": 12}


def test_declared_groups_are_the_real_ones() -> None:
    assert set(ToyModel.groups) == set(ToyModel(SIZES).layer_groups())


def test_unknown_distribution_names_the_choices() -> None:
    with pytest.raises(ConfigError, match="erdos_renyi, lamp, snip, uniform"):
        Random(distribution="binomial")


def test_a_width_that_is_far_from_the_density_is_told() -> None:
    near, far = SmallDense(density=0.5), SmallDense(density=0.001)
    attached(near), attached(far)
    assert near.warnings() == []
    assert far.warnings() == [
        "small_dense: density 0.001 means 0 weights in the selected layers, and the nearest width has 9."
    ]


@pytest.mark.parametrize(("density", "width", "second"), [(0.25, 32, 256), (0.1, 51, 260), (0.5, 23, 264)])
def test_sparse_ift_is_wider_by_the_root_of_the_density(density: float, width: int, second: int) -> None:
    """16 / √d is 32, 50.6 and 22.6 units. The dense square matrix has 256 weights."""
    scheme = SparseIFT(density=density, layers=["second.weight"])
    model = attached(scheme)
    assert model.second.weight.shape == (width, width)
    assert scheme.weights["second.weight"].active == second
    assert scheme.warnings() == []


def test_sparse_ift_says_where_equal_costs_are_not_reached() -> None:
    """The first layer has 8 inputs at every width: 0.1 · 8 · 51 = 41 weights instead of 128."""
    scheme = SparseIFT(density=0.1, layers=["first"])
    attached(scheme)
    assert scheme.warnings() == [
        "sparse_ift: the selected layers have 41 weights, and those of the dense model 128: not all of their sides "
        "grow with the width."
    ]
