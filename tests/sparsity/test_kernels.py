"""The sparse products: every execution against the dense reference, and the structure that they walk through."""

import copy
import ctypes
import json
import logging
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_bench.errors import CheckpointError, ConfigError
from sparse_bench.sparsity.kernels import EXECUTIONS, SparseStructure, auto, build, cpu, linear, sparse_linear

EXPLICIT = tuple(execution for execution in EXECUTIONS if execution != "auto")
MASK = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]], dtype=torch.bool)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def problem(
    out: int, inner: int, tokens: int, density: float, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[SparseStructure, Tensor, Tensor, Tensor, Tensor]:
    """Structure, input, values, bias and a gradient of the output."""
    generator = torch.Generator().manual_seed(seed)
    structure = SparseStructure(torch.rand(out, inner, generator=generator) < density)
    sizes = [(tokens, inner), (structure.entries,), (out,), (tokens, out)]
    x, values, bias, grad = (torch.randn(*size, generator=generator, dtype=dtype) for size in sizes)
    return structure, x.requires_grad_(), values.requires_grad_(), bias.requires_grad_(), grad


def results(
    structure: SparseStructure, x: Tensor, values: Tensor, bias: Tensor | None, grad: Tensor, execution: str
) -> list[Tensor]:
    """Output and all gradients."""
    y = sparse_linear(x, structure, values, bias, execution)
    leaves = [x, values] if bias is None else [x, values, bias]
    return [y, *torch.autograd.grad(y, leaves, grad)]


def expected(structure: SparseStructure, x: Tensor, values: Tensor, bias: Tensor | None, grad: Tensor) -> list[Tensor]:
    """The same from products of full matrices in double precision, written out."""
    weight = torch.zeros(structure.out_features, structure.in_features, dtype=torch.float64)
    mask = structure.mask()
    weight[mask] = values.detach().double()
    tokens = x.shape[:-1].numel()
    x2, g2 = (t.detach().double().reshape(tokens, t.shape[-1]) for t in (x, grad))
    y = x.detach().double() @ weight.T
    parts = [y if bias is None else y + bias.detach().double(), (g2 @ weight).view(x.shape), (g2.T @ x2)[mask]]
    return parts if bias is None else [*parts, g2.sum(0)]


def assert_close(actual: list[Tensor], wanted: list[Tensor], tolerance: float = 2e-5) -> None:
    for a, w in zip(actual, wanted, strict=True):
        assert a.shape == w.shape
        scale = 1 + (w.abs().max().item() if w.numel() else 0)
        torch.testing.assert_close(a.double(), w, rtol=0, atol=tolerance * scale)


# ---- structure ---------------------------------------------------------------------------------------------------


def test_structure_by_hand() -> None:
    structure = SparseStructure(MASK)
    assert structure.row_start.tolist() == [0, 2, 2, 4]
    assert structure.column.tolist() == [1, 3, 0, 1]
    assert structure.row_start.dtype == structure.column.dtype == torch.int32
    assert structure.entries == 4
    assert structure.density == pytest.approx(4 / 12)
    assert structure.rows().tolist() == [0, 0, 2, 2]
    assert structure.positions().tolist() == [1, 3, 8, 9]
    column_start, row, origin = structure.by_column()
    assert column_start.tolist() == [0, 1, 3, 3, 4]
    assert row.tolist() == [2, 0, 2, 0]
    assert origin.tolist() == [2, 0, 3, 1]
    matrix = structure.scatter(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert matrix.tolist() == [[0, 1, 0, 2], [0, 0, 0, 0], [3, 4, 0, 0]]
    assert structure.gather(matrix).tolist() == [1, 2, 3, 4]
    assert torch.equal(structure.mask(), MASK)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0), (3, 4)])
def test_structure_without_entries(shape: tuple[int, int]) -> None:
    structure = SparseStructure(torch.zeros(shape, dtype=torch.bool))
    assert structure.entries == 0
    assert structure.row_start.tolist() == [0] * (shape[0] + 1)
    assert structure.by_column()[0].tolist() == [0] * (shape[1] + 1)
    assert structure.mask().shape == shape


