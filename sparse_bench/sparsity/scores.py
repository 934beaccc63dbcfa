"""Scores of all weights before training: SNIP's, GraSP's and SynFlow's. They are ranked over all layers together.

Each function gets a copy of the model in evaluation mode, which it may change, so there is no dropout.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from sparse_bench.batch.base import as_logits
from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.ranking import highest, lamp

#: (model) → the losses of training batches, one scalar after another, the same in each call.
Losses = Callable[[nn.Module], Iterable[Tensor]]
#: A step of GraSP's difference quotient, in units of the weights' norm.
_STEP = 3e-3


class Logits(TorchFunctionMode):
    """A context that finds the logits of each softmax in a loss, and divides them by ``temperature``.

    Logits are what :func:`torch.nn.functional.cross_entropy` and :func:`sparse_bench.batch.base.as_logits` get.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self._temperature = temperature
        self.found: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in (F.cross_entropy, as_logits):
            return func(*args, **(kwargs or {}))
        rest = dict(kwargs or {})
        logits = args[0] if args else rest.pop("input")
        self.found.append(logits / self._temperature)
        return func(self.found[-1], *args[1:], **rest)


@contextmanager
def scored(model: nn.Module, seed: int) -> Iterator[nn.Module]:
    """A copy of ``model`` in evaluation mode whose parameters all take gradients; global generators are restored."""
    twin = copy.deepcopy(model).eval().requires_grad_(True)
    cuda = sorted({p.device.index for p in twin.parameters() if p.device.type == "cuda"})
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(cuda))
        stack.enter_context(torch.enable_grad())
        # cuDNN has no backward pass of recurrent layers in evaluation mode.
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        # The backward pass of fused attention gives NaN for the large logits that absolute weights make.
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        torch.manual_seed(seed)
        yield twin


