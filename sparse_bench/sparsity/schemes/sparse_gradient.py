"""Sparse gradients: a scheme of the update, not of the weights."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import nn
from torch.optim import Optimizer

from sparse_bench.errors import ConfigError
from sparse_bench.limits import one_of
from sparse_bench.row_sparse import ELEMENTWISE, make_row_sparse, tables
from sparse_bench.sparsity.scheme import Layers, Scheme, layer_groups
from sparse_bench.sparsity.selection import select
from sparse_bench.streams import Streams

#: What a scheme that it is combined with says and does in its place.
_DELEGATED = ("asked", "before_training", "at_epoch_end", "topology", "state_dict", "load_state_dict")


@dataclass
class SparseGradient(Scheme):
    """Row-sparse embeddings: gradient and update of a table are those of the rows that a batch touches.

    All weights exist; what is sparse is the gradient ("Efficient Embedding Models With PyTorch"). Of the selected
    weight matrices the embedding tables are meant.

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
    form: Annotated[str, one_of("exact", "lazy")] = "exact"
    combined_with: Scheme | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.density != 1.0:
            problem = f"sparsity=sparse_gradient keeps all weights: its density is 1, not {self.density}. "
            raise ConfigError(problem + "The density of sparsity.combined_with is a setting of that scheme.")
        if (other := self.combined_with) is None:
            return
        if type(other).after_step is not Scheme.after_step:
            raise ConfigError(
                f"sparsity.combined_with is {type(other).__name__}, which changes weights between steps; with sparse "
                "gradients a topology must be fixed from the start."
            )
        for name in _DELEGATED:
            setattr(self, name, getattr(other, name))

    def build(self, factory: Any) -> Any:
        return factory() if self.combined_with is None else self.combined_with.build(factory)

    def attach(self, model: nn.Module, streams: Streams) -> None:
        """Make the selected embedding tables row-sparse. ConfigErrors say that there is none, or why one cannot be."""
        named = select(model, layer_groups(model), self.layers)  # before other schemes give the tables another shape
        if (other := self.combined_with) is not None:
            other.attach(model, streams)
        self.selected = [name for name in tables(model) if name in named]
        if not self.selected:
            raise ConfigError(
                f"sparsity=sparse_gradient needs an embedding table, and the layers {', '.join(self.layers)} hold "
                f"none. Embedding tables of this model: {', '.join(tables(model)) or '(none)'}."
            )
        for name in self.selected:
            make_row_sparse(model, name, exact=self.form == "exact")
        if other is not None:
            self.selected, self.weights = other.selected, other.weights
