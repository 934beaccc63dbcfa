"""Random sparse layers and what a dense computation makes of them."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparse_bench.kernels import EXECUTIONS, SparseStructure, lstm, sparse_linear
from sparse_bench.sparsity.layers.lstm import STRUCTURES, SparseLSTM

EXPLICIT = tuple(execution for execution in EXECUTIONS if execution != "auto")


#: Structure, input, values, bias and a gradient of the output.
Case = tuple[SparseStructure, Tensor, Tensor, Tensor, Tensor]


def problem(
    out: int, inner: int, tokens: int, density: float, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Case:
    """Random numbers."""
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


def assert_product(
    structure: SparseStructure, x: Tensor, values: Tensor, bias: Tensor | None, grad: Tensor, execution: str
) -> None:
    """Output and all gradients are right, relative to the sum of the magnitudes of each number's terms."""
    terms = [None if tensor is None else tensor.abs() for tensor in (x, values, bias, grad)]
    actual = results(structure, x, values, bias, grad, execution)
    wanted, magnitudes = expected(structure, x, values, bias, grad), expected(structure, *terms)
    for a, w, magnitude in zip(actual, wanted, magnitudes, strict=True):
        assert a.shape == w.shape
        assert ((a.double() - w).abs() <= 2e-6 * magnitude).all()


def rounded(case: Case) -> tuple[Case, Case]:
    """The problem with bfloat16 input and gradient, and the same numbers, rounded weights too, in float32."""
    structure, x, values, bias, grad = case
    half_x, half_grad = x.detach().bfloat16(), grad.bfloat16()
    half = (structure, half_x.requires_grad_(), values, bias, half_grad)
    same_x, same_values = (part.detach().bfloat16().float().requires_grad_() for part in (x, values))
    return half, (structure, same_x, same_values, bias, half_grad.float())


def assert_same_numbers(case: Case) -> None:
    """Activations are the float32 kernel's, rounded to nearest; gradients of values and bias are float32 sums."""
    half, single = rounded(case)
    y, gx, gv, gb = results(*half, "kernel")
    wanted_y, wanted_gx, wanted_gv, wanted_gb = results(*single, "kernel")
    assert [y.dtype, gx.dtype, gv.dtype, gb.dtype] == [torch.bfloat16] * 2 + [torch.float32] * 2
    for actual, wanted in ((y, wanted_y), (gx, wanted_gx)):
        # Half a unit in the last of eight digits, and what the order of the sums may change.
        largest = wanted.abs().amax(-1, keepdim=True) if wanted.numel() else wanted
        assert ((actual.float() - wanted).abs() <= 2**-8 * wanted.abs() + 1e-5 * largest).all()
    scale = case[1].shape[0] ** 0.5
    torch.testing.assert_close(gv, wanted_gv, rtol=1e-5, atol=1e-5 * scale)
    torch.testing.assert_close(gb, wanted_gb, rtol=1e-5, atol=1e-5 * scale)


def assert_digits(actual: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    """Each number is right to a relative tolerance; where sums cancel, a tenth of it of the tensor's largest number."""
    for a, w in zip(actual, wanted, strict=True):
        largest = w.abs().max().item() if w.numel() else 0.0
        torch.testing.assert_close(a.double().cpu(), w.double().cpu(), rtol=tolerance, atol=tolerance / 10 * largest)


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
        assert_digits([by_name[name]], [wanted_part], tolerance)
    assert_digits(actual[:6], wanted[:6], tolerance)


def bfloat_lstm_case(
    steps: int, batch: int, size: int, density: float
) -> tuple[dict[str, Tensor], tuple[SparseStructure, SparseStructure]]:
    """Numbers that bfloat16 has, but for the weights, and the structures of the weights on inputs and hidden states."""
    draw = torch.Generator().manual_seed(size)
    inputs, recurrent = (
        SparseStructure(torch.rand(4 * size, width, generator=draw) < density) for width in (size + 3, size)
    )
    sizes = {
        "x": (steps, batch, size + 3),
        "hidden": (batch, size),
        "cell": (batch, size),
        "inputs": (inputs.entries,),
        "recurrent": (recurrent.entries,),
        "bias": (4 * size,),
        "grad": (steps, batch, size),
    }
    case = {name: torch.randn(*shape, generator=draw).bfloat16().float() for name, shape in sizes.items()}
    for name in ("inputs", "recurrent"):
        case[name] /= max(1.0, density * size) ** 0.5
    return case, (inputs, recurrent)


def bfloat_lstm_results(case: dict[str, Tensor], structures: tuple[SparseStructure, SparseStructure]) -> list[Tensor]:
    """Hidden states, last cell states and all gradients of a sparse LSTM."""
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in case.items() if name != "grad"}
    state = leaves["hidden"], leaves["cell"]
    pairs = (structures[0], leaves["inputs"]), (structures[1], leaves["recurrent"])
    y, (_, last) = lstm.sparse_lstm(leaves["x"], state, *pairs, leaves["bias"], "kernel")
    total = (y.float() * case["grad"]).sum() + last.float().pow(2).sum()
    return [y, last, *torch.autograd.grad(total, list(leaves.values()))]


def assert_bfloat_lstm(steps: int, batch: int, size: int, density: float) -> None:
    """Each tensor to a hundredth of its norm: hidden states are rounded to eight digits after every time step."""
    case, structures = bfloat_lstm_case(steps, batch, size, density)
    wanted = bfloat_lstm_results(case, structures)
    with torch.autocast("cpu", torch.bfloat16):
        actual = bfloat_lstm_results(case, structures)
    assert actual[0].dtype == torch.bfloat16
    assert {tensor.dtype for tensor in actual[2:]} == {torch.float32}
    for one, other in zip(actual, wanted, strict=True):
        assert (one.float() - other).norm() <= 1e-2 * other.norm() + 1e-6


class Recurrence(NamedTuple):
    """The recurrence of an LSTM alone.

    Attributes:
        leaves: gates [T, B, 4H], hidden and cell states [B, H] and values.
        structure: of the values.
        grads: gradients of the outputs.
    """

    leaves: list[Tensor]
    structure: SparseStructure
    grads: list[Tensor]

    def expected(self) -> list[Tensor]:
        """Outputs and all gradients, from torch's LSTM in double precision, whose inputs are the gates themselves."""
        leaves = [leaf.detach().double().requires_grad_() for leaf in self.leaves]
        gates, hidden, cell, values = leaves
        identity = torch.eye(gates.shape[-1], dtype=torch.float64)
        y, (_, last) = lstm.full_lstm(gates, (hidden, cell), identity, self.structure.scatter(values), None)
        return [y, last, *torch.autograd.grad((y, last), leaves, [grad.double() for grad in self.grads])]


def recurrence_problem(
    steps: int,
    batch: int,
    structure: SparseStructure,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    scale: float = 1.0,
) -> Recurrence:
    """Random numbers; those that the outputs depend on times ``scale``."""
    generator = torch.Generator().manual_seed(seed)
    size = structure.in_features
    shapes = [(steps, batch, 4 * size), (batch, size), (batch, size), (structure.entries,)]
    leaves = [(torch.randn(shape, generator=generator, dtype=dtype) * scale).requires_grad_() for shape in shapes]
    grads = [torch.randn(shape, generator=generator, dtype=dtype) for shape in [(steps, batch, size), (batch, size)]]
    return Recurrence(leaves, structure, grads)


def recurrent_structure(size: int, density: float, seed: int = 0) -> SparseStructure:
    """Random, [4 size, size]."""
    return SparseStructure(torch.rand(4 * size, size, generator=torch.Generator().manual_seed(seed)) < density)
