"""Takes a scheme through training by the step hooks of an optimizer: the one way, for the trainer and for any loop."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

from sparse_bench.sparsity.scheme import Length, Scheme
from sparse_bench.streams import Streams


class Driver:
    """Calls an attached scheme before and after every step of an optimizer.

    Steps are counted as the optimizer takes them. A gradient scaler that finds an overflow takes no step.

    Attributes:
        scheme: attached to a model whose parameters the optimizer holds.
        optimizer: makes the steps.
        streams: the random streams of the run.
        steps: how many steps have been taken.
    """

    def __init__(self, scheme: Scheme, optimizer: Optimizer, streams: Streams, length: Callable[[], Length]) -> None:
        """Begin a training. ``length`` is called when the scheme asks how long training is.

        Raises:
            ConfigError: the scheme cannot work with the optimizer.
        """
        self.scheme, self.optimizer, self.streams = scheme, optimizer, streams
        self.steps = 0
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
        return {"steps": self.steps, "scheme": self.scheme.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`, called after model and optimizer have loaded their own states."""
        self.steps = state["steps"]
        self.scheme.load_state_dict(state["scheme"])
        self._prepare()

    def _prepare(self) -> None:
        """Say which step the backward passes to come belong to."""
        self.scheme.before_backward(self.steps + 1)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: dict[str, Any]) -> Any:
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
        self._prepare()