def gradients(model: nn.Module, names: Sequence[str], losses: Losses, batches: int, seed: int) -> dict[str, Tensor]:
    """Name → the gradient of the mean loss of the first ``batches`` batches, zero where a weight takes no part.

    Raises:
        ConfigError: there is no batch.
    """
    torch.manual_seed(seed)  # a loss may draw random numbers, and they have to be the same in each call
    parameters = [model.get_parameter(name) for name in names]
    sums, number = [torch.zeros_like(parameter) for parameter in parameters], 0
    for loss in islice(losses(model), batches):
        number += 1
        for total, part in zip(sums, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
            if part is not None:
                total += part.to_dense()
    if not number:
        raise ConfigError("There are no training batches to score the weights with.")
    return {name: total / number for name, total in zip(names, sums, strict=True)}


def snip(model: nn.Module, names: Sequence[str], losses: Losses, batches: int, seed: int) -> dict[str, Tensor]:
    """|g · w| (Lee et al. 2019, "SNIP: single-shot network pruning based on connection sensitivity", equation 6)."""
    found = gradients(model, names, losses, batches, seed)
    return {name: (gradient * model.get_parameter(name).detach()).abs() for name, gradient in found.items()}


def hessian_product(
    model: nn.Module, names: Sequence[str], losses: Losses, batches: int, seed: int
) -> dict[str, Tensor]:
    """Name → H g, the Hessian of the mean loss in these weights times its own gradient g.

    It is a central difference of gradients, (∇L(w + ε g) − ∇L(w − ε g)) / 2ε. So it needs no second derivative, which
    fused operations do not have.
    """
    direction = gradients(model, names, losses, batches, seed)
    weights = {name: model.get_parameter(name).detach() for name in names}

    def norm(tensors: Iterable[Tensor]) -> Tensor:
        return torch.stack([tensor.double().square().sum() for tensor in tensors]).sum().sqrt()

    step = (_STEP * norm(weights.values()) / norm(direction.values()).clamp_min(1e-30)).item()
    first = {name: weight.clone() for name, weight in weights.items()}
    moved = []
    for sign in (step, -step):
        for name, weight in weights.items():
            weight.copy_(first[name] + sign * direction[name])
        moved.append(gradients(model, names, losses, batches, seed))
    for name, weight in weights.items():
        weight.copy_(first[name])
    return {name: (moved[0][name] - moved[1][name]) / (2 * step) for name in names}


def grasp(
    model: nn.Module, names: Sequence[str], losses: Losses, batches: int, seed: int, temperature: float
) -> dict[str, Tensor]:
    """w · (H g). The paper's score is its negative, and the paper removes the weights where that is highest.

    Source: Wang et al. 2020, "Picking winning tickets before training by preserving gradient flow", equation 8 and
    algorithm 1.
    """
    with Logits(temperature):
        product = hessian_product(model, names, losses, batches, seed)
    return {name: model.get_parameter(name).detach() * product[name] for name in names}


def synflow(model: nn.Module, names: Sequence[str], losses: Losses, value: float) -> dict[str, Tensor]:
    """|w · ∂R/∂w|: R is the sum of all logits, for inputs of ``value``; parameters must be absolute (:func:`linear`).

    Raises:
        ConfigError: the loss has no logits.
    """
    parameters = [model.get_parameter(name) for name in names]
    with Logits() as logits:
        for _ in islice(losses(model), 1):
            pass
    if not logits.found:
        raise ConfigError("SynFlow needs the logits of a cross-entropy, and the loss has none.")
    output = torch.stack([found.double().sum() for found in logits.found]).sum()
    parts = torch.autograd.grad(output, parameters, allow_unused=True)
    scores = {}
    for name, parameter, part in zip(names, parameters, parts, strict=True):
        gradient = torch.zeros_like(parameter) if part is None else part.to_dense()
        scores[name] = (gradient * parameter).detach().abs()
    return scores


@torch.no_grad()
def linear(model: nn.Module, names: Sequence[str], value: float) -> nn.Module:
    """Prepare a copy of a model for SynFlow, and return it: absolute parameters, and equal inputs.

    Look-ups in a table that is not in ``names`` give ``value`` everywhere. A table in ``names`` is a product with an
    input of ``value`` everywhere. Normalisations only multiply by their weights and add their biases, as batch
    normalisation does at the start of training; otherwise they would make equal inputs zero.
    """
    for parameter in model.parameters():
        parameter.abs_()

    def first(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        floats = [isinstance(x, Tensor) and x.is_floating_point() for x in inputs]
        equal = partial(torch.full_like, fill_value=value, dtype=next(model.parameters()).dtype)
        return tuple(equal(x) if real else x for x, real in zip(inputs, floats, strict=True))

    def summed(module: Any, inputs: Any, output: Tensor) -> Tensor:
        row = value * module.weight.sum(0)
        bias = getattr(module, "bias", None)
        return (row if bias is None else row + bias).expand_as(output)

    def constant(module: Any, inputs: Any, output: Tensor) -> Tensor:
        return torch.full_like(output, value)

    def scaled(module: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        y = inputs[0] if weight is None else inputs[0] * weight
        return y if bias is None else y + bias

    model.register_forward_pre_hook(first)
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) or getattr(module, "rows_are_inputs", False):
            module.register_forward_hook(summed if f"{path}.weight" in names else constant)
        elif "Norm" in type(module).__name__:
            module.register_forward_hook(scaled)
    return model


def kept(scores: Mapping[str, Tensor], density: float) -> dict[str, Tensor]:
    """Name → boolean mask of the highest scores over all matrices, together round(density · all entries).

    Raises:
        ConfigError: a score is not finite.
    """
    wrong = [name for name, score in scores.items() if not bool(score.isfinite().all())]
    if wrong:
        raise ConfigError(f"The scores of {', '.join(wrong)} are not finite, so their weights cannot be ranked.")
    flat = torch.cat([score.flatten() for score in scores.values()])
    chosen = highest(flat, round(density * flat.numel()))
    parts = chosen.split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}


#: Ways to share a density among layers by scores of the dense model's weights.
DISTRIBUTIONS_BY_SCORE = ("lamp", "snip")
#: Number of batches for SNIP's scores where they only share a density among layers.
_BATCHES = 8


def counts_by_score(
    kind: str, model: nn.Module, names: Sequence[str], density: float, losses: Losses | None, seed: int
) -> dict[str, int]:
    """Number of weights of each matrix: as many as are among the highest scores over all of them.

    Args:
        kind: one of :data:`DISTRIBUTIONS_BY_SCORE`.
        model: the dense model. On the meta device there are no numbers, so all scores are equal.
        names: its matrices.
        density: share of all entries.
        losses: of training batches, for ``snip``.
        seed: of the random numbers in a loss.

    Raises:
        ConfigError: ``snip`` has no losses.
    """
    weights = {name: model.get_parameter(name).detach() for name in names}
    if any(weight.is_meta for weight in weights.values()):
        scores = {name: torch.ones(weight.shape) for name, weight in weights.items()}
    elif kind == "lamp":
        scores = {name: lamp(weight) for name, weight in weights.items()}
    elif losses is None:
        raise ConfigError("distribution=snip needs training batches. Give them to sparsify(..., losses=...).")
    else:
        with scored(model, seed) as twin:
            scores = snip(twin, names, losses, _BATCHES, seed)
    return {name: int(mask.sum()) for name, mask in kept(scores, density).items()}
