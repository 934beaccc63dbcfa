"""CH2-L3n, receptive fields and draws by scores: tables by hand, and what holds for every graph."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from sparse_bench.sparsity.dynamics.bipartite import (
    ch2_l3n,
    most_paths,
    receptive_fields,
    relative_importance,
    sampled_paths,
)
from sparse_bench.sparsity.dynamics.chance import noisy
from sparse_bench.sparsity.dynamics.grow import Room

#: Output 0 has the inputs 0 and 1; output 1 has 1 and 2; output 2 has 2.
CHAIN = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1]], dtype=torch.bool)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def room(mask: Tensor, seed: int = 0) -> Room:
    return Room(mask, int((~mask).sum()), None, generator(seed))


def test_scores_of_a_chain_by_hand() -> None:
    """Common inputs C = [[2, 1, 0], [1, 2, 1], [0, 1, 1]], so E = [[3, 2, 0], [2, 3, 2], [0, 2, 2]].

    The common outputs [[1, 1, 0], [1, 2, 1], [0, 1, 2]] give E′ = [[2, 2, 0], [2, 3, 2], [0, 2, 3]]. Then
    E B = [[3, 5, 2], [2, 5, 5], [0, 2, 4]] and (E′ Bᵀ)ᵀ = [[4, 5, 2], [2, 5, 5], [0, 2, 3]].
    """
    assert ch2_l3n(CHAIN).tolist() == [[7, 10, 4], [4, 10, 10], [0, 4, 7]]


def test_other_neighbours_divide_the_score() -> None:
    """Output 0 shares one of its four inputs with output 1: E_01 = (1 + 1) / (4 − 1), and E_10 = (1 + 1) / (2 − 1)."""
    mask = torch.tensor([[1, 1, 1, 1, 0], [0, 0, 0, 1, 1]], dtype=torch.bool)
    # At (0, 4): E_01 · 1, and of the inputs, 4 shares output 1 with input 3: E′_43 = (1 + 1) / max(1 − 1, 1).
    assert ch2_l3n(mask)[0, 4].item() == pytest.approx(2 / 3 + 2)
    # At (1, 0): E_10 · 1, and input 0 shares output 0 with input 3: E′_03 = (1 + 1) / max(1 − 1, 1).
    assert ch2_l3n(mask)[1, 0].item() == pytest.approx(2 + 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 10**6))
def test_scores_are_those_of_the_definition(rows: int, columns: int, seed: int) -> None:
    mask = torch.rand(rows, columns, generator=generator(seed)) < 0.4

    def strength(neighbours: list[set[int]], i: int, k: int) -> float:
        common = len(neighbours[i] & neighbours[k])
        return (common + 1) / max(len(neighbours[i]) - common, 1) if common else 0.0

    inputs = [set(torch.where(row)[0].tolist()) for row in mask]
    outputs = [set(torch.where(column)[0].tolist()) for column in mask.T]
    found = ch2_l3n(mask)
    for i in range(rows):
        for j in range(columns):
            expected = sum(strength(inputs, i, k) for k in outputs[j]) + sum(strength(outputs, j, k) for k in inputs[i])
            assert found[i, j].item() == pytest.approx(expected, rel=1e-5)


def test_places_are_drawn_in_proportion_to_their_scores() -> None:
    """The free places of the chain have the scores 4, 4, 0 and 4."""
    drawn = [sampled_paths(room(CHAIN, seed), 1).item() for seed in range(600)]
    counts = {place: drawn.count(place) for place in (2, 3, 6, 7)}
    assert counts[6] == 0
    assert all(counts[place] == pytest.approx(200, abs=50) for place in (2, 3, 7))  # four standard deviations
    for grow in (sampled_paths, most_paths):
        assert sorted(grow(room(CHAIN), 3).tolist()) == [2, 3, 7]
        assert sorted(grow(room(CHAIN), 4).tolist()) == [2, 3, 6, 7]  # where no other is left
        with pytest.raises(ValueError, match="cannot take 5 of 4"):
            grow(room(CHAIN), 5)


def test_places_without_any_path_are_drawn_evenly() -> None:
    empty = torch.zeros(2, 3, dtype=torch.bool)
    for grow in (sampled_paths, most_paths):
        drawn = [grow(room(empty, seed), 1).item() for seed in range(300)]
        assert all(drawn.count(place) == pytest.approx(50, abs=27) for place in range(6))


def test_draws_follow_the_power_of_their_scores() -> None:
    """Of the weights 1 and 2, the larger survives with 2/3 for τ = 1, and with 8/9 for τ = 3; one of 0 never does."""
    scores = np.array([1.0, 2.0, 0.0])
    for power, share in ((1.0, 2 / 3), (3.0, 8 / 9)):
        first = [int(np.argmax(noisy(scores, generator(seed), power))) for seed in range(900)]
        assert first.count(2) == 0
        assert first.count(1) / 900 == pytest.approx(share, abs=4 * (share * (1 - share) / 900) ** 0.5)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 1), st.floats(0.05, 1), st.integers(0, 10**6))
def test_receptive_fields_have_exact_counts_and_no_dead_unit(
    rows: int, columns: int, density: float, randomness: float, seed: int
) -> None:
    count = round(density * rows * columns)
    mask = receptive_fields((rows, columns), count, randomness, generator(seed))
    assert mask.shape == (rows, columns)
    assert int(mask.sum()) == count
    degree = mask.sum(1 if rows <= columns else 0)
    assert int((degree > 0).sum()) == min(count, rows, columns)
    assert torch.equal(mask, receptive_fields((rows, columns), count, randomness, generator(seed)))


def test_partners_are_near_on_the_ring_and_anywhere_with_r_1() -> None:
    """At r = 0.3, p ∝ (1 + distance)^−2.33 on 40 places; at r = 1 the mean distance is 10."""

    def mean_distance(randomness: float) -> float:
        mask = receptive_fields((20, 40), 60, randomness, generator())
        unit, partner = torch.where(mask)
        apart = (partner - 2 * unit).abs()
        return torch.minimum(apart, 40 - apart).float().mean().item()

    assert mean_distance(0.3) < 3.5
    assert mean_distance(1.0) == pytest.approx(10, abs=3)
    # With one partner each, the share at distance 0 is that of the formula.
    single = receptive_fields((400, 400), 400, 0.3, generator(1))
    chances = torch.tensor([(1.0 + min(d, 400 - d)) ** (-0.7 / 0.3) for d in range(400)])
    assert single.diagonal().float().mean().item() == pytest.approx((chances[0] / chances.sum()).item(), abs=0.1)


def test_relative_importance_by_hand() -> None:
    """Sums of rows are 3 and 5, of columns 1, 7 and 0."""
    found = relative_importance(torch.tensor([[1.0, -2.0, 0.0], [0.0, 5.0, 0.0]]))
    expected = torch.tensor([[1 / 3 + 1, 2 / 3 + 2 / 7, 0], [0, 1 + 5 / 7, 0]])
    torch.testing.assert_close(found, expected)
