"""The interface of models: what they offer in addition to an ordinary torch module."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import nn


class Model(nn.Module, ABC):
    """A torch module that lists its weight matrices by group. It contains no code about sparsity.

    A model is built as ``Model(sizes, **settings)``. It must not name a device, and it must also build under
    ``torch.device('meta')``.
    """

    #: Names of the tasks that this model can learn.
    tasks: ClassVar[tuple[str, ...]]
    #: Names of the groups of :meth:`layer_groups`, available before a model is built.
    groups: ClassVar[tuple[str, ...]]

    #: Groups of embeddings that the model also uses as linear layers, or penalises. Their gradient covers all rows in
    #: every batch.
    multiplied: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def layer_groups(self) -> dict[str, list[str]]:
        """Group name → names of weight matrices, as in ``named_parameters``. Groups may overlap.

        The group ``default`` holds the matrices that the model's own paper makes sparse.
        """

    @classmethod
    def widths(cls, settings: dict[str, Any]) -> list[dict[str, Any]]:
        """Settings of all narrower variants up to and including ``settings``' own width, narrowest first.

        Each entry holds only the changed settings. They are used for the baseline of every figure: a dense model with
        fewer units that has as many weights as a sparse one.

        Raises:
            TypeError: the model has no width to vary.
        """
        raise TypeError(f"{cls.__name__} has no width to vary")
