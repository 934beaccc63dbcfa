"""Building a model whose largest matrices have no numbers yet, for schemes that draw the weights that exist themselves.

The dense layers from which a model is made sparse may be a thousand times as large as the sparse ones.
"""

import math
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sparse_bench.sparsity.scheme import ModelFactory

#: More numbers than this (2 GiB in float32), and a matrix is made without.
LARGEST = 2**29


class LargeWithoutNumbers(TorchFunctionMode):
    """While it is on, ``torch.empty``, from which torch's layers make their parameters, makes what is larger than
    ``limit`` on the meta device: with a shape and without numbers. Initialisers leave it alone."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            size = kwargs.get("size", args[0] if len(args) == 1 and not isinstance(args[0], int) else args)
            if math.prod(size) > self.limit:
                kwargs["device"] = "meta"
        return func(*args, **kwargs)


def without_large_numbers(factory: ModelFactory, needless: Callable[[nn.Module], Collection[str]]) -> Any:
    """The model. Its matrices of more than :data:`LARGEST` numbers have none, if ``needless`` names all of these.

    That is possible for a scheme that draws all first weights itself. Others keep those of the model, which are not
    known before the model has drawn all.
    """
    with LargeWithoutNumbers(LARGEST):
        model = factory()
    missing = {name for name, parameter in model.named_parameters() if parameter.is_meta}
    return model if missing <= set(needless(model)) else factory()
