"""Geometry of tiered embeddings: published tables first, invariants after."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.tiers import decay, places, tiers

V = 43_815  # words of the Wall Street Journal's training sections


@pytest.mark.parametrize(
    ("density", "alpha", "first", "last"),
    [
        (0.25, 0.8025, (43_815, 35_159, 28_213), (836, 673)),
        (0.5, 0.9181, (43_815,), (8_648,)),
        (0.1, 0.5, (43_815, 21_907, 10_953), ()),
        (0.05, 0.0, (43_815, 0), (0, 0)),
        (1.0, 1.0, (V,) * 10, (V,) * 10),
    ],
)
def test_published_tables(density: float, alpha: float, first: tuple[int, ...], last: tuple[int, ...]) -> None:
    found = tiers(V, 20, density, 20)
    assert decay(density, 20) == pytest.approx(alpha, abs=1e-4)
    assert found.widths == (1,) * 20
    assert found.rows[: len(first)] == first
    assert not last or found.rows[-len(last) :] == last
    assert sum(found.sizes) == int(V * 20 * density)


def test_by_hand() -> None:
    """V = 8, D = 4, δ = 1/2, two blocks: 16 weights, 8 · 2 of them in block 0, none is left."""
    assert tiers(8, 4, 0.5, 2).rows == (8, 0)
    assert tiers(8, 4, 0.75, 2).rows == (8, 4)
    # Three blocks of 1, 1 and 2 columns: 16 weights, 8 in block 0; (1 + α + α²) / 3 = 1/2 at α = .366, which cuts
    # ⌈8 · .634⌉ = 6; two words have column 1, and ⌊(16 − 8 − 2) / 2⌋ = 3 the last two.
    assert decay(0.5, 3) == pytest.approx(0.3660, abs=1e-4)
    assert tiers(8, 4, 0.5, 3).rows == (8, 2, 3)
    assert tiers(8, 4, 0.5, 3).widths == (1, 1, 2)
    assert tiers(8, 4, 1.0, 1).rows == (8,)
    # 25 weights, 20 in the first two columns: 5 more in three columns are those of one word and two thirds.
    assert tiers(10, 5, 0.5, 2).rows == (10, 2)


def test_few_words_get_the_weights_that_the_last_block_cannot_hold() -> None:
    """Two words, D = 20, δ = 1/4: 10 weights. Two in block 0, two in the last one, and six in blocks 1, 2 and 3."""
    assert tiers(2, 20, 0.25, 20).rows == (2, 2, 2, 2, *[0] * 15, 2)


def test_places_by_hand() -> None:
    """Words with counts 5, 1, 5, 2: rare ones first, equal ones by their index."""
    generator = torch.Generator()
    assert places(4, "up", (5, 1, 5, 2), generator).tolist() == [2, 0, 3, 1]
    assert places(4, "down", (5, 1, 5, 2), generator).tolist() == [0, 3, 1, 2]
    assert places(3, "up", None, generator).tolist() == [2, 1, 0]
    assert sorted(places(9, "rand", None, generator).tolist()) == [*range(9)]


def test_more_blocks_than_columns_are_as_many_as_columns() -> None:
    assert tiers(100, 5, 0.4, 20) == tiers(100, 5, 0.4, 5)


@pytest.mark.parametrize(("density", "blocks"), [(0.04, 20), (1.01, 20), (0.5, 1), (1.0, 0)])
def test_impossible_densities(density: float, blocks: int) -> None:
    with pytest.raises(ConfigError, match="cannot have density"):
        tiers(100, 20, density, blocks)


@given(st.integers(1, 5000), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_rows_fall_and_the_count_is_within_a_row(vocabulary: int, dim: int, blocks: int, position: float) -> None:
    blocks = min(blocks, dim)
    density = 1 / blocks + position * (1 - 1 / blocks)
    found = tiers(vocabulary, dim, min(density, 1.0), blocks)
    assert found.dim == dim
    assert len(found.rows) == blocks
    assert found.rows[0] == vocabulary
    assert all(0 <= rows <= vocabulary for rows in found.rows)
    assert all(after <= before for before, after in pairwise(found.rows[:-1]))  # the last makes up for rounding
    assert abs(sum(found.sizes) - vocabulary * dim * density) <= found.widths[-1]


@given(st.integers(2, 40), st.floats(0, 1))
def test_decay_solves_its_equation(blocks: int, position: float) -> None:
    density = 1 / blocks + position * (1 - 1 / blocks)
    alpha = decay(density, blocks)
    assert 0 <= alpha <= 1
    assert sum(alpha**j for j in range(blocks)) / blocks == pytest.approx(density, abs=1e-4)
