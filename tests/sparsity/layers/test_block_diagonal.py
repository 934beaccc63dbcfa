"""A layer of components equals the dense layer with the embedded weights."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.layers.block_diagonal import BlockDiagonalLayer
from sparse_bench.sparsity.segments import Blocks

INPUTS, OUTPUTS, TIME, BATCH = 9, 8, 5, 3
KINDS = [nn.LSTM, nn.GRU, nn.RNN]


def pair(kind: Any, **settings: Any) -> tuple[BlockDiagonalLayer, nn.RNNBase]:
    """A layer of three components, and the dense layer with their weights."""
    torch.manual_seed(0)
    dense = kind(INPUTS, OUTPUTS, **settings).double()
    layer = BlockDiagonalLayer(dense, Blocks.of(INPUTS, OUTPUTS, 3, 0.6))
    with torch.no_grad():
        for name, parameter in dense.named_parameters():
            parameter.copy_(layer.full(name) if parameter.dim() == 2 else full_bias(layer, name))
    return layer, dense


def full_bias(layer: BlockDiagonalLayer, name: str) -> Tensor:
    gates = layer.components[0].weight_hh_l0.shape[0] // layer.components[0].hidden_size
    return torch.cat([part.view(gates, -1) for part in layer.parts(name)], dim=1).flatten()


def flat(state: Any) -> list[Tensor]:
    return list(state) if isinstance(state, tuple) else [state]


def data(y: Tensor | PackedSequence) -> Tensor:
    return y.data


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_states_and_gradients_equal_the_embedded_dense_layer(kind, batch_first, bidirectional) -> None:
    layer, dense = pair(kind, batch_first=batch_first, bidirectional=bidirectional)
    shape = (BATCH, TIME, INPUTS) if batch_first else (TIME, BATCH, INPUTS)
    x = torch.randn(shape, dtype=torch.double, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    first = [torch.randn(1 + bidirectional, BATCH, OUTPUTS, dtype=torch.double) for _ in range(2)]
    state: Any = tuple(first) if kind is nn.LSTM else first[0]

    y, last = layer(x, state)
    expected, expected_last = dense(other, state)
    torch.testing.assert_close(y, expected)
    for mine, theirs in zip(flat(last), flat(expected_last), strict=True):
        torch.testing.assert_close(mine, theirs)

    weights = torch.randn_like(y)
    for output, states in ((y, last), (expected, expected_last)):
        ((output * weights).sum() + sum(part.square().sum() for part in flat(states))).backward()
    torch.testing.assert_close(x.grad, other.grad)
    for name, parameter in dense.named_parameters():
        if parameter.dim() == 2:
            gates = parameter.shape[0] // OUTPUTS
            gradient = parameter.grad.view(gates, OUTPUTS, -1)
            columns = layer.blocks.outputs if "_hh_" in name else layer.blocks.inputs
            for part, rows, place in zip(layer.parts(name), layer.blocks.outputs, columns, strict=True):
                block = gradient[:, slice(*rows), slice(*place)].flatten(0, 1)
                torch.testing.assert_close(part.grad, block)
        else:
            grads = [part.grad.view(parameter.shape[0] // OUTPUTS, -1) for part in layer.parts(name)]
            torch.testing.assert_close(torch.cat(grads, dim=1).flatten(), parameter.grad)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences(kind, bidirectional) -> None:
    layer, dense = pair(kind, bidirectional=bidirectional)
    x = pack_sequence([torch.randn(n, INPUTS, dtype=torch.double) for n in (2, 5, 4)], enforce_sorted=False)
    y, last = layer(x)
    expected, expected_last = dense(x)
    torch.testing.assert_close(data(y), data(expected))
    assert torch.equal(y.batch_sizes, expected.batch_sizes)
    assert torch.equal(y.unsorted_indices, expected.unsorted_indices)
    for mine, theirs in zip(flat(last), flat(expected_last), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_dealt_in_turn(kind) -> None:
    """Of nine inputs, the second of three components reads the second, the fifth and the eighth."""
    torch.manual_seed(0)
    dense = kind(INPUTS, OUTPUTS).double()
    layer = BlockDiagonalLayer(dense, Blocks.of(INPUTS, OUTPUTS, 3, 1 / 3), permute=True)
    columns = [row.nonzero().flatten().tolist() for row in layer.topology("weight_ih_l0")[[0, 2, 5]]]
    assert columns == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert torch.equal(layer.full("weight_ih_l0") != 0, layer.topology("weight_ih_l0"))
    with torch.no_grad():
        for name, parameter in dense.named_parameters():
            parameter.copy_(layer.full(name))
    x = torch.randn(TIME, BATCH, INPUTS, dtype=torch.double, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    y, expected = layer(x)[0], dense(other)[0]
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, other.grad)
    packed = pack_sequence([torch.randn(n, INPUTS, dtype=torch.double) for n in (2, 5)], enforce_sorted=False)
    torch.testing.assert_close(data(layer(packed)[0]), data(dense(packed)[0]))


def test_a_single_sequence_without_a_batch() -> None:
    layer, dense = pair(nn.LSTM)
    x = torch.randn(TIME, INPUTS, dtype=torch.double)
    torch.testing.assert_close(layer(x)[0], dense(x)[0])


def test_an_rnn_keeps_its_nonlinearity_and_missing_biases() -> None:
    layer, dense = pair(nn.RNN, nonlinearity="relu", bias=False)
    x = torch.randn(TIME, BATCH, INPUTS, dtype=torch.double)
    torch.testing.assert_close(layer(x)[0], dense(x)[0])
    assert not [name for name, _ in layer.named_parameters() if "bias" in name]


def test_the_topology_is_block_diagonal_in_every_gate() -> None:
    layer, _ = pair(nn.LSTM)
    hidden = layer.topology("weight_hh_l0").view(4, OUTPUTS, OUTPUTS)
    assert layer.blocks.outputs == ((0, 2), (2, 5), (5, 8))
    assert hidden.sum(dim=(1, 2)).tolist() == [4 + 9 + 9] * 4
    assert torch.equal(hidden[0], torch.block_diag(torch.ones(2, 2), torch.ones(3, 3), torch.ones(3, 3)).bool())
    for name in ("weight_ih_l0", "weight_hh_l0"):
        assert torch.equal(layer.full(name) != 0, layer.topology(name))


def test_components_are_initialised_within_their_own_bound() -> None:
    torch.manual_seed(0)
    layer = BlockDiagonalLayer(nn.LSTM(30, 100), Blocks.of(30, 100, 4, 1.0))
    largest = max(parameter.abs().max().item() for parameter in layer.parameters())
    assert 0.1 < largest <= 25**-0.5  # the whole layer's bound would be 0.1


def test_weight_drop_reaches_every_component() -> None:
    """A model drops recurrent weights by their names, with a functional call."""
    layer, dense = pair(nn.LSTM)
    x = torch.randn(TIME, BATCH, INPUTS, dtype=torch.double)
    names = [name for name, _ in layer.named_parameters() if name.endswith("weight_hh_l0")]
    assert len(names) == 3
    nothing = {name: torch.zeros_like(layer.get_parameter(name)) for name in names}
    expected = functional_call(dense, {"weight_hh_l0": torch.zeros_like(dense.weight_hh_l0)}, (x,))
    torch.testing.assert_close(functional_call(layer, nothing, (x,))[0], expected[0])


@pytest.mark.parametrize("settings", [{"num_layers": 2}, {"proj_size": 2}])
def test_what_cannot_be_replaced(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="one-layer LSTM, GRU or RNN"):
        BlockDiagonalLayer(nn.LSTM(INPUTS, OUTPUTS, **settings), Blocks.of(INPUTS, OUTPUTS, 2, 1.0))
