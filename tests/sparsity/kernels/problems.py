"""Random sparse layers and what a dense computation makes of them."""

import copy

import torch
from torch import Tensor, nn

from sparse_bench.sparsity.kernels import EXECUTIONS, SparseStructure, sparse_linear
from sparse_bench.sparsity.lstm import STRUCTURES, SparseLSTM

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
        torch.testing.assert_close(a.double().cpu(), w.cpu(), rtol=0, atol=tolerance * scale)


def lstm_problem(
    *, steps: int, batch: int, inputs: int, hidden: int, density: float, dtype: torch.dtype = torch.float32
) -> tuple[nn.LSTM, SparseLSTM, list[Tensor]]:
    """A torch LSTM with zeros in it, a sparse one that must equal it, and input, first states and their gradients."""
    torch.manual_seed(0)
    dense = nn.LSTM(inputs, hidden).to(dtype)
    masks = {name: torch.rand_like(getattr(dense, name)) < density for name in STRUCTURES}
    with torch.no_grad():
        for name, mask in masks.items():
            getattr(dense, name).mul_(mask)
    sparse = SparseLSTM(copy.deepcopy(dense), masks, "csr")
    shapes = [(steps, batch, inputs), *[(1, batch, hidden)] * 2, (steps, batch, hidden), *[(1, batch, hidden)] * 2]
    return dense, sparse, [torch.randn(shape, dtype=dtype) for shape in shapes]


def assert_same_lstm(
    problem: tuple[nn.LSTM, SparseLSTM, list[Tensor]], execution: str, tolerance: float = 2e-5
) -> None:
    """Outputs, states and every gradient are those of torch's LSTM."""
    dense, sparse, (x, h, c, *grads) = problem
    sparse.execution = execution

    def everything(layer: nn.Module) -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in (x, h, c)]
        y, states = layer(leaves[0], (leaves[1], leaves[2]))
        outputs = [y, *states]
        return outputs + list(torch.autograd.grad(outputs, [*leaves, *layer.parameters()], grads))

    names = [name for name, _ in dense.named_parameters()]
    assert sorted(names) == sorted(name for name, _ in sparse.named_parameters())
    wanted, actual = everything(dense), everything(sparse)
    by_name = dict(zip((name for name, _ in sparse.named_parameters()), actual[6:], strict=True))
    for name, full in zip(names, wanted[6:], strict=True):
        structure = getattr(sparse, STRUCTURES[name]) if name in STRUCTURES else None
        wanted_part = structure.gather(full) if structure is not None else full
        assert_close([by_name[name]], [wanted_part.double()], tolerance)
    assert_close(actual[:6], [tensor.double() for tensor in wanted[:6]], tolerance)
