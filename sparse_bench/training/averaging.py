"""Optimizers that average the weights during training, such as NT-ASGD, the optimizer of AWD-LSTM."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from sparse_bench.limits import Count, NotNegative, Positive, checked
from sparse_bench.training.stopping import no_longer_falling

#: Entry of a parameter's optimizer state that holds its average.
AVERAGE = "average"
#: Entry that holds, for each weight, the number of steps since its average began.
_AGE = "age"


class AveragingOptimizer(Optimizer, ABC):
    """An optimizer whose averaged weights are evaluated and kept, and which receives the results of evaluations.

    An average is the entry :data:`AVERAGE` of a parameter's state, with the parameter's shape. Where a weight does not
    exist, its average is zero too. A rewiring treats it like any optimizer moment.
    """

    #: Whether evaluations during training change what the optimizer does; for the checks of a configuration.
    observes = True

    @abstractmethod
    def observe(self, value: float) -> None:
        """Receive the result of an evaluation during training; a lower ``value`` is better."""

    @abstractmethod
    def report(self) -> dict[str, float]:
        """Values about the averaging for a run's metrics."""

    def averages(self) -> list[tuple[Tensor, Tensor]]:
        """Pairs of each parameter that has an average, and that average."""
        return [
            (parameter, self.state[parameter][AVERAGE])
            for group in self.param_groups
            for parameter in group["params"]
            if AVERAGE in self.state.get(parameter, {})
        ]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """A context in which the model holds the averages; afterwards it holds its own weights again."""
        averages = self.averages()
        weights = [parameter.detach().clone() for parameter, _ in averages]
        self.adopt()
        try:
            yield
        finally:
            with torch.no_grad():
                for (parameter, _), weight in zip(averages, weights, strict=True):
                    parameter.copy_(weight)

    @torch.no_grad()
    def adopt(self) -> None:
        """Replace the model's weights by their averages."""
        for parameter, average in self.averages():
            parameter.copy_(average)


class NonMonotoneASGD(AveragingOptimizer):
    """NT-ASGD: plain SGD until the validation metric stops improving; from then on SGD that averages the weights.

    Source: Merity et al. 2018, section 3 and algorithm 1, and the released code. Averaging is triggered if there are
    more than ``window`` earlier evaluations, and the newest value is above the minimum of the earlier ones without the
    last ``window``. From the next step on, weights and averages are those of ``torch.optim.ASGD(lr, t0=0, lambd=0)``.
    After n averaging steps, the average is the mean of the weights after steps 2 to n. After step 1 it is the weights
    themselves.

    As in ``torch.optim.ASGD``, an averaging step uses the learning rate that was set for the step before it, so a
    changing rate lags by one step. Only the first averaging step uses its own rate.

    With ``per_weight``, each weight's average has its own start. So a weight grown during training is not averaged with
    the zeros before: SNT-ASGD (Liu et al. 2021, "Selfish Sparse RNN Training"). Weights that exist from the first
    averaging step on have the averages of NT-ASGD.

    Args:
        params: the parameters, or groups of them.
        lr: learning rate.
        weight_decay: λ, for the term λ w of the gradient.
        window: number of latest evaluations that the trigger ignores; None: averaging is never triggered.
        force_after: number of evaluations after which averaging begins at the latest; None: only when triggered.
        averaging: average from the first step, as in a finetuning run.
        per_weight: restart the averages of the weights that a rewiring grows; needs a counter for each weight.

    Raises:
        ConfigError: a setting outside its range.
    """

    @checked
    def __init__(
        self,
        params: Any,
        lr: Positive = 30.0,
        *,
        weight_decay: NotNegative = 0.0,
        window: Count | None = 5,
        force_after: Count | None = None,
        averaging: bool = False,
        per_weight: bool = False,
    ) -> None:
        self._window, self._force_after, self._per_weight = window, force_after, per_weight
        #: Values of all evaluations so far.
        self.history: list[float] = []
        #: Number of evaluations after which averaging began; None: it has not begun.
        self.averaging_since: int | None = 0 if averaging else None
        #: Whether it began because of ``force_after``, and not of the trigger.
        self.forced = False
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def observe(self, value: float) -> None:
        self.history.append(value)
        if self.averaging_since is not None:
            return
        triggered = self._window is not None and no_longer_falling(self.history, self._window)
        self.forced = not triggered and self._force_after is not None and len(self.history) >= self._force_after
        if triggered or self.forced:
            self.averaging_since = len(self.history)

    def report(self) -> dict[str, float]:
        """``averaging``: 1 if averaging has begun, else 0.

        If it has, also ``averaging_since``: number of evaluations before it, and ``averaging_forced``: 1 or 0.
        """
        if self.averaging_since is None:
            return {"averaging": 0.0}
        return {
            "averaging": 1.0,
            "averaging_since": float(self.averaging_since),
            "averaging_forced": float(self.forced),
        }

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if self.averaging_since is None:
                    _descend(parameter, group["lr"], group["weight_decay"])
                else:
                    self._averaging_step(parameter, group["lr"], group["weight_decay"])
        return loss

    def _averaging_step(self, parameter: Tensor, rate: float, weight_decay: float) -> None:
        state = self.state[parameter]
        if not state:
            state |= {"step": 0, "rate": rate, AVERAGE: torch.zeros_like(parameter)}
            if self._per_weight:
                state[_AGE] = torch.zeros_like(parameter)
        _descend(parameter, state["rate"], weight_decay)
        share = 1 / max(1, state["step"])
        if self._per_weight:
            # A rewiring sets a grown weight's age to zero, as it does with all moments.
            state[AVERAGE].lerp_(parameter, state[_AGE].clamp(min=1).reciprocal())
            state[_AGE] += 1
        elif share == 1:
            state[AVERAGE].copy_(parameter)
        else:
            state[AVERAGE].lerp_(parameter, share)
        state["step"] += 1
        state["rate"] = rate

    def state_dict(self) -> dict[str, Any]:
        trigger = {"history": list(self.history), "since": self.averaging_since, "forced": self.forced}
        return super().state_dict() | {"trigger": trigger}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        rest = dict(state_dict)
        trigger = rest.pop("trigger")
        super().load_state_dict(rest)
        self.history = list(trigger["history"])
        self.averaging_since, self.forced = trigger["since"], trigger["forced"]


def _descend(parameter: Tensor, rate: float, weight_decay: float) -> None:
    """w ← w − rate · (gradient + weight_decay · w)."""
    assert parameter.grad is not None
    if weight_decay:
        parameter.mul_(1 - rate * weight_decay)
    parameter.add_(parameter.grad, alpha=-rate)


@contextmanager
def averaged_weights(optimizer: Optimizer) -> Iterator[None]:
    """A context in which the model holds the weights to evaluate: the averages of ``optimizer``, if it has any."""
    if isinstance(optimizer, AveragingOptimizer):
        with optimizer.averaged():
            yield
    else:
        yield
