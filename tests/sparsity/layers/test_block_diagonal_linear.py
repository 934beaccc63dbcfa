"""A linear layer of blocks equals the dense layer with the embedded weights, and stores the blocks alone."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.layers.block_diagonal import BlockDiagonalLinear
from sparse_bench.sparsity.segments import channel_shuffle, equal_blocks

SIZES = [(8, 12, 4), (9, 7, 3), (10, 7, 4), (7, 10, 4), (5, 5, 5), (6, 9, 1)]


def test_dealt_by_hand() -> None:
    assert channel_shuffle(7, 3).tolist() == [0, 3, 6, 1, 4, 2, 5]
    assert channel_shuffle(4, 1).tolist() == [0, 1, 2, 3]


def test_equal_blocks_by_hand() -> None:
    """10 inputs in four blocks: 3, 3, 2, 2. 7 outputs: 2, 2, 2, 1. So two blocks 3→2, one 2→2 and one 2→1."""
    found = [(group.count, group.inputs, group.outputs) for group in equal_blocks(10, 7, 4)]
    assert found == [(2, 3, 2), (1, 2, 2), (1, 2, 1)]
    assert [(group.count, group.inputs, group.outputs) for group in equal_blocks(8, 12, 4)] == [(4, 2, 3)]


def test_topology_by_hand() -> None:
    """Five inputs and four outputs in two blocks, in order and dealt in turn."""
    rows = [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1]]
    assert BlockDiagonalLinear(nn.Linear(5, 4), 2).topology("weight").int().tolist() == rows
    rows = [[1, 0, 1, 0, 1], [1, 0, 1, 0, 1], [0, 1, 0, 1, 0], [0, 1, 0, 1, 0]]
    assert BlockDiagonalLinear(nn.Linear(5, 4), 2, permute=True).topology("weight").int().tolist() == rows


@pytest.mark.parametrize("permute", [False, True])
@pytest.mark.parametrize(("inputs", "outputs", "blocks"), SIZES)
@pytest.mark.parametrize("bias", [False, True])
def test_outputs_and_gradients_equal_the_embedded_dense_layer(
    inputs: int, outputs: int, blocks: int, permute: bool, bias: bool
) -> None:
    torch.manual_seed(0)
    dense = nn.Linear(inputs, outputs, bias=bias).double()
    layer = BlockDiagonalLinear(copy.deepcopy(dense), blocks, permute)
    with torch.no_grad():
        dense.weight.copy_(layer.full("weight"))
    x = torch.randn(2, 3, inputs, dtype=torch.double, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    y, expected = layer(x), dense(other)
    torch.testing.assert_close(y, expected)
    factors = torch.randn_like(y)
    (y * factors).sum().backward()
    (expected * factors).sum().backward()
    torch.testing.assert_close(x.grad, other.grad)
    # The gradient of the stored weights is that of the dense ones in their places.
    mine = copy.deepcopy(layer)
    with torch.no_grad():
        mine.weight.copy_(layer.weight.grad)
    torch.testing.assert_close(mine.full("weight"), dense.weight.grad * layer.topology("weight"))
    if bias:
        torch.testing.assert_close(layer.bias.grad, dense.bias.grad)


@given(st.integers(1, 30), st.integers(1, 30), st.data(), st.booleans())
def test_every_unit_belongs_to_one_block_and_sizes_differ_by_one(
    inputs: int, outputs: int, data: st.DataObject, permute: bool
) -> None:
    blocks = data.draw(st.integers(1, min(inputs, outputs)))
    layer = BlockDiagonalLinear(nn.Linear(inputs, outputs, bias=False), blocks, permute)
    mask = layer.topology("weight")
    assert layer.weight.numel() == int(mask.sum())
    # Outputs of a block read the same inputs, and different blocks share none.
    kinds = mask.unique(dim=0)
    assert len(kinds) == blocks
    assert kinds.sum(0).eq(1).all()
    for per_block in (kinds.sum(1), (mask[:, None] == kinds).all(2).sum(0)):
        assert int(per_block.max() - per_block.min()) <= 1


def test_dealt_inputs_come_from_all_blocks_before() -> None:
    """Two layers of four blocks: with the permutation every output depends on every input, without it on a quarter."""
    for permute, reached in ((False, 4), (True, 16)):
        first, second = (BlockDiagonalLinear(nn.Linear(16, 16), 4, permute).topology("weight").int() for _ in "ab")
        assert (second @ first).gt(0).sum(1).tolist() == [reached] * 16


@pytest.mark.parametrize("permute", [False, True])
def test_first_weights_have_the_variance_of_a_layer_of_the_block_s_size(permute: bool) -> None:
    """torch draws within 1/√inputs, which is 1/10 for the 100 of a block. Glorot's bound is √(6/200) for a block."""
    torch.manual_seed(0)
    plain = nn.Linear(400, 400)
    layer = BlockDiagonalLinear(plain, 4, permute)
    assert 0.099 < layer.weight.abs().max() <= 0.1
    assert layer.weight.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.01)
    assert torch.equal(layer.full("weight"), 2 * plain.weight * layer.topology("weight"))
    nn.init.xavier_uniform_(plain.weight)
    assert BlockDiagonalLinear(plain, 4).weight.abs().max().item() == pytest.approx((6 / 200) ** 0.5, rel=0.01)


def test_blocks_of_other_sizes_have_their_own_fan_in() -> None:
    plain = nn.Linear(5, 2)
    nn.init.ones_(plain.weight)
    wide, narrow = (5 / 3) ** 0.5, (5 / 2) ** 0.5
    expected = torch.tensor([[wide] * 3 + [0] * 2, [0] * 3 + [narrow] * 2])
    torch.testing.assert_close(BlockDiagonalLinear(plain, 2).full("weight"), expected)


def test_a_frozen_layer_stays_frozen_and_its_bias_is_the_same_parameter() -> None:
    plain = nn.Linear(4, 4)
    plain.weight.requires_grad_(False)
    layer = BlockDiagonalLinear(plain, 2)
    assert not layer.weight.requires_grad
    assert layer.bias is plain.bias


@pytest.mark.parametrize("blocks", [0, 4])
def test_more_blocks_than_the_smaller_side_are_refused(blocks: int) -> None:
    with pytest.raises(ConfigError, match=rf"5→3 cannot be cut into {blocks} blocks.*from 1 to 3"):
        BlockDiagonalLinear(nn.Linear(5, 3), blocks)


def test_bfloat16_under_autocast() -> None:
    layer = BlockDiagonalLinear(nn.Linear(8, 8), 2, permute=True)
    x = torch.randn(5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), atol=0.05, rtol=0.05)
