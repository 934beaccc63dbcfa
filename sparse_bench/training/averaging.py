"""Optimizers that average the weights over training, and the one that AWD-LSTM is trained with."""

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
#: Entry that holds, for each weight, how many steps its average began before now.
_AGE = "age"


class AveragingOptimizer(Optimizer, ABC):
    """An optimizer whose averaged weights are what is evaluated and kept, and which is told how evaluations turn out.

    An average is an entry :data:`AVERAGE` of its parameter's state, of the parameter's shape: where a weight does not
    exist it is zero, as the weight is, and a rewiring treats it like any moment.
    """

    #: Told to the checks of a configuration: evaluations during training decide something.
    observes = True

    @abstractmethod
    def observe(self, value: float) -> None:
        """An evaluation during training gave ``value``; less is better."""

    @abstractmethod
    def report(self) -> dict[str, float]:
        """What a run's metrics should say of the averaging."""

    def averages(self) -> list[tuple[Tensor, Tensor]]:
        """Every parameter that has an average, with it."""
        return [
            (parameter, self.state[parameter][AVERAGE])
            for group in self.param_groups
            for parameter in group["params"]
            if AVERAGE in self.state.get(parameter, {})
        ]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averages stand in the model; afterwards the weights themselves do again."""
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
        """Put the averages into the model for good."""
        for parameter, average in self.averages():
            parameter.copy_(average)


class NonMonotoneASGD(AveragingOptimizer):
    """NT-ASGD: plain SGD until the watched metric stops falling, from then on SGD that averages the weights.

    Merity et al. 2018, section 3 and algorithm 1, as in the released code. The trigger: there are more than ``window``
    earlier evaluations, and the newest value is above the least of them but the last ``window``. From the next step on,
    weights and averages are those of ``torch.optim.ASGD(lr, t0=0, lambd=0)``: after n steps the average is the mean of
    the weights after steps 2 to n (after step 1 it is the weights themselves).

    As in ``torch.optim.ASGD`` the learning rate of an averaging step is the one that was set for the step before it, so
    a rate that changes from step to step lags by one; the first one has its own.

    With ``per_weight`` every weight's average has a beginning of its own, so that one which is grown during training is
    not averaged with the zeros before: SNT-ASGD (Liu et al. 2021, "Selfish Sparse RNN Training"). Weights that are
    there from the first averaging step on have the averages of NT-ASGD.

    Args:
        params: the parameters, or groups of them.
        lr: learning rate.
        weight_decay: λ of the gradient's term λ w.
        window: evaluations that the trigger leaves out; None: never average.
        force_after: evaluations after which averaging begins at the latest; None: only when triggered.
        averaging: average from the first step, as a finetuning run does.
        per_weight: a rewiring restarts the averages of the weights that it grows; takes a counter for each weight.

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
        #: Evaluations after which averaging began; None: it has not begun.
        self.averaging_since: int | None = 0 if averaging else None
        #: Whether it began only because ``force_after`` said so.
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
        """``averaging``: whether the coming steps average; if so, ``averaging_since``: evaluations before that, and
        ``averaging_forced``: whether it was forced."""
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
    """The weights that ``optimizer`` wants evaluated stand in the model: averages, if it has any."""
    if isinstance(optimizer, AveragingOptimizer):
        with optimizer.averaged():
            yield
    else:
        yield
