"""Random graphs against hand-computed tables, and their invariants."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparse_bench.sparsity import topology
from sparse_bench.streams import Streams

SIDES = st.integers(1, 24)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_tiled_identity_by_hand() -> None:
    wide = [[1, 0, 1, 0, 1], [0, 1, 0, 1, 0]]
    assert topology.tiled_identity((2, 5)).int().tolist() == wide
    assert topology.tiled_identity((5, 2)).int().tolist() == [list(column) for column in zip(*wide, strict=True)]


@given(SIDES, SIDES)
def test_tiled_identity_leaves_nothing_unconnected(rows: int, columns: int) -> None:
    mask = topology.tiled_identity((rows, columns))
    assert mask.sum() == max(rows, columns)
    assert mask.any(0).all()
    assert mask.any(1).all()


def test_random_connected_expectation() -> None:
    """E = d·n·m + (1 − d)·max(n, m); the 8×8 example at density 0.25 has 22 weights, not 16."""
    counts = [topology.random_connected((8, 8), 0.25, generator(i)).sum().item() for i in range(2000)]
    mean, deviation = sum(counts) / len(counts), math.sqrt(56 * 0.25 * 0.75)
    assert mean == pytest.approx(22, abs=4 * deviation / math.sqrt(len(counts)))


@given(SIDES, SIDES, st.integers(0, 99))
def test_random_connected_at_density_zero_is_the_tiled_identity(rows: int, columns: int, seed: int) -> None:
    mask = topology.random_connected((rows, columns), 0.0, generator(seed))
    assert torch.equal(mask, topology.tiled_identity((rows, columns)))


@given(SIDES, SIDES, st.floats(0, 1), st.integers(0, 99))
def test_exact_has_exactly_that_many(rows: int, columns: int, share: float, seed: int) -> None:
    count = int(share * rows * columns)
    mask = topology.exact((rows, columns), count, generator(seed))
    assert mask.dtype == torch.bool
    assert mask.shape == (rows, columns)
    assert int(mask.sum()) == count


def test_exact_is_uniform_over_entries() -> None:
    total = sum(topology.exact((4, 5), 6, generator(i)).double() for i in range(4000)) / 4000
    assert isinstance(total, torch.Tensor)
    assert (total - 0.3).abs().max() < 5 * math.sqrt(0.3 * 0.7 / 4000)


def test_exact_refuses_more_than_there_is() -> None:
    with pytest.raises(ValueError, match="7 weights in a matrix of 6"):
        topology.exact((2, 3), 7, generator())


def test_erdos_renyi_by_hand() -> None:
    """Two layers 10×10 and 30×10: ε·20 + ε·40 = 0.3·400 = 120 weights, so ε = 2: 40 and 80."""
    shapes = {"a": (10, 10), "b": (30, 10)}
    assert topology.erdos_renyi_counts(shapes, 0.3) == {"a": 40, "b": 80}
    assert topology.uniform_counts(shapes, 0.3) == {"a": 30, "b": 90}


def test_erdos_renyi_makes_full_layers_dense_and_solves_again() -> None:
    """4×2 (8 entries) and 20×20 (400): ε = 204/46 gives the first 26.6 > 8, so it is full and the second has 196."""
    assert topology.erdos_renyi_counts({"small": (4, 2), "large": (20, 20)}, 0.5) == {"small": 8, "large": 196}


def test_a_layer_that_would_be_a_little_more_than_full_is_full() -> None:
    """10×10, 10×200 and 40×40 at ε = 9: the first would have 180 of 100. With it full ε is 2690/290 for the others."""
    shapes = {"small": (10, 10), "wide": (10, 200), "square": (40, 40)}
    assert topology.erdos_renyi_counts(shapes, 2790 / 3700) == {"small": 100, "wide": 1948, "square": 742}


@pytest.mark.parametrize(
    ("shares", "total", "sizes", "expected"),
    [
        ([0.9, 0.1], 1, [9, 9], [1, 0]),
        ([0.1, 0.9], 1, [9, 9], [0, 1]),
        ([0.5, 0.5], 1, [9, 9], [1, 0]),  # of equal remainders the first
        ([2.2, 3.7, 1.1], 7, [9, 9, 9], [2, 4, 1]),
        ([2.4, 3.7, 1.9], 8, [9, 9, 9], [2, 4, 2]),
        ([2.9, 1.1], 4, [2, 9], [2, 2]),  # what a full layer cannot take goes to the other
        ([5.0, 1.0], 6, [2, 9], [2, 4]),
    ],
)
def test_apportionment_rounds_the_largest_remainders_up(
    shares: list[float], total: int, sizes: list[int], expected: list[int]
) -> None:
    assert topology.apportion(shares, total, sizes) == expected


def test_apportionment_refuses_more_than_there_is() -> None:
    with pytest.raises(ValueError, match="4 weights in layers of 3 entries"):
        topology.apportion([2.0, 2.0], 4, [1, 2])


@given(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=6), st.floats(0, 1))
def test_counts_follow_the_shares_to_the_unit(shapes: list[tuple[int, int]], density: float) -> None:
    """No layer is a whole weight from its share, and none that was rounded down had more to lose than one rounded up.
    Under Erdős–Rényi the share is ε (n + m), the same ε for all layers that are not full."""
    named = {str(i): shape for i, shape in enumerate(shapes)}
    sizes = {name: math.prod(shape) for name, shape in named.items()}
    uniform = topology.uniform_counts(named, density)
    missing = {name: density * sizes[name] - uniform[name] for name in named}  # positive where rounded down
    assert all(-1 < value < 1 for value in missing.values())
    assert max(missing.values()) - min(missing.values()) < 1 + 1e-9
    counts = topology.erdos_renyi_counts(named, density)
    free = [name for name in named if counts[name] < sizes[name]]
    epsilons = [(counts[name] / sum(named[name]), 1 / sum(named[name])) for name in free]
    for one, step in epsilons:
        assert all(abs(one - other) < step + also + 1e-9 for other, also in epsilons)
    if epsilons:  # the same ε fills the full ones
        most = max(one + step for one, step in epsilons)
        assert all(most * sum(named[name]) > sizes[name] - 1 for name in named if name not in free)


@given(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=6), st.floats(0, 1))
def test_counts_meet_the_total_to_the_unit(shapes: list[tuple[int, int]], density: float) -> None:
    named = {str(i): shape for i, shape in enumerate(shapes)}
    size = sum(a * b for a, b in shapes)
    for counts in (topology.uniform_counts(named, density), topology.erdos_renyi_counts(named, density)):
        assert sum(counts.values()) == round(density * size)
        assert all(0 <= counts[name] <= math.prod(shape) for name, shape in named.items())


def test_streams_are_independent_of_each_other() -> None:
    streams = Streams(0)
    assert streams.derive("data", 1) != streams.derive("data", 2) != streams.derive("topology", 2)
    assert Streams(0).derive("data", 1) == streams.derive("data", 1) != Streams(1).derive("data", 1)
    assert torch.equal(
        torch.rand(3, generator=streams.torch("topology", "a")), torch.rand(3, generator=streams.torch("topology", "a"))
    )
