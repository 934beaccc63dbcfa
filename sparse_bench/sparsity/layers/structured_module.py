"""The base of layers that store only dense parts of their weight matrices."""

from abc import abstractmethod

from torch import Tensor, nn


class StructuredModule(nn.Module):
    """Replaces an ordinary module and stores parts of its weight matrices, in parameters with other names."""

    @abstractmethod
    def parts(self, attribute: str) -> list[Tensor]:
        """The parameters that store the replaced module's weight or bias ``attribute``."""

    @abstractmethod
    def full(self, attribute: str) -> Tensor:
        """The full weight ``attribute`` [out, in], zero outside its parts, or the bias [out]; differentiable."""

    @abstractmethod
    def topology(self, attribute: str) -> Tensor:
        """Which entries of the weight ``attribute`` exist, boolean [out, in]."""
