"""Adam's cold start: a weight that is grown during training may count its own steps in Adam's bias correction.

Adam divides its moments by 1 − β^t, where t is the number of steps of the whole tensor. The moments of a grown weight
begin at zero, but t is large by then. So torch's first update of a grown weight is (1 − β1) / √(1 − β2) ≈ 3.2 times
the learning rate, while that of a fresh weight is the learning rate.

Source: arXiv 2606.00888 (SMET), which also warms the updates of new weights up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.weights import SparseWeight

#: ``torch``: as torch does it. ``own_step``: t is the number of the weight's own steps. ``warm_up``: in addition, the
#: first updates are smaller, by the factor min(t / 100, 1).
NEW_WEIGHT_ADAM = ("torch", "own_step", "warm_up")
#: Steps after which the warm-up ends.
_WARM_UP_STEPS = 100
#: Entry of a parameter's optimizer state, of the parameter's shape: after which of the tensor's steps each weight was
#: grown; 0 for the first weights. It is saved, loaded and rewired like a moment.
BORN = "born"


class OwnSteps:
    """Gives grown weights the update that Adam would make with their own number of steps.

    Torch makes its step as usual, in any of its implementations. Afterwards the updates of grown weights alone are
    computed again, from the same moments. All other weights keep the bits of torch's step. The arithmetic is that of
    torch's unfused Adam, to the last bit; the fused one may round differently.
    """

    def __init__(self, warm_up: bool) -> None:
        self._warm_up = warm_up
        #: Layer → its grown weights.
        self._grown: dict[str, _Grown] = {}
        #: Layer → values of the grown weights before the step.
        self._before: dict[str, Tensor] = {}

    def check(self, optimizer: Optimizer, weights: Mapping[str, SparseWeight]) -> None:
        """Refuse what has no steps to count.

        Raises:
            ConfigError: the optimizer is not Adam or AdamW; a weight is in half precision, in which torch loads the
                numbers of steps rounded; or its gradients are row-sparse.
        """
        if not isinstance(optimizer, Adam | AdamW):
            raise ConfigError(
                f"sparsity.new_weight_adam is about Adam's bias correction, and the optimizer is "
                f"{type(optimizer).__name__}. Use optimizer=adam or adamw, or sparsity.new_weight_adam=torch."
            )
        for name, weight in weights.items():
            if parameter_of(weight).dtype not in (torch.float32, torch.float64):
                raise ConfigError(
                    f"'{name}' is {parameter_of(weight).dtype}, which cannot count steps. Keep weights in float32 "
                    "(with autocast, if you like), or use sparsity.new_weight_adam=torch."
                )
            if getattr(weight.owner, "sparse", False) or getattr(weight.owner, "exact", None) is not None:
                raise ConfigError(
                    f"'{name}' has row-sparse gradients, and the steps of rows that no batch reads are deferred. "
                    "Select other layers, or use sparsity.new_weight_adam=torch."
                )

    def before_step(self, optimizer: Optimizer, weights: Mapping[str, SparseWeight]) -> None:
        """Keep the values of the grown weights, which the step is about to change."""
        self._before = {}
        for name, weight in weights.items():
            parameter = parameter_of(weight)
            born = optimizer.state.get(parameter, {}).get(BORN)
            if born is not None and parameter.grad is not None:
                values = parameter.detach().view(-1)
                self._before[name] = values.index_select(0, self._find(name, weight, born).index)

    def after_step(self, optimizer: Optimizer, weights: Mapping[str, SparseWeight]) -> None:
        """Replace the updates that torch has just made to grown weights."""
        if not self._before:
            return
        groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
        overflow = getattr(optimizer, "found_inf", None)
        for name, before in self._before.items():
            parameter = parameter_of(weights[name])
            grown = self._grown[name]
            if BORN not in optimizer.state.get(parameter, {}):  # another scheme has just emptied it, so all are new
                continue
            group = groups[id(parameter)]
            if group["weight_decay"] and group.get("decoupled_weight_decay", isinstance(optimizer, AdamW)):
                decayed = before * (1 - group["lr"] * group["weight_decay"])
            else:  # the decay of Adam is in its moments
                decayed = before
            after = decayed + self._update(grown, optimizer.state[parameter], group)
            if overflow is not None:  # a scaler of losses has found an overflow, and the fused step was left out
                after = torch.where(overflow.to(before.device) > 0, before, after)
            parameter.detach().view(-1).index_copy_(0, grown.index, after)
        self._before = {}

    def _update(self, grown: "_Grown", state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
        """Adam's updates [grown] with the weights' own numbers of steps."""
        first = state["exp_avg"].view(-1).index_select(0, grown.index)
        second = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"].view(-1).index_select(0, grown.index)

        def of_each(of_births: Tensor) -> Tensor:
            return of_births.to(first.dtype).index_select(0, grown.birth)

        # Torch corrects in double precision, and rounds what it multiplies tensors by. Births are few, weights many.
        steps = state["step"].double() - grown.births.double()
        corrections = [1 - beta**steps for beta in group["betas"]]
        denominator = (second.sqrt() / of_each(corrections[1].sqrt())).add_(group["eps"])
        update = of_each(-(group["lr"] / corrections[0])) * first / denominator
        if self._warm_up:
            update = update * of_each((steps / _WARM_UP_STEPS).clamp(max=1.0))
        return update

    def grow(self, optimizer: Optimizer | None, weight: SparseWeight, places: Tensor) -> None:
        """Note that the weights at ``places`` of the flattened matrix, int64, are new; called after their rewiring."""
        self._grown.pop(weight.name, None)
        parameter = parameter_of(weight)
        state = optimizer.state.get(parameter, {}) if optimizer is not None else {}
        if "step" not in state or not places.numel():  # all weights are equally new before the first step
            return
        if BORN not in state:
            state[BORN] = torch.zeros_like(parameter.detach())
        if parameter.numel() != weight.size:  # it holds the existing weights alone, in the order of their places
            places = torch.searchsorted(weight.entries()[0], places)
        state[BORN].view(-1).index_fill_(0, places, float(state["step"]))

    def _find(self, name: str, weight: SparseWeight, born: Tensor) -> "_Grown":
        """The grown weights of a layer; they change only with a rewiring or a load."""
        if name not in self._grown or self._grown[name].born is not born:
            chosen = born.view(-1) > 0
            if chosen.numel() == weight.size:
                chosen &= weight.mask.flatten()
            index = chosen.nonzero().squeeze(1)
            births, birth = born.view(-1).index_select(0, index).unique(return_inverse=True)
            self._grown[name] = _Grown(born, index, births, birth)
        return self._grown[name]


@dataclass(frozen=True)
class _Grown:
    """The grown weights of a layer.

    Attributes:
        born: the entry of the optimizer's state that this was read from.
        index: where they are in the flattened parameter, int64 [grown].
        births: after which steps weights were grown [births].
        birth: which of ``births`` is that of each weight, int64 [grown].
    """

    born: Tensor
    index: Tensor
    births: Tensor
    birth: Tensor


def parameter_of(weight: SparseWeight) -> nn.Parameter:
    """The parameter that an optimizer steps on: the full matrix, or the existing weights alone."""
    return weight.owner.get_parameter(weight.name.rpartition(".")[2])
