"""What every model offers beyond being an ordinary torch module."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import nn


class Model(nn.Module, ABC):
    """A torch module that names its weight matrices in groups. It knows nothing of sparsity.

    A model is built as ``Model(sizes, **settings)``, names no device, and has to build under ``torch.device('meta')``.
    """

    #: Names of the tasks that this model can learn.
    tasks: ClassVar[tuple[str, ...]]
    #: Names of the groups that :meth:`layer_groups` gives, known before a model is built.
    groups: ClassVar[tuple[str, ...]]

    #: Groups of tables that the model multiplies by, too: a batch has a gradient for all of their rows.
    multiplied: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def layer_groups(self) -> dict[str, list[str]]:
        """Group name → names of weight matrices (as in ``named_parameters``). Groups may overlap.

        The group ``default`` holds the matrices that the model's own paper makes sparse.
        """

    @classmethod
    def widths(cls, settings: dict[str, Any]) -> list[dict[str, Any]]:
        """Settings of all narrower variants up to and including ``settings``' own width, narrowest first.

        Each entry holds the changed settings alone. The model with fewer units but the same number of weights as a
        sparse one is the baseline that every figure needs.
        """
        raise TypeError(f"{cls.__name__} has no width to vary")
