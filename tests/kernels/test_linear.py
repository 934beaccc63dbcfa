"""Every execution of the sparse product against the dense reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_bench.errors import ConfigError
from sparse_bench.kernels import EXECUTIONS, SparseStructure, sparse_linear
from sparse_bench.kernels.cpu import kernel_values_gradient
from tests.kernels.problems import (
    EXPLICIT,
    assert_close,
    assert_digits,
    assert_product,
    expected,
    problem,
    results,
)


@pytest.mark.parametrize("execution", EXPLICIT)
@settings(max_examples=40, deadline=None)
@given(
    out=st.integers(0, 70),
    inner=st.integers(0, 70),
    tokens=st.integers(0, 150),
    density=st.sampled_from([0.0, 0.02, 0.1, 0.4, 1.0]),
    with_bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_agrees_with_dense(
    execution: str, out: int, inner: int, tokens: int, density: float, with_bias: bool, seed: int
) -> None:
    structure, x, values, bias, grad = problem(out, inner, tokens, density, seed)
    assert_product(structure, x, values, bias if with_bias else None, grad, execution)


# One block and several, the width of the input above and below what the second-level cache holds in a wide tile.
@pytest.mark.parametrize(
    ("out", "inner", "density"), [(100, 700, 0.5), (700, 100, 0.5), (300, 300, 0.3), (40, 9000, 0.01), (9000, 40, 0.01)]
)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_kernel_agrees_with_dense_at_size(out: int, inner: int, density: float, threads: int) -> None:
    torch.set_num_threads(threads)
    assert_product(*problem(out, inner, 213, density), "kernel")


@pytest.mark.parametrize("transposed", [False, True])
def test_features_that_16_bits_cannot_tell_apart(transposed: bool) -> None:
    """Many inputs are a matter of the forward pass, many outputs of the backward one."""
    features = 2 * 2**16 + 1
    mask = torch.zeros(3, features, dtype=torch.bool)
    mask[0, 0] = mask[:, 65535:65537] = mask[1:, 131072] = True
    structure = SparseStructure(mask.t() if transposed else mask)
    generator = torch.Generator().manual_seed(0)
    sizes = (5, structure.in_features), (structure.entries,), (structure.out_features,), (5, structure.out_features)
    x, values, bias, grad = (torch.randn(size, generator=generator) for size in sizes)
    leaves = x.requires_grad_(), values.requires_grad_(), bias.requires_grad_()
    assert_digits(results(structure, *leaves, grad, "kernel"), results(structure, *leaves, grad, "csr"), 1e-6)


@pytest.mark.parametrize("execution", EXPLICIT)
def test_empty_rows_and_columns(execution: str) -> None:
    mask = torch.zeros(50, 60, dtype=torch.bool)
    mask[7, 3:40] = mask[20:44, 11] = True
    structure = SparseStructure(mask)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(70, 60, generator=generator, requires_grad=True)
    values = torch.randn(structure.entries, generator=generator, requires_grad=True)
    grad = torch.randn(70, 50, generator=generator)
    actual = results(structure, x, values, None, grad, execution)
    assert_close(actual, expected(structure, x, values, None, grad))
    assert actual[0][:, 0].abs().max() == 0
    assert actual[1][:, 50].abs().max() == 0


@pytest.mark.parametrize("execution", EXPLICIT)
def test_any_strides_and_leading_dimensions(execution: str) -> None:
    structure, _, values, bias, _ = problem(33, 20, 1, 0.3)
    wide = torch.randn(5, 7, 48, generator=torch.Generator().manual_seed(2))
    inputs = [wide[..., 3:23], wide.transpose(0, 1)[..., :20], wide[..., ::2][..., :20], wide[0, 0, :20]]
    inputs.append(wide[:1, :1, :20].expand(4, 6, 20))
    for x in inputs:
        leaf = x.detach().requires_grad_()
        grad = torch.randn(33, *x.shape[:-1], generator=torch.Generator().manual_seed(3)).movedim(0, -1)
        assert_product(structure, leaf, values, bias, grad, execution)
        assert sparse_linear(leaf, structure, values, bias, execution).is_contiguous()


@pytest.mark.parametrize("execution", EXPLICIT)
def test_gradients_are_those_of_finite_differences(execution: str) -> None:
    structure, x, values, bias, _ = problem(9, 13, 11, 0.3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x, v, b: sparse_linear(x, structure, v, b, execution), (x, values, bias))


@pytest.mark.parametrize("execution", EXPLICIT)
def test_gradients_only_where_wanted(execution: str) -> None:
    structure, x, values, bias, grad = problem(30, 40, 50, 0.2)
    wanted = expected(structure, x, values, bias, grad)[1:]
    for keep in range(3):
        leaves = [leaf.detach().requires_grad_(i == keep) for i, leaf in enumerate((x, values, bias))]
        sparse_linear(leaves[0], structure, leaves[1], leaves[2], execution).backward(grad)
        assert [leaf.grad is not None for leaf in leaves] == [i == keep for i in range(3)]
        kept = leaves[keep].grad
        assert kept is not None
        assert_close([kept], [wanted[keep]])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_a_hundred_steps_have_the_losses_of_masked_ones(dtype: torch.dtype, tolerance: float) -> None:
    losses: dict[str, list[float]] = {}
    for execution in EXPLICIT:
        structure, x, values, bias, target = problem(48, 64, 96, 0.1, dtype=dtype)
        optimizer = torch.optim.Adam([values, bias], lr=0.01)
        losses[execution] = []
        for _ in range(100):
            optimizer.zero_grad()
            loss = (sparse_linear(x.detach(), structure, values, bias, execution) - target).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses[execution].append(loss.item())
    assert losses["masked"][-1] < 0.95 * losses["masked"][0]
    for execution in EXPLICIT:
        assert losses[execution] == pytest.approx(losses["masked"], rel=tolerance), execution


@pytest.mark.parametrize("threads", [1, 2])
def test_kernel_gives_the_same_bits_twice(threads: int) -> None:
    torch.set_num_threads(threads)
    structure, x, values, bias, grad = problem(200, 150, 333, 0.2)
    first = results(structure, x, values, bias, grad, "kernel")
    for _ in range(3):
        for a, b in zip(first, results(structure, x, values, bias, grad, "kernel"), strict=True):
            assert torch.equal(a, b)


def test_kernel_does_not_mix_in_what_a_row_does_not_use() -> None:
    structure, x, values, bias, grad = problem(40, 30, 20, 0.1)
    poisoned = x.detach().clone()
    poisoned[:, 4] = torch.inf
    y = sparse_linear(poisoned, structure, values.detach(), bias.detach(), "kernel")
    assert torch.equal(y.isfinite().all(0), ~structure.mask()[:, 4])
    grad[:, 9] = torch.inf
    grad_input = results(structure, x, values, bias, grad, "kernel")[1]
    assert torch.equal(grad_input.isfinite().all(0), ~structure.mask()[9])


@pytest.mark.parametrize("execution", EXPLICIT)
def test_rewiring_between_the_passes_leaves_the_gradient_of_the_old_structure(execution: str) -> None:
    structure, x, values, bias, grad = problem(20, 30, 16, 0.2)
    wanted = expected(structure, x, values, bias, grad)
    y = sparse_linear(x, structure, values, bias, execution)
    structure.rewire(~structure.mask())
    assert_close([y, *torch.autograd.grad(y, [x, values, bias], grad)], wanted)


@pytest.mark.parametrize("execution", ["kernel", "csr"])
def test_second_derivatives_are_refused(execution: str) -> None:
    structure, x, values, bias, _ = problem(5, 6, 7, 0.5)
    y = sparse_linear(x, structure, values, bias, execution)
    (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_runs_on_the_meta_device(execution: str) -> None:
    structure, *tensors = problem(6, 5, 4, 0.5)
    structure = structure.to("meta")
    x, values, bias = (tensor.detach().to("meta").requires_grad_() for tensor in tensors[:3])
    y = sparse_linear(x.view(2, 2, 5), structure, values, bias, execution)
    assert y.shape == (2, 2, 6)
    assert [g.shape for g in torch.autograd.grad(y.sum(), [x, values, bias])] == [x.shape, values.shape, bias.shape]


@pytest.mark.parametrize("execution", EXPLICIT)
def test_autocast_and_half_precision_inputs(execution: str) -> None:
    structure, x, values, bias, grad = problem(40, 50, 60, 0.2)
    wanted = expected(structure, x, values, bias, grad)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = sparse_linear(x, structure, values, bias, execution)
    assert y.dtype == torch.bfloat16
    gradients = torch.autograd.grad(y, [x, values, bias], grad.bfloat16())
    assert [g.dtype for g in gradients] == [torch.float32] * 3
    assert_close([y, *gradients], wanted, 3e-2)
    halved = [leaf.detach().bfloat16().requires_grad_() for leaf in (x, values, bias)]
    y = sparse_linear(halved[0], structure, halved[1], halved[2], execution)
    assert y.dtype == torch.bfloat16
    assert_close([y], wanted[:1], 3e-2)


def test_wrong_arguments_are_named() -> None:
    structure, x, values, bias, _ = problem(6, 5, 4, 0.5)
    with pytest.raises(ConfigError, match="Did you mean 'kernel'"):
        sparse_linear(x, structure, values, bias, "kernl")
    for broken in [
        (x[:, :4], values, bias),
        (x, values[1:], bias),
        (x, values, bias[1:]),
        (x, values.double(), bias),
        (x, values, bias.double()),
    ]:
        with pytest.raises(ValueError, match=r"must be|needs"):
            sparse_linear(broken[0], structure, broken[1], broken[2], "kernel")
    with pytest.raises(ValueError, match=r"must be \[tokens, 5\] and \[tokens, 6\], not"):
        kernel_values_gradient(x.new_zeros(4, 5), x, structure, values)
    with pytest.raises(ValueError, match=r"gradient torch\.float64"):
        kernel_values_gradient(x.new_zeros(4, 6).double(), x, structure, values)


def test_what_is_on_another_device_is_named() -> None:
    structure, x, values, bias, grad = problem(6, 5, 4, 0.5)
    for name, *others in [("values", values.to("meta"), bias), ("bias", values, bias.to("meta"))]:
        with pytest.raises(ValueError, match=f"input on cpu, .*{name} on meta"):
            sparse_linear(x, structure, *others, "kernel")
    structure = structure.to("meta")  # it has no addresses that compiled code could read
    with pytest.raises(ValueError, match="input on cpu, structure on meta"):
        sparse_linear(x, structure, values, bias, "kernel")
    with pytest.raises(ValueError, match="input on cpu, structure on meta"):
        kernel_values_gradient(grad, x, structure, values)
    with pytest.raises(ValueError, match="computes on the CPU, not on meta"):
        kernel_values_gradient(grad.to("meta"), x.to("meta"), structure, values.to("meta"))
