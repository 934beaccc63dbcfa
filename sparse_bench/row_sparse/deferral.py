"""Defer an optimizer's steps on rows without a gradient, and apply all of them at once when the row is read.

A dense optimizer changes every row in every step: momentum continues, moments decay, weight decay shrinks weights.
Take a row that was last up to date after step s and is read after step t. The effect of the steps s+1 … t depends on
the row's own state, and on numbers that are the same for all rows with the same s. A :class:`Deferral` keeps these
numbers, in float64, for every s that some row may still have. :meth:`Deferral.apply` is exact up to rounding:

- SGD with momentum and weight decay is linear in (weight, momentum): a product of 2×2 matrices for every s.
- RMSprop without weight decay: moments decay, and momentum is a geometric sum weighted by the learning rates.
- Adagrad and plain SGD change nothing without a gradient, so there is nothing to defer.
- Adam and AdamW: see :class:`AdamDeferral`.

With weight decay inside its gradient, an adaptive optimizer (Adam, RMSprop, Adagrad) changes each row by a nonlinear
function of itself in every step. Only carrying out all of these steps gives the same numbers. That costs as much later
as at once, so :func:`deferral` does not defer them.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from sparse_bench.row_sparse.compiled import MOST_TERMS, adam_rows
from sparse_bench.row_sparse.gradients import readable_without_wait


class Deferral(ABC):
    """The shared numbers of deferred steps, for all s from :attr:`base` to the latest step.

    Args:
        columns: how many numbers there are for one s.
        capacity: how many steps can be deferred before all rows have to be brought up to date.
        like: a tensor on the device where the numbers are kept.
    """

    #: Number of first steps in training that need dense gradients.
    dense_steps: int = 1

    def __init__(self, columns: int, capacity: int, like: Tensor) -> None:
        self.capacity = capacity
        self.base = 0
        self.step = 0
        self.table = torch.zeros(capacity + 1, columns, dtype=torch.float64, device=like.device)

    @property
    def deferred(self) -> int:
        """Number of steps since all rows were last up to date."""
        return self.step - self.base

    def restart(self, step: int) -> None:
        """Restart: all rows are up to date after ``step``."""
        if self.deferred or step == 0:
            self.table.zero_()
        self.base = self.step = step
        self.open_row(self.table[0])

    def record(self, learning_rate: float) -> None:
        """Record another step, in which some rows had no gradient."""
        self.step += 1
        self.skip(self.table[: self.deferred], learning_rate)
        self.open_row(self.table[self.deferred])

    @abstractmethod
    def open_row(self, row: Tensor) -> None:
        """Initialise the numbers for s = :attr:`step` [columns], after which nothing has been skipped yet."""

    @abstractmethod
    def skip(self, table: Tensor, learning_rate: float) -> None:
        """Add step :attr:`step` to the numbers of all s before it [s, columns]."""

    @abstractmethod
    def apply(self, weight: Tensor, state: Mapping[str, Tensor], rows_step: Tensor) -> None:
        """Bring rows up to date, in place.

        Args:
            weight: the rows [R, D].
            state: torch's name of each of the optimizer's moments → that moment of the rows [R, D].
            rows_step: the step after which each row was last up to date [R], int64.
        """

    def taken(
        self, weight: Tensor, state: Mapping[str, Tensor], rows: Tensor, rows_step: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Bring ``rows`` [R] of a whole table [V, D] up to date; return copies of them and of their updated moments.

        The moments in ``state`` may stay as they were.
        """
        taken = weight.index_select(0, rows)
        moments = {key: value.index_select(0, rows) for key, value in state.items()}
        self.apply(taken, moments, rows_step)
        weight.index_copy_(0, rows, taken)
        return taken, moments

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes during training."""
        return {"base": self.base, "step": self.step, "table": self.table[: self.deferred + 1].clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.base, self.step = state["base"], state["step"]
        self.table.zero_()[: self.deferred + 1] = state["table"].to(self.table.device)

    def _numbers(self, rows_step: Tensor) -> Tensor:
        """The numbers of each row [R, columns]."""
        return self.table.index_select(0, rows_step - self.base)

    def _skipped(self, rows_step: Tensor) -> Tensor:
        """Number of steps that each row is behind [R], float64."""
        return (self.step - rows_step).double()


def _column(values: Tensor, like: Tensor) -> Tensor:
    """One factor per row, in a shape that multiplies ``like`` [R, D], or [R] if the rows are single weights."""
    return values.to(like.dtype).view(-1, *[1] * (like.dim() - 1))


class SgdDeferral(Deferral):
    """(w, b) ← M (w, b), the product of the skipped steps' matrices.

    With learning rate η, momentum μ, dampening τ and weight decay λ, a step without gradient is
    b ← μ b + (1 − τ) λ w, then w ← w − η b, or w ← w − η (λ w + μ b) with Nesterov's momentum.
    """

    def __init__(self, group: Mapping[str, Any], capacity: int, like: Tensor) -> None:
        self._momentum, self._nesterov = float(group["momentum"]), bool(group["nesterov"])
        self._decay = float(group["weight_decay"])
        self._dampened = (1.0 - float(group["dampening"])) * self._decay
        super().__init__(4, capacity, like)

    def open_row(self, row: Tensor) -> None:
        row[0].fill_(1.0)  # an assignment would copy from the host and wait for the GPU
        row[3].fill_(1.0)

    def skip(self, table: Tensor, learning_rate: float) -> None:
        mu, decay, dampened = self._momentum, self._decay, self._dampened
        if mu == 0:
            table[:, 0] *= 1.0 - learning_rate * decay
            return
        if self._nesterov:
            own, other = 1.0 - learning_rate * (decay + mu * dampened), -learning_rate * mu * mu
        else:
            own, other = 1.0 - learning_rate * dampened, -learning_rate * mu
        weight, buffer = table[:, :2].clone(), table[:, 2:].clone()
        table[:, :2] = torch.add(weight * own, buffer, alpha=other)
        table[:, 2:] = torch.add(weight * dampened, buffer, alpha=mu)

    def apply(self, weight: Tensor, state: Mapping[str, Tensor], rows_step: Tensor) -> None:
        numbers = self._numbers(rows_step)
        if self._momentum == 0:
            weight.mul_(_column(numbers[:, 0], weight))
            return
        buffer = state["momentum_buffer"]
        before = weight.clone()
        weight.mul_(_column(numbers[:, 0], weight)).addcmul_(buffer, _column(numbers[:, 1], weight))
        buffer.mul_(_column(numbers[:, 3], weight)).addcmul_(before, _column(numbers[:, 2], weight))


class RmspropDeferral(Deferral):
    """Moments decay; momentum b changes the weight by −b Σ η_j μ^(j−s) over the skipped steps j."""

    def __init__(self, group: Mapping[str, Any], capacity: int, like: Tensor) -> None:
        self._alpha, self._momentum = float(group["alpha"]), float(group["momentum"])
        self._window = _window(self._momentum, like.dtype)
        ages = torch.arange(self._window, 0, -1, dtype=torch.float64, device=like.device)
        self._decays = torch.pow(self._momentum, ages)
        super().__init__(1, capacity, like)

    def open_row(self, row: Tensor) -> None:
        """The sum starts at zero, which unused numbers already are."""

    def skip(self, table: Tensor, learning_rate: float) -> None:
        if self._momentum:
            recent = table[-self._window :, 0]
            recent.add_(self._decays[-recent.shape[0] :], alpha=learning_rate)

    def apply(self, weight: Tensor, state: Mapping[str, Tensor], rows_step: Tensor) -> None:
        skipped = self._skipped(rows_step)
        decay = _column(torch.pow(self._alpha, skipped), weight)
        for name in ("square_avg", "grad_avg"):
            if name in state:
                state[name].mul_(decay)
        if self._momentum:
            buffer = state["momentum_buffer"]
            weight.addcmul_(buffer, _column(self._numbers(rows_step)[:, 0], weight), value=-1.0)
            buffer.mul_(_column(torch.pow(self._momentum, skipped), weight))


class AdamDeferral(Deferral):
    """Adam, and AdamW's decoupled weight decay.

    At each skipped step j = s+k, a row's first moment m decays by β₁ and its second moment v by β₂. The weight changes
    by −η_j m β₁^k / (1 − β₁^j) / (B_k √v + ε), where B_k = √(β₂^k / (1 − β₂^j)). Because of ε, the factor differs for
    every element. But B_k changes slowly compared to β₁^k. With one B̄ near all of them and B_k = B̄ (1 + δ_k),

        1 / (B_k √v + ε) = Σ_n (−δ_k)^n u^n / (B̄ √v + ε),   u = B̄ √v / (B̄ √v + ε) in [0, 1].

    So the sum over k gives one coefficient C_n for all rows with the same s. A row then costs one polynomial in u,
    however many steps it skipped. :attr:`terms` is chosen so that the truncation error of any skipped step is below
    ``tolerance`` times the change in the first one. Steps with β₁^k below rounding change nothing. Early in training,
    1 − β₂^j grows too fast for a short polynomial, so the first :attr:`dense_steps` steps use dense gradients.
    """

    #: Most dense steps at the start, while 1 − β₂^j still grows; the number of terms is the least that allows it.
    EARLY = 128

    def __init__(
        self, group: Mapping[str, Any], decoupled: float, capacity: int, like: Tensor, tolerance: float
    ) -> None:
        self._beta1, self._beta2 = map(float, group["betas"])
        self._eps, self._decay = float(group["eps"]), decoupled
        window = _window(self._beta1, like.dtype)
        #: The k whose B_k serves as B̄: the centre of the weights β₁^k of the sum.
        self._centre = round(1.0 / (1.0 - self._beta1))
        self.terms, self.dense_steps = self._expansion(window, tolerance)
        # k = window … 1, as s = step − k goes up along the table.
        ages = torch.arange(window, 0, -1, dtype=torch.float64, device=like.device)
        self._decays = torch.pow(self._beta1, ages)
        self._roots = torch.pow(self._beta2, ages / 2)
        self._exponents = torch.arange(self.terms, dtype=torch.float64, device=like.device)
        #: Product of 1 − η_j λ over the steps since :attr:`base`.
        self._shrunk = 1.0
        super().__init__(2 + self.terms, capacity, like)

    def _expansion(self, window: int, tolerance: float) -> tuple[int, int]:
        """Number of terms and of dense steps; 2^62 (all) dense steps if no short expansion exists."""
        ages = torch.arange(1, window + 1, dtype=torch.float64)
        starts = torch.tensor([0.0, *torch.logspace(0, 6, 241, dtype=torch.float64).floor().unique().tolist()])[:, None]
        scale = torch.pow(self._beta2, ages / 2) / (1 - torch.pow(self._beta2, starts + ages)).sqrt()
        delta = (scale / self._bar(starts) - 1).abs()
        for terms in range(2, MOST_TERMS + 1):
            error = (torch.pow(self._beta1, ages - 1) * delta**terms).amax(1)
            good = 1 + max((error > tolerance).nonzero().flatten().tolist(), default=-1)  # accurate from this start on
            if good < len(starts) and starts[good] <= self.EARLY:
                return terms, max(1, int(starts[good]))
        return 1, 2**62

    def _bar(self, step: Any) -> Any:
        """B̄ of rows that were last up to date after ``step``."""
        return (self._beta2**self._centre / (1 - self._beta2 ** (step + self._centre))) ** 0.5

    def restart(self, step: int) -> None:
        self._shrunk = 1.0
        super().restart(step)

    def open_row(self, row: Tensor) -> None:
        row[0].fill_(self._shrunk)
        row[1].fill_(self._bar(self.step))

    def skip(self, table: Tensor, learning_rate: float) -> None:
        self._shrunk *= 1.0 - learning_rate * self._decay
        recent = table[-self._decays.shape[0] :]
        seen = recent.shape[0]
        # Divide by the product of decays so far, so that later decay is one common factor.
        rate = learning_rate / (1 - self._beta1**self.step) / self._shrunk
        minus_delta = 1 - self._roots[-seen:] / recent[:, 1] / math.sqrt(1 - self._beta2**self.step)
        powers = torch.pow(minus_delta[:, None], self._exponents)
        recent[:, 2:].addcmul_(powers, self._decays[-seen:, None], value=rate)

    def apply(self, weight: Tensor, state: Mapping[str, Tensor], rows_step: Tensor) -> None:
        first, second = state["exp_avg"], state["exp_avg_sq"]
        if readable_without_wait(weight):
            own = self._compiled_numbers(rows_step, weight.dtype)
            if adam_rows(weight, first, second, None, own, self._eps):
                return
        numbers, skipped = self._numbers(rows_step), self._skipped(rows_step)
        sums = (numbers[:, 2:] * self._shrunk).to(weight.dtype).unbind(1)
        coefficients = [_column(column, weight) for column in sums]
        inverse = second.sqrt().mul_(_column(numbers[:, 1], weight)).add_(self._eps).reciprocal_()
        share = torch.rsub(inverse, 1.0, alpha=self._eps)  # u
        total = coefficients[-1]
        for coefficient in reversed(coefficients[:-1]):
            total = torch.addcmul(coefficient, total, share)
        if self._decay:
            weight.mul_(_column(self._shrunk / numbers[:, 0], weight))
        weight.addcmul_(inverse.mul_(first), total, value=-1.0)
        first.mul_(_column(torch.pow(self._beta1, skipped), weight))
        second.mul_(_column(torch.pow(self._beta2, skipped), weight))

    def taken(
        self, weight: Tensor, state: Mapping[str, Tensor], rows: Tensor, rows_step: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if readable_without_wait(rows):  # then the rows are distinct
            copies = weight.new_empty(3, rows.shape[0], *weight.shape[1:])
            numbers = self._compiled_numbers(rows_step, weight.dtype)
            if adam_rows(weight, state["exp_avg"], state["exp_avg_sq"], rows, numbers, self._eps, copies):
                return copies[0], {"exp_avg": copies[1], "exp_avg_sq": copies[2]}
        return super().taken(weight, state, rows, rows_step)

    def _compiled_numbers(self, rows_step: Tensor, dtype: torch.dtype) -> Tensor:
        """The argument ``numbers`` of :func:`adam_rows` [R, 4 + terms]."""
        numbers, skipped = self._numbers(rows_step), self._skipped(rows_step)[:, None]
        decays = [torch.pow(self._beta1, skipped), torch.pow(self._beta2, skipped)]
        everything = [numbers[:, 1:2], self._shrunk / numbers[:, :1], *decays, numbers[:, 2:] * self._shrunk]
        return torch.cat(everything, dim=1).to(dtype)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"shrunk": self._shrunk}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._shrunk = state["shrunk"]
        super().load_state_dict(state)


def _window(decay: float, dtype: torch.dtype) -> int:
    """Number of steps after which a momentum has decayed below rounding."""
    return 1 if decay == 0 else math.ceil(math.log(torch.finfo(dtype).eps / 64) / math.log(decay))


#: Returned by :func:`deferral` where rows without a gradient do not change.
NOTHING = "nothing"


def deferral(
    optimizer: Optimizer, group: Mapping[str, Any], weight: Tensor, capacity: int, tolerance: float | None = None
) -> Deferral | str:
    """How to defer the steps of ``optimizer`` on rows of ``weight`` that have no gradient.

    Args:
        optimizer: the optimizer that steps on the weight.
        group: the optimizer's settings for the weight.
        weight: the table [V, D].
        capacity: see :class:`Deferral`.
        tolerance: see :class:`AdamDeferral`; by default twice the machine epsilon of the weight's dtype.

    Returns:
        A :class:`Deferral`; :data:`NOTHING` if such rows do not change; else the reason why steps cannot be deferred.
    """
    decay = float(group.get("weight_decay", 0.0))
    if isinstance(optimizer, SGD):
        return SgdDeferral(group, capacity, weight) if decay or group["momentum"] else NOTHING
    decoupled = isinstance(optimizer, Adam | AdamW) and group.get(
        "decoupled_weight_decay", isinstance(optimizer, AdamW)
    )
    if decay and not decoupled:
        return "weight decay in the gradient of an adaptive optimizer moves every row nonlinearly"
    if isinstance(optimizer, Adagrad):
        return NOTHING
    if isinstance(optimizer, RMSprop):
        return RmspropDeferral(group, capacity, weight)
    if isinstance(optimizer, Adam | AdamW):
        if group["amsgrad"]:
            return "amsgrad compares the moments of every row at every step"
        if tolerance is None:
            tolerance = 2 * torch.finfo(weight.dtype).eps
        found = AdamDeferral(group, decay, capacity, weight, tolerance)
        return found if found.dense_steps < 2**62 else f"no short expansion for betas = {tuple(group['betas'])}"
    return f"{type(optimizer).__name__} is none of SGD, Adam, AdamW, RMSprop, Adagrad"
