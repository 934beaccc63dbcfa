"""Geometry of block-diagonal layers: published tables first, invariants after."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.segments import Blocks, count_and_share, reductions, segments

THIRD = 0.66666


def lstm_parameters(inputs: int, outputs: int) -> int:
    """Parameters of a dense LSTM layer; biases count twice, as torch has two."""
    return 4 * (inputs * outputs + outputs**2 + 2 * outputs)


def parameters(blocks: Blocks) -> int:
    return sum(lstm_parameters(b - a, d - c) for (a, b), (c, d) in zip(blocks.inputs, blocks.outputs, strict=True))


def stack(embedding: int, hidden: int, mode: str, fraction: float) -> list[Blocks]:
    sizes = [(embedding, hidden), (hidden, hidden), (hidden, embedding)]
    return [
        Blocks.of(*size, *count_and_share(*size, reduction))
        for size, reduction in zip(sizes, reductions(mode, fraction, 3), strict=True)
    ]


@pytest.mark.parametrize(
    ("size", "reduction", "count", "share", "inputs", "outputs", "expected"),
    [
        ((400, 1725), (1, THIRD), 3, 1.0, [(0, 400)] * 3, [(0, 575), (575, 1150), (1150, 1725)], 6_741_300),
        (
            (1725, 1725),
            (THIRD, THIRD),
            3,
            0.55515,
            [(0, 957), (383, 1341), (767, 1725)],
            [(0, 575), (575, 1150), (1150, 1725)],
            10_589_200,
        ),
        ((1725, 400), (THIRD, 1), 2, 0.78260, [(0, 1349), (375, 1725)], [(0, 200), (200, 400)], 2_482_400),
    ],
)
def test_layers_of_the_published_language_model(size, reduction, count, share, inputs, outputs, expected) -> None:
    found = count_and_share(*size, reduction)
    assert found == (count, pytest.approx(share, abs=1e-5))
    blocks = Blocks.of(*size, *found)
    assert list(blocks.inputs) == inputs
    assert list(blocks.outputs) == outputs
    assert parameters(blocks) == expected


def test_dense_layers_of_the_published_language_model() -> None:
    assert [lstm_parameters(*size) for size in ((400, 1150), (1150, 1150), (1150, 400))] == [
        7_139_200,
        10_589_200,
        2_483_200,
    ]


@pytest.mark.parametrize(
    ("embedding", "hidden", "mode", "fraction", "rest", "total"),
    [
        (400, 1725, "sparse_hidden", THIRD, 0, 19_812_900),
        (400, 1725, "sparse_hidden", THIRD, 4_010_000, 23_822_900),
        (400, 1150, "sparse_hidden", 1.0, 4_010_000, 24_221_600),
        (200, 575, "sparse_hidden", 1.0, 2_010_000, 7_068_300),  # learning to recite, Table 3
        (200, 1150, "sparse_hidden", 0.5, 2_010_000, 7_068_304),
        (400, 1150, "sparse_all", 0.5, 2_010_000, 7_070_160),
        (100, 288, "sparse_hidden", 1.0, 505_000, 1_776_136),  # reduced scale
        (100, 432, "sparse_hidden", 2 / 3, 505_000, 1_752_144),
        (50, 144, "sparse_hidden", 1.0, 346_086, 665_222),
        (50, 288, "sparse_hidden", 0.5, 346_086, 665_562),
        (100, 288, "sparse_all", 0.5, 346_086, 665_466),
    ],
)
def test_parameters_of_whole_models(embedding, hidden, mode, fraction, rest, total) -> None:
    assert sum(map(parameters, stack(embedding, hidden, mode, fraction))) + rest == total


def test_modes() -> None:
    f = 0.5
    assert reductions("sparse_hidden", f, 3) == [(1, f), (f, f), (f, 1)]
    assert reductions("sparse_all", f, 3) == [(f, f)] * 3
    assert reductions("sparse_emb", f, 3) == [(f, 1), (1, 1), (1, f)]
    assert reductions("sparse_hidden", f, 4) == [(1, f), (f, f), (f, f), (f, 1)]
    assert reductions("sparse_hidden", f, 1) == [(1, 1)]
    assert count_and_share(1, 1, (1, 1)) == (1, 1.0)
    with pytest.raises(ConfigError, match="two recurrent layers"):
        reductions("sparse_emb", f, 1)
    with pytest.raises(ConfigError, match="Did you mean 'sparse_hidden'"):
        reductions("sparse_hiden", f, 3)


def test_segments_by_hand() -> None:
    assert segments(10, 1, 1.0) == ((0, 10),)
    assert segments(10, 2, 0.5) == ((0, 5), (5, 10))
    assert segments(10, 3, 1 / 3) == ((0, 3), (3, 6), (6, 10))
    assert segments(10, 3, 0.6) == ((0, 6), (2, 8), (4, 10))  # overlap 10 · 0.8 / 2 = 4
    assert segments(8, 4, 1.0) == ((0, 8),) * 4
    assert Blocks.of(49, 49, 49, 1.0).outputs == tuple((c, c + 1) for c in range(49))


@pytest.mark.parametrize(("count", "share"), [(1, 0.5), (3, 0.3), (2, 1.1), (0, 1.0)])
def test_impossible_shares(count: int, share: float) -> None:
    with pytest.raises(ConfigError, match="do not fit"):
        segments(10, count, share)


@pytest.mark.parametrize(
    ("size", "reduction", "message"),
    [
        ((10, 10), (0.1, 0.1), "too strong"),  # D = 0.1 + 0.1 + 0.2 − 2 < 0
        ((10, 100), (0.9, 0.2), "too many components"),  # 110 / 5.4 = 20.4 components for 10 inputs
        ((4, 100), (1, 0.4), "too strong"),
        ((10, 10), (0.0, 0.5), "above 0"),
        ((10, 10), (0.5, 1.5), "at most 1"),
    ],
)
def test_impossible_reductions(size, reduction, message) -> None:
    with pytest.raises(ConfigError, match=message):
        count_and_share(*size, reduction)


def test_more_segments_than_indices() -> None:
    with pytest.raises(ConfigError, match="cannot be cut"):
        segments(3, 5, 0.2)


@given(st.integers(1, 500), st.integers(1, 40), st.floats(0, 1))
def test_segments_cover_everything(total: int, count: int, position: float) -> None:
    share = 1 / count + position * (1 - 1 / count)
    if count > total:
        return
    found = segments(total, count, min(share, 1.0))
    assert len(found) == count
    assert all(0 <= begin < end <= total for begin, end in found)
    assert {index for begin, end in found for index in range(begin, end)} == set(range(total))
    assert [begin for begin, _ in found] == sorted(begin for begin, _ in found)
    assert all(abs((end - begin) - total * share) <= 1 + 1e-6 for begin, end in found)


@given(st.integers(1, 500), st.integers(1, 60))
def test_outputs_are_disjoint(total: int, count: int) -> None:
    if count > total:
        return
    found = Blocks.of(total, total, count, 1.0).outputs
    assert all(before[1] == after[0] for before, after in pairwise(found))
    assert max(b - a for a, b in found) - min(b - a for a, b in found) <= 1


@given(st.integers(20, 600), st.integers(20, 600), st.floats(0.4, 1), st.floats(0.4, 1))
def test_as_many_parameters_as_the_reduced_dense_layer(inputs: int, outputs: int, a_i: float, a_o: float) -> None:
    try:
        count, share = count_and_share(inputs, outputs, (a_i, a_o))
        blocks = Blocks.of(inputs, outputs, count, share)
    except ConfigError:
        return
    wanted = 4 * (a_i * inputs * a_o * outputs + (a_o * outputs) ** 2 + 2 * a_o * outputs)
    if share == 1.0:
        # Even with all inputs for all components there are no more, up to the rounding of the outputs.
        assert parameters(blocks) <= wanted + 4 * count
    else:
        # Exact but for segments that are rounded to whole indices.
        assert abs(parameters(blocks) - wanted) <= 4 * (outputs + count * (1 + inputs / count))
