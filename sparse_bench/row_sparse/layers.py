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
    """Compute ``look_up()``; in the backward pass, ``gradient(grad)`` gives rows and values of the table's gradient."""

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
    """Base of layers with row-sparse gradients. Embedding layers other than torch's must inherit from it.

    Attributes:
        weight: the table [V, D].
        exact: True: the table follows the trajectory of the dense optimizer. False: rows that a batch does not touch
            do not change. None: the gradient is dense.
        before_read: called in every forward pass with the rows [U] that it will read, to apply their deferred updates.
    """

    weight: Any  # an nn.Parameter; torch's layers declare it in different ways
    exact: bool | None = None
    before_read: Callable[[Tensor], None] | None = None

    def stored(self, rows: Tensor) -> Tensor:
        """Rows of :attr:`weight` that hold the table's ``rows`` [U]; the same ones, unless overridden."""
        return rows

    def read(
        self,
        indices: Tensor,
        look_up: Callable[[], Tensor],
        gradient: Callable[[TouchedRows, Tensor], tuple[Tensor, Tensor]],
    ) -> Tensor:
        """Bring the rows that are read up to date, and return ``look_up()``.

        Args:
            indices: rows of the table that ``look_up`` reads [N].
            look_up: computes the result [..., D] from :attr:`weight`.
            gradient: (touched rows, gradient of the result [..., D]) → rows of :attr:`weight` and their gradients.
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
    """The gradient of each touched row [U, D], given ``grad``, the gradient of the vectors of ``words`` [..., D]."""
    # The padding row has no gradient. It is multiplied by zero, because the shape must not depend on the numbers.
    scale = None if padding_idx is None else (words.reshape(-1) != padding_idx).to(grad.dtype)
    return touched.sums(grad.reshape(-1, grad.shape[-1]), scale)


class RowSparseEmbedding(RowSparseLayer, nn.Embedding):
    """An :class:`torch.nn.Embedding` whose gradient is row-sparse."""

    def forward(self, input: Tensor) -> Tensor:
        """Look up indices of any shape [...]; returns [..., D]."""

        def gradient(touched: TouchedRows, grad: Tensor) -> tuple[Tensor, Tensor]:
            return touched.rows, gradient_of_words(input, self.padding_idx, touched, grad)

        return self.read(input.reshape(-1), partial(super().forward, input), gradient)


class RowSparseEmbeddingBag(RowSparseLayer, nn.EmbeddingBag):
    """An :class:`torch.nn.EmbeddingBag` (sum or mean) whose gradient is row-sparse."""

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """Look up indices [N] with ``offsets`` [B], or indices [B, L]; returns [B, D].

        Raises:
            ConfigError: ``per_sample_weights`` require a gradient.
        """
        if per_sample_weights is not None and per_sample_weights.requires_grad:
            raise ConfigError("An embedding bag with a row-sparse gradient cannot train per_sample_weights.")

        def gradient(touched: TouchedRows, grad: Tensor) -> tuple[Tensor, Tensor]:
            starts = offsets
            if starts is None:
                starts = torch.arange(0, input.numel(), input.shape[1], device=input.device)
            if self.mode == "mean":  # divide the gradients of bags, which are fewer than tokens
                lengths = torch.diff(starts, append=starts.new_full((1,), input.numel()))
                grad = grad / lengths[:, None]
            factors = None if per_sample_weights is None else per_sample_weights.reshape(-1)
            return touched.rows, touched.sums(grad, factors, starts)

        look_up = partial(super().forward, input, offsets, per_sample_weights)
        return self.read(input.reshape(-1), look_up, gradient)


#: torch's embedding layers → their row-sparse versions.
_BECOMES: dict[type[nn.Module], type[RowSparseLayer]] = {
    nn.Embedding: RowSparseEmbedding,
    nn.EmbeddingBag: RowSparseEmbeddingBag,
}
_TABLES: tuple[type[nn.Module], ...] = (*_BECOMES, RowSparseLayer)


def tables(model: nn.Module) -> list[str]:
    """Names of the weights of embedding layers, each once: those that can have row-sparse gradients."""
    parameters = {id(parameter): name for name, parameter in reversed(list(model.named_parameters()))}
    return [
        parameters[id(module.weight)]
        for module in model.modules()
        if isinstance(module, _TABLES) and id(module.weight) in parameters
    ]


def make_row_sparse(model: nn.Module, name: str, exact: bool) -> None:
    """Give the embedding table ``name`` of ``model`` a row-sparse gradient.

    Every layer that looks up rows of it computes the same outputs as before. ``exact``: see :class:`RowSparseLayer`.

    Raises:
        ConfigError: the weight is not an embedding table, or an option of its layer has no row-sparse gradient, or
            another layer such as a tied decoder uses it too, whose gradient reaches all rows.
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
                "so it has no row-sparse gradient. Untie it in the model's settings, or select other layers. "
                f"Embedding tables of this model: {', '.join(tables(model)) or '(none)'}."
            )
        if problems := _problems(module):
            raise ConfigError(f"The embedding layer '{path}' has no row-sparse gradient because of {problems}.")
    for module in users.values():
        # Change the class in place, so that other references to the layer stay valid.
        module.__class__ = _BECOMES.get(type(module), type(module))
        assert isinstance(module, RowSparseLayer)
        module.exact = exact


def _problems(module: nn.Module) -> str:
    """Options that keep an embedding layer from having a row-sparse gradient, separated by commas; empty if none."""
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
