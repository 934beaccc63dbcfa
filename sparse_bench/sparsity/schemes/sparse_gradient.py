"""Sparse gradients: a scheme of the update, not of the weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from sparse_bench.errors import ConfigError
from sparse_bench.limits import one_of
from sparse_bench.sparsity.row_gradients import ELEMENTWISE, tables, use_row_gradients
from sparse_bench.sparsity.scheme import Layers, Length, Scheme, layer_groups
from sparse_bench.sparsity.selection import select
from sparse_bench.sparsity.topology import Shape
from sparse_bench.streams import Streams

FORMS = ("exact", "lazy")


@dataclass
class SparseGradient(Scheme):
    """Embedding tables whose gradient, and update, are those of the rows that a batch touches.

    All weights exist; what is sparse is the gradient ("Efficient Embedding Models With PyTorch"). Of the selected
    weight matrices the embedding tables are meant. A second scheme can make weights of the same model sparse.

    Attributes:
        form: ``exact``, the trajectory is that of the same optimizer with dense gradients; or ``lazy``, rows without a
            gradient stay as they are, whatever momentum and weight decay they have.
        combined_with: a scheme that makes weights of the same model sparse, with a topology that stays; the weights
            that count are then those that it selects.
    """

    needs: ClassVar[tuple[str, ...]] = ("embedding",)
    optimizers: ClassVar[tuple[type[Optimizer], ...]] = ELEMENTWISE
    looked_up_only: ClassVar[bool] = True

    layers: Layers = ("embedding",)
    form: Annotated[str, one_of(*FORMS)] = "exact"
    combined_with: Scheme | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.density != 1.0:
            raise ConfigError(
                f"sparsity=sparse_gradient keeps all weights: its density is 1, not {self.density}. "
                "The density of sparsity.combined_with is a setting of that scheme."
            )
        if self.combined_with is not None and type(self.combined_with).after_step is not Scheme.after_step:
            raise ConfigError(
                f"sparsity.combined_with is {type(self.combined_with).__name__}, which changes weights between steps; "
                "with sparse gradients a topology must be fixed from the start."
            )

    def build(self, factory: Any) -> Any:
        return factory() if self.combined_with is None else self.combined_with.build(factory)

    def attach(self, model: nn.Module, streams: Streams) -> None:
        """Make the gradients of the selected embedding tables sparse in rows.

        Raises:
            ConfigError: no embedding table is selected, or one of them has a dense gradient by its nature.
        """
        named = select(model, layer_groups(model), self.layers)  # before other schemes give the tables another shape
        if self.combined_with is not None:
            self.combined_with.attach(model, streams)
        self.selected = [name for name in tables(model) if name in named]
        if not self.selected:
            raise ConfigError(
                f"sparsity=sparse_gradient needs an embedding table, and the layers {', '.join(self.layers)} hold "
                f"none. Embedding tables of this model: {', '.join(tables(model)) or '(none)'}."
            )
        for name in self.selected:
            use_row_gradients(model, name, exact=self.form == "exact")
        if self.combined_with is not None:
            self.selected, self.weights = self.combined_with.selected, self.combined_with.weights

    def asked(self) -> str | None:
        return None if self.combined_with is None else self.combined_with.asked()

    def first_topology(self, shapes: Mapping[str, Shape], streams: Streams) -> dict[str, Tensor]:
        return {}

    def before_training(self, length: Callable[[], Length]) -> None:
        if self.combined_with is not None:
            self.combined_with.before_training(length)

    def at_epoch_end(self, epoch: int, last: bool, optimizer: Optimizer, streams: Streams) -> dict[str, float]:
        return {} if self.combined_with is None else self.combined_with.at_epoch_end(epoch, last, optimizer, streams)

    def topology(self) -> dict[str, Any]:
        return {} if self.combined_with is None else self.combined_with.topology()

    def state_dict(self) -> dict[str, Any]:
        return {} if self.combined_with is None else self.combined_with.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.combined_with is not None:
            self.combined_with.load_state_dict(state)