def test_structure_is_rewired_in_place() -> None:
    structure = SparseStructure(MASK)
    structure.by_column()
    structure.rewire(~MASK)
    assert torch.equal(structure.mask(), ~MASK)
    assert structure.entries == 8
    assert structure.by_column()[0].tolist() == [0, 2, 3, 6, 8]
    with pytest.raises(ValueError, match="3 × 4"):
        structure.rewire(MASK[:2])
    with pytest.raises(ValueError, match="boolean"):
        structure.rewire(MASK.float())


def test_structure_from_csr() -> None:
    source = SparseStructure(MASK)
    assert torch.equal(SparseStructure.from_csr(source.row_start.long(), source.column.long(), 4).mask(), MASK)


@pytest.mark.parametrize(
    ("row_start", "column", "message"),
    [
        ([0, 2, 1], [0, 1], "rise"),
        ([0, 1, 3], [0, 1], "rise"),
        ([1, 1, 2], [0, 1], "rise"),
        ([0, 1, 2], [0, 4], r"lie in \[0, 4\)"),
        ([0, 1, 2], [-1, 0], r"lie in \[0, 4\)"),
        ([0, 2, 2], [1, 1], "ascend"),
        ([0, 2, 2], [3, 1], "ascend"),
        ([], [], "two vectors"),
    ],
)
def test_structure_rejects_what_is_no_csr(row_start: list[int], column: list[int], message: str) -> None:
    indices = torch.tensor(row_start, dtype=torch.int32), torch.tensor(column, dtype=torch.int32)
    with pytest.raises(ValueError, match=message):
        SparseStructure.from_csr(*indices, 4)


def test_structure_is_saved_and_loaded_with_another_number_of_entries() -> None:
    source, target = SparseStructure(MASK), SparseStructure(~MASK)
    target.by_column()
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.mask(), MASK)
    assert target.by_column()[0].tolist() == [0, 1, 3, 3, 4]
    damaged = {**source.state_dict(), "column": torch.tensor([1, 3, 0, 9], dtype=torch.int32)}
    with pytest.raises(CheckpointError, match="lie in"):
        target.load_state_dict(damaged)


def test_structure_is_copied_without_what_one_process_derived() -> None:
    structure, x, values, bias, grad = problem(6, 5, 4, 0.5)
    before = results(structure, x, values, bias, grad, "kernel")
    clone = copy.deepcopy(structure)
    assert not clone._derived
    for a, b in zip(before, results(clone, x, values, bias, grad, "kernel"), strict=True):
        assert torch.equal(a, b)


def test_structure_keeps_integer_indices_when_a_model_changes_dtype() -> None:
    assert SparseStructure(MASK).double().column.dtype == torch.int32


# ---- products ----------------------------------------------------------------------------------------------------


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
    chosen_bias = bias if with_bias else None
    actual = results(structure, x, values, chosen_bias, grad, execution)
    assert_close(actual, expected(structure, x, values, chosen_bias, grad))


# One block and several, the width of the input above and below what the second-level cache holds in a wide tile.
@pytest.mark.parametrize(
    ("out", "inner", "density"), [(100, 700, 0.5), (700, 100, 0.5), (300, 300, 0.3), (40, 9000, 0.01), (9000, 40, 0.01)]
)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_kernel_agrees_with_dense_at_size(out: int, inner: int, density: float, threads: int) -> None:
    torch.set_num_threads(threads)
    structure, x, values, bias, grad = problem(out, inner, 213, density)
    assert_close(results(structure, x, values, bias, grad, "kernel"), expected(structure, x, values, bias, grad))


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
        actual = results(structure, leaf, values, bias, grad, execution)
        assert_close(actual, expected(structure, leaf, values, bias, grad))
        assert actual[0].is_contiguous()


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


def test_a_training_run_ends_where_the_masked_one_does() -> None:
    losses = {}
    for execution in EXPLICIT:
        structure, x, values, bias, target = problem(48, 64, 96, 0.1, dtype=torch.float64)
        optimizer = torch.optim.Adam([values, bias], lr=0.01)
        for _ in range(100):
            optimizer.zero_grad()
            loss = (sparse_linear(x.detach(), structure, values, bias, execution) - target).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        losses[execution] = loss.item()
    assert losses["kernel"] == pytest.approx(losses["masked"], rel=1e-9)
    assert losses["csr"] == pytest.approx(losses["masked"], rel=1e-9)


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


