"""The base of layers that hold parts of their weight matrices, and nothing of what lies between them."""

from abc import abstractmethod

from torch import Tensor, nn


class StructuredModule(nn.Module):
    """Stands in for an ordinary module and holds parts of its weight matrices, under names of its own."""

    @abstractmethod
    def parts(self, attribute: str) -> list[Tensor]:
        """The parameters that hold the replaced module's weight ``attribute``."""

    @abstractmethod
    def full(self, attribute: str) -> Tensor:
        """That weight as a whole [out, in], zeros between its parts, or that bias [out]; differentiable."""

    @abstractmethod
    def topology(self, attribute: str) -> Tensor:
        """Which of its entries exist, boolean [out, in]."""
