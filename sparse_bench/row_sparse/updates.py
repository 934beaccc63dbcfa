"""Let torch's own optimizers step on only those rows of a table that have a gradient.

torch's Adam, AdamW, RMSprop and others do not accept row-sparse gradients; SGD and Adagrad do not with weight decay.
Here, during a step, a smaller parameter replaces the table. It holds the touched rows, and its optimizer state holds
the same rows of the moments. The optimizer makes its usual step with all of its settings, on fewer rows. All other
weights of the model take part in the same step as usual.

This is the ``lazy`` form: rows without a gradient do not change. In the ``exact`` form, the effect of the step on these
rows is deferred until they are read (see :mod:`sparse_bench.row_sparse.deferral`).
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

from sparse_bench.errors import ConfigError, unknown_choice
from sparse_bench.row_sparse.compiled import add_rows, compiled, put_rows, take_rows
from sparse_bench.row_sparse.deferral import NOTHING, Deferral, deferral
from sparse_bench.row_sparse.gradients import readable_without_wait, repeated, summed
from sparse_bench.row_sparse.layers import RowSparseLayer

#: Optimizers that update each element of a weight independently, so that they can step on some rows alone.
ELEMENTWISE: tuple[type[Optimizer], ...] = (SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta, Adamax, NAdam, RAdam)

logger = logging.getLogger(__name__)

#: Fewest and most steps between two updates of all rows of a table, and the number of rows that add one step to this
#: interval. The rare pass over the whole table stays cheap compared to the steps.
_CAPACITY, _MOST_CAPACITY, _ROWS_A_STEP = 1024, 65536, 32
#: Weights per chunk when all rows are brought up to date: few enough to stay in a cache.
_CHUNK = 2**17

_KEY = "row_sparse"


class RowSparseUpdates:
    """Updates all tables of ``model`` that have row-sparse gradients, by hooks of ``optimizer``.

    Its state is part of the optimizer's ``state_dict``. Without such tables it does nothing.

    Args:
        optimizer: steps on all weights of the model.
        model: its layers were made row-sparse by :func:`sparse_bench.row_sparse.make_row_sparse`.
        tolerance: see :func:`sparse_bench.row_sparse.deferral.deferral`.

    Raises:
        ConfigError: the optimizer does not update each element of a weight independently, or has no table.
    """

    def __init__(self, optimizer: Optimizer, model: nn.Module, tolerance: float | None = None) -> None:
        layers = [m for m in model.modules() if isinstance(m, RowSparseLayer) and m.exact is not None]
        weights = {id(layer.weight): layer.weight for layer in layers}
        if weights and type(optimizer) not in ELEMENTWISE:
            valid = [known.__name__ for known in ELEMENTWISE]
            raise ConfigError(unknown_choice("optimizer for row-sparse gradients", type(optimizer).__name__, valid))
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._optimizer = optimizer
        self._tables = [
            _Table(names[key], weight, optimizer, [layer for layer in layers if layer.weight is weight], tolerance)
            for key, weight in weights.items()
        ]
        for table in self._tables:
            optimizer.register_step_pre_hook(table.before_step)
            optimizer.register_step_post_hook(table.after_step)
            optimizer.register_state_dict_pre_hook(table.settle)
        if self._tables:
            optimizer.register_state_dict_post_hook(self._save)
            optimizer.register_load_state_dict_pre_hook(self._load)
            # With this flag, a gradient scaler skips the whole call of step() when a gradient overflows. So only
            # steps that are really made reach the hooks and are counted.
            optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]

    @property
    def dense_steps(self) -> dict[str, int | None]:
        """Table → number of its first steps that use dense gradients; None: all steps."""
        return {table.name: table.dense_steps for table in self._tables}

    def computed(self) -> dict[str, str]:
        """How rows of tables are updated on the CPU: with compiled code or with torch. Empty without such tables."""
        on_cpu = any(table.weight.is_cpu for table in self._tables)
        return {"rows of tables": "compiled code" if compiled() else "torch"} if on_cpu else {}

    def fallbacks(self) -> list[str]:
        """A warning if rows of tables are updated with torch because compiled code is not available."""
        if self.computed().get("rows of tables") != "torch":
            return []
        return ["Rows of tables are updated with torch, as compiled code is not available; the last digits differ."]

    @torch.no_grad()
    def flush(self) -> None:
        """Bring all rows up to date, so that the tables are what they would be with dense gradients."""
        for table in self._tables:
            table.flush()

    def reset(self) -> None:
        """Prepare for a reset of the optimizer: bring all rows up to date, and count steps from zero again."""
        self.flush()
        for table in self._tables:
            table.restart(0)

    def _save(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        state[_KEY] = [table.state_dict() for table in self._tables]

    def _load(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        for table, saved in zip(self._tables, state[_KEY], strict=True):
            table.load_state_dict(saved)


class _Table:
    """One table: replaces it by its touched rows during a step, and tracks how far each row is up to date."""

    def __init__(
        self,
        name: str,
        weight: nn.Parameter,
        optimizer: Optimizer,
        layers: Sequence[RowSparseLayer],
        tolerance: float | None,
    ) -> None:
        self.name, self.weight = name, weight
        #: Indices of the optimizer's parameter group and of the table in it. The optimizer makes new groups when it
        #: loads a state, so a reference to a group would not stay valid.
        self._place = _place(optimizer, weight)
        self._optimizer = optimizer
        #: The work to do after the optimizer's step.
        self._finish: Callable[[], None] | None = None
        #: The rows brought up to date last, with their weights, and their moments, which are not written back yet.
        self._caught_up: tuple[Tensor, Tensor, dict[str, Tensor]] | None = None
        self._deferral: Deferral | None = None
        self._always_dense = False
        exact = {layer.exact for layer in layers}
        if len(exact) > 1:
            raise ConfigError(f"The layers that share the table '{name}' have different forms of update (exact, lazy).")
        if exact == {True}:
            self._put_off(layers, tolerance)

    def _put_off(self, layers: Sequence[RowSparseLayer], tolerance: float | None) -> None:
        capacity = min(max(_CAPACITY, self.weight.shape[0] // _ROWS_A_STEP), _MOST_CAPACITY)
        if isinstance(self._optimizer, SGD):  # every step changes all numbers of its deferral
            capacity = _CAPACITY
        found = deferral(self._optimizer, self._group, self.weight, capacity, tolerance)
        if isinstance(found, Deferral):
            self._deferral = found
            self._deferral.restart(0)
            self.rows_step = torch.zeros(self.weight.shape[0], dtype=torch.int64, device=self.weight.device)
            for layer in layers:
                layer.before_read = self.catch_up
        elif found != NOTHING:
            self._always_dense = True
            logger.warning(
                "The table '%s' is updated densely in every step: %s. With sparsity.form=lazy, rows without a gradient "
                "do not change.",
                self.name,
                found,
            )

    @property
    def _group(self) -> dict[str, Any]:
        """The optimizer's settings for the table."""
        return self._optimizer.param_groups[self._place[0]]

    @property
    def dense_steps(self) -> int | None:
        if self._always_dense:
            return None
        return self._deferral.dense_steps if self._deferral is not None else 0

    def _takes_dense_step(self) -> bool:
        early = self._deferral is not None and self._deferral.step < self._deferral.dense_steps
        return self._always_dense or early

    def before_step(self, *hook: Any) -> None:
        """Replace the table by its touched rows, or make its gradient dense.

        Raises:
            ConfigError: the gradient is dense.
        """
        gradient, self._finish = self.weight.grad, None
        if gradient is None:
            return
        if not gradient.is_sparse:
            raise ConfigError(
                f"The table '{self.name}' has a gradient for all of its rows, because the model uses it for more than "
                "look-ups: a tied decoder, a penalty on its weights or word dropout uses the whole table. Switch that "
                "off in the model's settings, or leave the table out of sparsity.layers."
            )
        if self._takes_dense_step():
            values = gradient._values()
            self.weight.grad = values.new_zeros(gradient.shape).index_add_(0, gradient._indices()[0], values)
            self._finish = self._after_dense_step
            return
        rows, sums = summed(gradient)
        # Plain SGD needs no moments: the optimizer skips the table, and the rows are added afterwards.
        if self._only_adds():
            self.weight.grad = None
            self._finish = partial(self._add, rows, sums)
            return
        # Let a parameter of the touched rows, with their moments, take the table's place in the optimizer.
        weight, moments = self._rows_of_everything(rows)
        stand_in = nn.Parameter(weight)
        stand_in.grad = repeated(rows, sums)
        self._group["params"][self._place[1]] = stand_in
        state = self._optimizer.state.pop(self.weight, {})
        if state:
            self._optimizer.state[stand_in] = state | moments
        self._finish = partial(self._take_back, rows, stand_in, state)

    @torch.no_grad()
    def after_step(self, *hook: Any) -> None:
        """Write the rows back into the table, and defer the step for all others."""
        if self._finish is not None:
            self._finish()
            self._finish = None

    def _after_dense_step(self) -> None:
        if self._deferral is not None:
            self.restart(self._deferral.step + 1)

    def _only_adds(self) -> bool:
        """Whether a step only subtracts the learning rate times the gradient."""
        group = self._group
        plain = isinstance(self._optimizer, SGD)
        return plain and not (group["momentum"] or group["weight_decay"] or group["maximize"])

    def _add(self, rows: Tensor, sums: Tensor) -> None:
        """The whole step of plain SGD."""
        add_rows(self.weight.detach(), rows, sums, -float(self._group["lr"]))

    def _take_back(self, rows: Tensor, stand_in: nn.Parameter, state: dict[str, Any]) -> None:
        self._group["params"][self._place[1]] = self.weight
        put_rows(self.weight, rows, stand_in.detach())
        for key, value in self._optimizer.state.pop(stand_in, {}).items():
            if isinstance(value, Tensor) and value.shape == stand_in.shape:
                if key not in state:
                    state[key] = value.new_zeros(self.weight.shape)
                put_rows(state[key], rows, value)
            else:
                state[key] = value
        if state:
            self._optimizer.state[self.weight] = state
        if self._deferral is not None:
            self._deferral.record(float(self._group["lr"]))
            self.rows_step.index_fill_(0, rows, self._deferral.step)
            if self._deferral.deferred >= self._deferral.capacity:
                self.flush()

    @torch.no_grad()
    def catch_up(self, rows: Tensor) -> None:
        """Bring ``rows`` [U] up to date. Rows may repeat, as all repeats write the same numbers."""
        if self._deferral is None or not self._deferral.deferred:
            return
        self.settle()
        weight, moments = self._deferral.taken(
            self.weight.detach(), self._moments(), rows, self.rows_step.index_select(0, rows)
        )
        self.rows_step.index_fill_(0, rows, self._deferral.step)
        # The next step is usually on the same rows, so their moments are written once, after that step.
        self._caught_up = rows, weight, moments

    def settle(self, *hook: Any) -> None:
        """Write back the moments of the rows that were brought up to date last."""
        if self._caught_up is not None:
            rows, _, moments = self._caught_up
            state = self._optimizer.state[self.weight]
            for key, value in moments.items():
                put_rows(state[key], rows, value)
            self._caught_up = None

    def _rows_of_everything(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Copies of the weights and moments of ``rows``."""
        if self._caught_up is not None and _same(self._caught_up[0], rows):
            _, weight, moments = self._caught_up
            self._caught_up = None
            return weight, moments
        self.settle()
        moments = {key: take_rows(value, rows) for key, value in self._moments().items()}
        return take_rows(self.weight.detach(), rows), moments

    @torch.no_grad()
    def flush(self) -> None:
        """Bring all rows up to date."""
        if self._deferral is None or not self._deferral.deferred:
            return
        self.settle()
        moments, rows = self._moments(), self.weight.shape[0]
        at_once = max(1, _CHUNK * rows // self.weight.numel())
        for start in range(0, rows, at_once):
            chunk = slice(start, start + at_once)
            state = {key: value[chunk] for key, value in moments.items()}
            self._deferral.apply(self.weight[chunk], state, self.rows_step[chunk])
        self.restart(self._deferral.step)

    def restart(self, step: int) -> None:
        """Note that all rows are up to date after ``step`` steps."""
        if self._deferral is not None:
            self._deferral.restart(step)
            self.rows_step.fill_(step)

    def state_dict(self) -> dict[str, Any]:
        if self._deferral is None:
            return {}
        return {"deferral": self._deferral.state_dict(), "rows_step": self.rows_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._deferral is not None:
            self._deferral.load_state_dict(state["deferral"])
            self.rows_step.copy_(state["rows_step"])
            self._caught_up = None

    def _moments(self) -> dict[str, Tensor]:
        state = self._optimizer.state.get(self.weight, {})
        shape = self.weight.shape
        return {key: value for key, value in state.items() if isinstance(value, Tensor) and value.shape == shape}


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether both tensors are the same memory."""
    return readable_without_wait(one) and one.data_ptr() == other.data_ptr() and one.numel() == other.numel()


def _place(optimizer: Optimizer, weight: nn.Parameter) -> tuple[int, int]:
    for number, group in enumerate(optimizer.param_groups):
        for index, parameter in enumerate(group["params"]):
            if parameter is weight:
                return number, index
    raise ConfigError("A table with row-sparse gradients is not among the optimizer's parameters.")
