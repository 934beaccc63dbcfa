"""Row-sparse gradients of embedding tables: all weights exist, and each step updates only the rows that it read."""

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

#: Names of methods that the scheme of ``combined_with`` provides.
_DELEGATED = "asked warnings next_stage scale_rates before_training at_epoch_end topology state_dict load_state_dict"


@dataclass
class SparseGradient(Scheme):
    """Row-sparse embeddings: the gradient and the update of a table cover only the rows that a batch touches.

    All weights exist; only the gradient is sparse ("Efficient Embedding Models With PyTorch"). Among the selected
    weight matrices, it applies to the embedding tables.

    Attributes:
        form: ``exact``: same trajectory as with dense gradients and the same optimizer. ``lazy``: rows without a
            gradient do not change, even with momentum or weight decay.
        combined_with: a scheme with a fixed topology that makes weights of the same model sparse. The weights that it
            selects are then the ones that are counted.
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
                f"sparsity.combined_with is {type(other).__name__}, which changes its topology during training; with "
                "sparse gradients the topology must be fixed from the start."
            )
        for name in _DELEGATED.split():
            setattr(self, name, getattr(other, name))

    def build(self, factory: Any) -> Any:
        return factory() if self.combined_with is None else self.combined_with.build(factory)

    def attach(self, model: nn.Module, streams: Streams) -> None:
        """Make the selected embedding tables row-sparse.

        Raises:
            ConfigError: no embedding table is selected, or one of them cannot be row-sparse.
        """
        named = select(model, layer_groups(model), self.layers)  # first, as another scheme may reshape the tables
        if (other := self.combined_with) is not None:
            other.losses = self.losses
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
            self.selected, self.weights, self.full_size = other.selected, other.weights, other.full_size
