"""Random sparse layers and what a dense computation makes of them."""

import torch
from torch import Tensor

from sparse_bench.sparsity.kernels import EXECUTIONS, SparseStructure, sparse_linear

EXPLICIT = tuple(execution for execution in EXECUTIONS if execution != "auto")


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
