"""A sparse LSTM layer equals torch's LSTM whose missing weights are zero: outputs, states and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparse_bench.errors import ConfigError
from sparse_bench.kernels import SparseStructure
from sparse_bench.kernels.lstm import _check, _compiled_recurrence
from sparse_bench.sparsity.layers.lstm import SparseLSTM
from sparse_bench.sparsity.weights import CompressedWeight, sparsify
from tests.kernels.problems import (
    assert_digits,
    assert_same_lstm,
    lstm_problem,
    recurrence_problem,
    recurrent_structure,
)

WAYS = ["kernel", "csr", "masked", "auto"]


@pytest.mark.parametrize("execution", WAYS)
@pytest.mark.parametrize(
    ("steps", "batch", "inputs", "hidden", "density"),
    [(1, 1, 3, 2, 0.5), (5, 20, 30, 70, 0.1), (3, 70, 16, 65, 0.05), (4, 2, 5, 130, 0.0), (2, 9, 4, 33, 1.0)],
)
def test_equals_a_dense_lstm(execution: str, steps: int, batch: int, inputs: int, hidden: int, density: float) -> None:
    sizes = {"steps": steps, "batch": batch, "inputs": inputs, "hidden": hidden}
    assert_same_lstm(lstm_problem(**sizes, density=density), execution)
    assert_same_lstm(lstm_problem(**sizes, density=density, dtype=torch.float64), execution, tolerance=1e-11)


@settings(max_examples=25, deadline=None)
@given(
    steps=st.integers(1, 4),
    batch=st.integers(1, 40),
    inputs=st.integers(1, 20),
    hidden=st.integers(1, 70),
    density=st.floats(0, 1),
)
def test_equals_a_dense_lstm_of_any_size(steps: int, batch: int, inputs: int, hidden: int, density: float) -> None:
    layer = lstm_problem(steps=steps, batch=batch, inputs=inputs, hidden=hidden, density=density, dtype=torch.float64)
    assert_same_lstm(layer, "kernel", tolerance=1e-11)


def test_saturated_gates_stay_finite() -> None:
    dense, sparse, (x, h, c, *grads) = lstm_problem(steps=3, batch=4, inputs=5, hidden=40, density=0.5)
    assert_same_lstm((dense, sparse, [x * 1e4, h, c, *grads]), "kernel", tolerance=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
@pytest.mark.parametrize("scale", [1e-2, 1e-4, 1e-8])
def test_small_states_keep_their_digits(dtype: torch.dtype, tolerance: float, scale: float) -> None:
    case = recurrence_problem(3, 9, recurrent_structure(37, 0.2), dtype=dtype, scale=scale)
    outputs = _compiled_recurrence(*case.leaves, case.structure)
    actual = [*outputs, *torch.autograd.grad(outputs, case.leaves, case.grads)]
    for got, wanted in zip(actual, case.expected(), strict=True):
        parts = 4 if wanted.shape[-1] == 4 * 37 else 1  # each gate's gradient is of another magnitude
        assert_digits(list(got.chunk(parts, -1)), list(wanted.chunk(parts, -1)), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-7), (torch.float64, 1e-15)])
def test_gates_are_right_to_the_last_digits_at_any_magnitude(dtype: torch.dtype, tolerance: float) -> None:
    size = torch.logspace(-30, 1.9, 2001, dtype=torch.float64).to(dtype)
    x = torch.cat([-size, torch.zeros(1, dtype=dtype), size])
    nothing, open_gate = torch.zeros_like(x), torch.full_like(x, 60)
    empty = SparseStructure(torch.zeros(4, 1, dtype=torch.bool))

    def last_cell(i: torch.Tensor, f: torch.Tensor, g: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        gates = torch.stack([i, f, g, nothing], dim=1)[None]
        return _compiled_recurrence(gates, nothing[:, None], before[:, None], gates.new_empty(0), empty)[1].squeeze(1)

    tanh, sigmoid = last_cell(open_gate, nothing, x, nothing), last_cell(nothing, x, nothing, torch.ones_like(x))
    torch.testing.assert_close(tanh.double(), x.double().tanh(), rtol=tolerance, atol=0)
    torch.testing.assert_close(sigmoid.double(), x.double().sigmoid(), rtol=tolerance, atol=0)


def test_outputs_do_not_depend_on_the_threads_and_gradients_to_rounding() -> None:
    def results(threads: int) -> list[torch.Tensor]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            _, layer, (x, h, c, *_) = lstm_problem(steps=4, batch=5, inputs=6, hidden=150, density=0.1)
            layer.execution = "kernel"
            y, _ = layer(x, (h, c))
            y.square().sum().backward()
            return [y.detach(), *(p.grad for p in layer.parameters() if p.grad is not None)]
        finally:
            torch.set_num_threads(before)

    (output, *gradients), (output_of_two, *gradients_of_two) = results(1), results(2)
    assert torch.equal(output, output_of_two)
    assert len(gradients) >= 3
    for one, two in zip(gradients, gradients_of_two, strict=True):
        assert_digits([one], [two], tolerance=1e-5)


def two_layers() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.LSTM(6, 8), nn.LSTM(8, 5, batch_first=True))


def masks(model: nn.Module, *names: str) -> dict[str, torch.Tensor]:
    return {name: torch.rand_like(model.get_parameter(name)) < 0.5 for name in names}


def test_a_scheme_replaces_the_layer_and_its_weights_can_be_rewired() -> None:
    model = two_layers()
    full = model.get_parameter("0.weight_hh_l0").detach().clone()
    chosen = masks(model, "0.weight_ih_l0", "0.weight_hh_l0")
    weights = sparsify(model, chosen, "kernel")
    layer = model[0]
    assert isinstance(layer, SparseLSTM)
    weight = weights["0.weight_hh_l0"]
    assert isinstance(weight, CompressedWeight)
    assert torch.equal(weight.dense(), full * chosen["0.weight_hh_l0"])
    assert weight.active == int(chosen["0.weight_hh_l0"].sum()) == layer.weight_hh_l0.numel()

    optimizer = torch.optim.Adam(model.parameters())
    layer(torch.randn(3, 2, 6))[0].sum().backward()
    optimizer.step()
    before, places = weight.dense(), weight.mask.view(-1).nonzero().squeeze(1)
    free = (~weight.mask).view(-1).nonzero().squeeze(1)
    removed, grown = places[::3].contiguous(), free[:5]
    weight.rewire(removed, grown, torch.ones(5), optimizer)
    wanted = before.view(-1).index_fill(0, removed, 0).index_fill(0, grown, 1).view_as(before)
    assert torch.equal(weight.dense(), wanted)
    moments = weight.structure.scatter(optimizer.state[layer.weight_hh_l0]["exp_avg"]).view(-1)
    assert moments[grown].eq(0).all()
    assert moments.ne(0).any()
    optimizer.zero_grad()
    layer(torch.randn(3, 2, 6))[0].sum().backward()
    optimizer.step()

    other = two_layers()
    sparsify(other, masks(other, "0.weight_ih_l0", "0.weight_hh_l0"), "kernel")
    other.load_state_dict(model.state_dict())
    x = torch.randn(3, 2, 6)
    assert torch.equal(other[0](x)[0], layer(x)[0])


def test_the_dense_gradient_is_that_of_the_full_matrices() -> None:
    dense, layer, (x, h, c, *_) = lstm_problem(steps=3, batch=4, inputs=5, hidden=6, density=0.5)
    layer.execution = "kernel"
    for structure in (layer.structure_ih, layer.structure_hh):
        structure.keep_dense_gradient(True)
    for lstm in (dense, layer):
        lstm(x, (h, c))[0].square().sum().backward()
    for structure, name in ((layer.structure_ih, "weight_ih_l0"), (layer.structure_hh, "weight_hh_l0")):
        torch.testing.assert_close(structure.dense_gradient, getattr(dense, name).grad)
        torch.testing.assert_close(getattr(layer, name).grad, structure.gather(getattr(dense, name).grad))


def test_batch_first_and_no_first_state() -> None:
    model = two_layers()
    reference, x = model[1], torch.randn(4, 3, 8)
    sparsify(model, {f"1.{name}": torch.ones_like(getattr(reference, name)).bool() for name in
                     ("weight_ih_l0", "weight_hh_l0")}, "kernel")  # fmt: skip
    y, (h, c) = model[1](x)
    wanted, (h2, c2) = reference(x)
    for got, want in ((y, wanted), (h, h2), (c, c2)):
        torch.testing.assert_close(got, want)


def test_on_the_meta_device() -> None:
    _, layer, (x, h, c, *_) = lstm_problem(steps=3, batch=4, inputs=5, hidden=6, density=0.5)
    layer = layer.to("meta")
    for execution in WAYS:
        layer.execution = execution
        y, _ = layer(x.to("meta"), (h.to("meta"), c.to("meta")))
        y.sum().backward()
        assert y.shape == (3, 4, 6)


def test_what_cannot_be_computed_is_refused() -> None:
    model = two_layers()
    with pytest.raises(ConfigError, match="both"):
        sparsify(model, masks(model, "0.weight_hh_l0"), "kernel")
    deep = nn.Sequential(nn.LSTM(4, 4, num_layers=2))
    with pytest.raises(ConfigError, match="one layer"):
        sparsify(deep, masks(deep, "0.weight_ih_l0", "0.weight_hh_l0"), "csr")
    sparsify(model, masks(model, "0.weight_ih_l0", "0.weight_hh_l0"), "csr")
    with pytest.raises(ConfigError, match="already"):
        sparsify(model, masks(model, "0.weight_ih_l0"), "csr")
    with pytest.raises(TypeError, match="takes"):
        model[0](nn.utils.rnn.pack_sequence([torch.randn(3, 6)]))


def test_the_recurrence_refuses_what_its_kernel_would_read_wrongly() -> None:
    structure = SparseStructure(torch.ones(12, 3, dtype=torch.bool))
    gates, state, values = torch.zeros(2, 4, 12), torch.zeros(4, 3), torch.zeros(structure.entries)
    _check(gates, state, state, values, structure)
    for wrong, message in [
        ((gates[..., :8], state, state, values), "do not fit"),
        ((gates, state[:2], state, values), "the state must be"),
        ((gates, state, state, values[1:]), "the values must be"),
        ((gates.half(), state, state, values), "float32, float64 or bfloat16"),
        ((gates, state.to("meta"), state, values), "on cpu.* on meta"),
    ]:
        with pytest.raises(ValueError, match=message):
            _check(*wrong, structure)
    with pytest.raises(ValueError, match=r"on cpu.* on meta"):
        _check(gates, state, state, values, structure.to("meta"))
