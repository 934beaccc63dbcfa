"""Embedding layers with row-sparse gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sparse_bench.errors import ConfigError
from sparse_bench.row_sparse.gradients import TouchedRows, row_sparse


class _LookUp(torch.autograd.Function):
    """``look_up()``, and a table's gradient from that of its result: ``gradient(grad)`` gives its rows and values."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, look_up: Callable[[], Tensor], gradient: Callable[[Tensor], tuple[Tensor, Tensor]]
    ) -> Tensor:
        ctx.shape, ctx.gradient = weight.shape, gradient
        return look_up()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, values = ctx.gradient(grad)
        return row_sparse(rows, values, ctx.shape), None, None


class RowSparseLayer(nn.Module):
    """What layers with row-sparse gradients share. A layer that is none of torch's inherits it to be able to have one.

    Attributes:
        weight: the table [V, D].
        exact: whether its update has to follow the trajectory of the dense optimizer; else rows that a batch does not
            touch stay as they are. None: the gradient is dense.
        before_read: called with the rows [U] that are about to be read, in every forward pass; whoever puts off
            updates of rows brings them up to date here.
    """

    weight: Any  # an nn.Parameter; the layers that are mixed with declare it in different ways
    exact: bool | None = None
    before_read: Callable[[Tensor], None] | None = None

    def stored(self, rows: Tensor) -> Tensor:
        """Rows of :attr:`weight` that hold the vectors ``rows`` [U] of the table; another layer may number its own."""
        return rows

    def read(
        self,
        indices: Tensor,
        look_up: Callable[[], Tensor],
        gradient: Callable[[TouchedRows, Tensor], tuple[Tensor, Tensor]],
    ) -> Tensor:
        """``look_up()``, which reads the rows ``indices`` [N], brought up to date.

        Args:
            indices: of the table.
            look_up: computes the result [..., D] from :attr:`weight`.
            gradient: of the touched rows and the gradient of the result [..., D]: rows of :attr:`weight`, their values.
        """
        learns = torch.is_grad_enabled() and self.weight.requires_grad
        if not learns and self.before_read is None:
            return look_up()
        touched = TouchedRows.of(indices)
        if self.before_read is not None:
            self.before_read(self.stored(touched.rows))
        if not learns:
            return look_up()
        vectors: Tensor = _LookUp.apply(self.weight, look_up, partial(gradient, touched))
        return vectors


def gradient_of_words(words: Tensor, padding_idx: int | None, touched: TouchedRows, grad: Tensor) -> Tensor:
    """The gradient of each touched row [U, D] from that of the vectors [..., D] of ``words`` [...]."""
    # The padding row has no gradient. Multiplied, not taken out: the shape must not depend on the numbers.
    scale = None if padding_idx is None else (words.reshape(-1) != padding_idx).to(grad.dtype)
    return touched.sums(grad.reshape(-1, grad.shape[-1]), scale)


class RowSparseEmbedding(RowSparseLayer, nn.Embedding):
    """An :class:`torch.nn.Embedding` whose gradient is row-sparse."""

    def forward(self, input: Tensor) -> Tensor:
        """Indices of any shape [...] → [..., D]."""

        def gradient(touched: TouchedRows, grad: Tensor) -> tuple[Tensor, Tensor]:
            return touched.rows, gradient_of_words(input, self.padding_idx, touched, grad)

        return self.read(input.reshape(-1), partial(super().forward, input), gradient)


class RowSparseEmbeddingBag(RowSparseLayer, nn.EmbeddingBag):
    """An :class:`torch.nn.EmbeddingBag` (sum or mean) whose gradient is row-sparse."""

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """Indices [N] with ``offsets`` [B], or indices [B, L] → [B, D]. ``per_sample_weights`` are data."""
        if per_sample_weights is not None and per_sample_weights.requires_grad:
            raise ConfigError("With a row-sparse gradient, the weights of a bag's samples cannot learn.")

        def gradient(touched: TouchedRows, grad: Tensor) -> tuple[Tensor, Tensor]:
            starts = offsets
            if starts is None:
                starts = torch.arange(0, input.numel(), input.shape[1], device=input.device)
            if self.mode == "mean":  # bags are fewer than tokens, so it is their gradients that are divided
                lengths = torch.diff(starts, append=starts.new_full((1,), input.numel()))
                grad = grad / lengths[:, None]
            factors = None if per_sample_weights is None else per_sample_weights.reshape(-1)
            return touched.rows, touched.sums(grad, factors, starts)

        look_up = partial(super().forward, input, offsets, per_sample_weights)
        return self.read(input.reshape(-1), look_up, gradient)


#: torch's layers that look rows up, and what they become.
_BECOMES: dict[type[nn.Module], type[RowSparseLayer]] = {
    nn.Embedding: RowSparseEmbedding,
    nn.EmbeddingBag: RowSparseEmbeddingBag,
}
_TABLES: tuple[type[nn.Module], ...] = (*_BECOMES, RowSparseLayer)


def tables(model: nn.Module) -> list[str]:
    """Names of the weights that can have row-sparse gradients: those of embedding layers, each once."""
    parameters = {id(parameter): name for name, parameter in reversed(list(model.named_parameters()))}
    return [
        parameters[id(module.weight)]
        for module in model.modules()
        if isinstance(module, _TABLES) and id(module.weight) in parameters
    ]


def make_row_sparse(model: nn.Module, name: str, exact: bool) -> None:
    """Give the embedding table ``name`` of ``model`` a row-sparse gradient.

    Every layer that looks up rows of it computes the same numbers as before.

    Raises:
        ConfigError: the weight is no embedding table, has options that have no row-sparse gradient, or is also used by
            a layer that is no look-up (a tied decoder), whose gradient reaches all rows.
    """
    weight = model.get_parameter(name)
    users = {
        path: module
        for path, module in model.named_modules()
        if any(parameter is weight for parameter in module.parameters(recurse=False))
    }
    for path, module in users.items():
        if not isinstance(module, _TABLES):
            raise ConfigError(
                f"The weight '{name}' is used by '{path}' ({type(module).__name__}), whose gradient reaches all rows, "
                "so it has no row-sparse gradient. Untie it in the model's settings, or name other layers. "
                f"Embedding tables of this model: {', '.join(tables(model)) or '(none)'}."
            )
        if problems := _problems(module):
            raise ConfigError(f"The embedding layer '{path}' has no row-sparse gradient because of {problems}.")
    for module in users.values():
        # The same layer from now on computes its gradient in another way: whoever holds it goes on holding it.
        module.__class__ = _BECOMES.get(type(module), type(module))
        assert isinstance(module, RowSparseLayer)
        module.exact = exact


def _problems(module: nn.Module) -> str:
    """What keeps an embedding layer from a row-sparse gradient, separated by commas."""
    problems = {
        f"its class {type(module).__name__}": type(module) not in _BECOMES and not isinstance(module, RowSparseLayer)
    }
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        problems |= {"max_norm": module.max_norm is not None, "scale_grad_by_freq": module.scale_grad_by_freq}
    if isinstance(module, nn.EmbeddingBag):
        problems |= {
            f"mode='{module.mode}'": module.mode == "max",
            "padding_idx": module.padding_idx is not None,
            "include_last_offset": module.include_last_offset,
        }
    return ", ".join(problem for problem, present in problems.items() if present)
