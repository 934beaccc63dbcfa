"""Build a model with its largest matrices on the meta device, for schemes that draw all first weights themselves.

The dense layers of a model, before a scheme makes them sparse, may be a thousand times as large as the sparse ones.
"""

import math
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sparse_bench.sparsity.scheme import ModelFactory

#: Matrices with more numbers than this (2 GiB in float32) are built on the meta device, so without numbers.
LARGEST = 2**29


class LargeOnMeta(TorchFunctionMode):
    """A context in which ``torch.empty`` puts tensors of more than ``limit`` numbers on the meta device.

    torch's layers make their parameters with ``torch.empty``. Initialisers have no effect on meta tensors.
    """

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


def build_large_on_meta(factory: ModelFactory, needless: Callable[[nn.Module], Collection[str]]) -> Any:
    """Build the model, with matrices of more than :data:`LARGEST` numbers on the meta device if possible.

    Args:
        factory: builds the model.
        needless: names the parameters whose first weights the scheme draws itself. If any other parameter is that
            large, the whole model is built with numbers.
    """
    with LargeOnMeta(LARGEST):
        model = factory()
    missing = {name for name, parameter in model.named_parameters() if parameter.is_meta}
    return model if missing <= set(needless(model)) else factory()
