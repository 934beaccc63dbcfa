"""Lottery tickets: iterative magnitude pruning with rewinding, as a chain of runs."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparse_bench.errors import ConfigError
from sparse_bench.kernels import places_of
from sparse_bench.limits import Part, Step
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.sparsity.scores import kept
from sparse_bench.sparsity.weights import SparseWeight, sparsify
from sparse_bench.streams import Streams


@dataclass
class LotteryTicket(Scheme):
    """A round of a chain of runs. The first trains the dense model; each other one starts from the one before it.

    It removes the fraction ``share`` of the remaining weights, the smallest over all layers. Then all weights of the
    model go back to their values after step ``rewind`` of the first round.

    Source: Frankle et al. 2020, "Linear mode connectivity and the lottery ticket hypothesis", algorithm 2.

    Attributes:
        density: share of the weights that exist in the last round.
        share: fraction of the remaining weights that a round removes.
        rewind: step of the first round; 0: the first weights.
    """

    changes: ClassVar[str] = "from run to run of its chain"

    share: Part = 0.2
    rewind: Step = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._round, self._early = 0, dict[str, Tensor]()  # parameter → early values; sparse ones as full matrices

    def asked(self) -> str | None:
        return f"round {self._round}, density {1 - self.missing() / self.size:.4g}" if self._round else None

    def install(self, model: nn.Module, streams: Streams) -> dict[str, SparseWeight]:
        self._model = model
        everything = {name: torch.ones(model.get_parameter(name).shape).bool() for name in self.selected}
        return sparsify(model, everything, self.execution)

    def _now(self) -> dict[str, Tensor]:
        whole = {name: weight.dense() for name, weight in self.weights.items()}
        return {name: whole.get(name, p.detach()).clone() for name, p in self._model.named_parameters()}

    def before_backward(self, step: int) -> None:
        if step == self.rewind + 1 and self._round == 0:
            self._early = self._now()

    @torch.no_grad()
    def next_stage(self, model: nn.Module) -> None:
        if not self._early:
            raise ConfigError(f"The first round ended before step {self.rewind} (sparsity.rewind).")
        active = self.size - self.missing()
        count = max(round(self.density * self.size), active - round(self.share * active))
        if count == active:
            raise ConfigError(f"The chain has reached sparsity.density = {self.density}: there is no further round.")
        self._round += 1
        sizes = {name: weight.dense().abs().masked_fill(~weight.mask, -1) for name, weight in self.weights.items()}
        for name, keep in kept(sizes, count / self.size).items():
            weight, gone = self.weights[name], places_of(self.weights[name].mask & ~keep)
            weight.rewire(gone, gone[:0], torch.zeros(0), None)
            weight.set_values(self._early[name].flatten().to(weight.mask.device)[weight.entries()[0]])
        for name in self._early.keys() - self.weights.keys():
            model.get_parameter(name).copy_(self._early[name])

    def state_dict(self) -> dict[str, Any]:
        return {"round": self._round, "early": self._early}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._round, self._early = state["round"], state["early"] or self._early  # the best weights' may be older
