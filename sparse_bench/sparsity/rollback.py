"""Undo what a refused call has done to a model, its optimizer and a scheme."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from sparse_bench.sparsity.scheme import Scheme

_CONTAINERS = (dict, list, set)


def _contents(owner: Any) -> dict[str, Any]:
    """The attributes of an object, with copies of the containers among them, but not of what these contain."""
    return {key: value.copy() if isinstance(value, _CONTAINERS) else value for key, value in vars(owner).items()}


def _put_back(owner: Any, contents: dict[str, Any]) -> None:
    attributes = vars(owner)
    for key in attributes.keys() - contents.keys():
        del attributes[key]
    for key, value in contents.items():
        standing = attributes.get(key)
        if isinstance(value, list) and isinstance(standing, list):
            standing[:] = value
        elif isinstance(value, dict | set) and type(standing) is type(value):
            standing.clear()  # the same object, to which handles of hooks refer
            standing.update(value)
        else:
            attributes[key] = value


@contextmanager
def unchanged_on_error(model: nn.Module, optimizer: Optimizer, scheme: Scheme, names: Iterable[str]) -> Iterator[None]:
    """A context in which an error leaves everything as it was: modules, hooks, weights, groups and state.

    It holds a copy of the weights that may change, until it ends.

    Args:
        model: whose layers may be replaced.
        optimizer: whose groups and state may change.
        scheme: to attach; after an error it can be attached elsewhere.
        names: parameters of ``model`` whose values may change.
    """
    owners: list[Any] = [*model.modules(), *{id(one): one for one in (scheme, *scheme.members())}.values()]
    parameters = [parameter for _, parameter in model.named_parameters()]
    contents = [(owner, _contents(owner)) for owner in (*owners, *parameters, optimizer)]
    hooks = [(parameter, _hooks(parameter)) for parameter in parameters]
    values = [(parameter, parameter.detach().clone()) for parameter in map(model.get_parameter, names)]
    groups = [(group, {**group, "params": [*group["params"]]}) for group in optimizer.param_groups]
    state = [(entry, dict(entry)) for entry in optimizer.state.values()]
    try:
        yield
    except BaseException:
        for owner, content in contents:
            _put_back(owner, content)
        for parameter, known in hooks:
            parameter._post_accumulate_grad_hooks = known
        with torch.no_grad():
            for parameter, value in values:
                parameter.copy_(value)
        for entry, content in (*groups, *state):
            entry.clear()
            entry.update(content)
        raise


def _hooks(parameter: nn.Parameter) -> Any:
    known = parameter._post_accumulate_grad_hooks
    return None if known is None else known.copy()
