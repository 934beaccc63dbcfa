"""Takes a scheme through training by the step hooks of an optimizer: the one way, for the trainer and for any loop."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch.optim import Optimizer

from sparse_bench.sparsity.scheme import Length, Scheme
from sparse_bench.sparsity.weights import SparseWeight
from sparse_bench.streams import Streams


@dataclass
class Tally:
    """Sums over the steps of a training, in whole numbers that the host knows.

    Attributes:
        steps: how many steps were counted.
        held: weights that training kept, of all sparse layers together, in the step that kept most.
        active: sparse weight → sum of its existing entries.
        updated: sparse weight → sum of the entries whose gradient a step needed.
    """

    steps: int = 0
    held: int = 0
    active: dict[str, int] = field(default_factory=dict)
    updated: dict[str, int] = field(default_factory=dict)

    def add(self, weights: Mapping[str, SparseWeight]) -> None:
        """Count the step that is about to be taken."""
        self.steps += 1
        self.held = max(self.held, sum(weight.held for weight in weights.values()))
        for name, weight in weights.items():
            self.active[name] = self.active.get(name, 0) + weight.active
            self.updated[name] = self.updated.get(name, 0) + weight.updated()


class Driver:
    """Calls an attached scheme before and after every step of an optimizer.

    Steps are counted as the optimizer takes them. A gradient scaler that finds an overflow takes no step.

    Attributes:
        scheme: attached to a model whose parameters the optimizer holds.
        optimizer: makes the steps.
        streams: the random streams of the run.
        steps: how many steps have been taken.
        tally: what these steps held and computed.
    """

    def __init__(self, scheme: Scheme, optimizer: Optimizer, streams: Streams, length: Callable[[], Length]) -> None:
        """Begin a training. ``length`` is called when the scheme asks how long training is.

        Raises:
            ConfigError: the scheme cannot work with the optimizer.
        """
        self.scheme, self.optimizer, self.streams = scheme, optimizer, streams
        self.steps, self.tally = 0, Tally()
        scheme.check_optimizer(optimizer)
        scheme.before_training(length)
        self._hooks = (
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        )
        self._prepare()

    def end_epoch(self, epoch: int, last: bool) -> dict[str, float]:
        """Epoch ``epoch`` (from 0) is done; returns diagnostics to log. ``last`` says that training ends here."""
        return self.scheme.at_epoch_end(epoch, last, self.optimizer, self.streams)

    def detach(self) -> None:
        """Leave the optimizer alone from now on; the topology stays as it is."""
        for hook in self._hooks:
            hook.remove()

    def state_dict(self) -> dict[str, Any]:
        """What the states of the model and of the optimizer do not hold."""
        return {"steps": self.steps, "scheme": self.scheme.state_dict(), "tally": asdict(self.tally)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`, called after model and optimizer have loaded their own states."""
        self.steps = state["steps"]
        self.tally = Tally(**state.get("tally", {}))  # earlier versions kept none
        self.scheme.load_state_dict(state["scheme"])
        self._prepare()

    def _prepare(self) -> None:
        """Say which step the backward passes to come belong to."""
        self.scheme.before_backward(self.steps + 1)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: dict[str, Any]) -> Any:
        for weight in self.scheme.weights.values():
            weight.settle()
        self.tally.add(self.scheme.weights)
        self.scheme.gradient_scale = getattr(optimizer, "grad_scale", None)
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._gradients_complete()
            return None

        def observed() -> Any:  # the backward pass takes place within the step
            value = closure()
            self._gradients_complete()
            return value

        return args[:1], {**kwargs, "closure": observed}

    @torch.no_grad()
    def _gradients_complete(self) -> None:
        self.scheme.after_backward()
        self.scheme.before_step(self.optimizer)

    def _after_step(self, *hook: Any) -> None:
        self.steps += 1
        self.scheme.after_step(self.steps, self.optimizer, self.streams)
        for weight in self.scheme.weights.values():
            weight.note()
        self._prepare()