# ---- building and choosing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [16, 64])
def test_other_vector_widths(width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "kernel.so"
    source = str(build._SOURCES / "sparse_linear.cpp")
    flags = ["-std=gnu++17", "-O0", "-w", "-shared", "-fPIC", f"-DVECTOR_BYTES={width}", source, "-o", str(library)]
    subprocess.run([build.compiler(), *flags], check=True)
    monkeypatch.setattr(cpu, "load_library", lambda: ctypes.CDLL(str(library)))
    cpu._library.cache_clear()
    try:
        assert cpu._library().vector_bytes() == width
        for size in [(70, 90, 77, 0.3), (33, 17, 5, 0.5), (300, 200, 100, 0.4)]:
            structure, x, values, bias, grad = problem(*size)
            actual = results(structure, x, values, bias, grad, "kernel")
            assert_close(actual, expected(structure, x, values, bias, grad))
    finally:
        cpu._library.cache_clear()


def test_missing_compiler_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.BuildError, match="no-such-compiler"):
        build._compiled()
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho cannot find your headers >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(build.BuildError, match="cannot find your headers"):
        build._compiled()
    assert not list(tmp_path.glob("**/*.so"))


def test_fallback_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "kernel_available", lambda: cpu.Availability(False, "no compiler at all"))
    linear._kernel_or_csr.cache_clear()
    structure, x, values, bias, grad = problem(6, 5, 4, 0.5)
    try:
        with pytest.warns(RuntimeWarning, match="no compiler at all"):
            first = results(structure, x, values, bias, grad, "kernel")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            second = results(structure, x, values, bias, grad, "kernel")
        for actual in (first, second):
            assert_close(actual, expected(structure, x, values, bias, grad))
    finally:
        linear._kernel_or_csr.cache_clear()


def test_auto_measures_once_and_remembers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(auto, "_remembered", {})
    structure, x, values, bias, grad = problem(64, 48, 40, 0.1)
    state = torch.get_rng_state()
    with caplog.at_level(logging.INFO, "sparse_bench"):
        for _ in range(3):
            wanted = expected(structure, x, values, bias, grad)
            assert_close(results(structure, x, values, bias, grad, "auto"), wanted)
    assert torch.equal(state, torch.get_rng_state())
    assert len([r for r in caplog.records if "sparse product" in r.getMessage()]) == 1
    ((key, entry),) = json.loads(auto.cache_file().read_text()).items()
    assert "64x48 density 2^-3.5 tokens 2^6 float32 cpu" in key
    assert entry["execution"] == min(entry["seconds"], key=entry["seconds"].get)
    assert set(entry["seconds"]) == set(EXPLICIT)
    # Another process finds the choice on disk, even one that it would not have made.
    auto.cache_file().write_text(json.dumps({key: {"execution": "csr"}}))
    monkeypatch.setattr(auto, "_remembered", {})
    structure.rewire(structure.mask())
    assert auto.choose(x, structure, values, bias, EXPLICIT, sparse_linear) == "csr"


def test_auto_survives_a_damaged_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(auto, "_remembered", {})
    auto.cache_file().parent.mkdir(parents=True)
    auto.cache_file().write_text("{")
    structure, x, values, bias, _ = problem(8, 8, 8, 0.5)
    sparse_linear(x, structure, values, bias, "auto")
    assert "cannot be read" in caplog.text
    assert len(json.loads(auto.cache_file().read_text())) == 1


def test_auto_leaves_out_what_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(auto, "_remembered", {})
    structure, x, values, bias, _ = problem(8, 8, 8, 0.5)

    def compute(x: Tensor, structure: SparseStructure, values: Tensor, bias: Tensor | None, execution: str) -> Tensor:
        if execution != "masked":
            raise RuntimeError("not on this device")
        return sparse_linear(x, structure, values, bias, execution)

    assert auto.choose(x, structure, values, bias, EXPLICIT, compute) == "masked"
    structure.rewire(~structure.mask())
    monkeypatch.setattr(auto, "_remembered", {})
    auto.cache_file().unlink()
    with pytest.raises(RuntimeError, match="no way of computing"):
        auto.choose(x, structure, values, bias, ("kernel", "csr"), compute)
