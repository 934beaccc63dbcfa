"""Predefined sparseness: embeddings with short vectors for some words (Demeester et al. 2018)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor, nn

from sparse_bench.errors import ConfigError
from sparse_bench.limits import Few, one_of
from sparse_bench.sparsity.layers.structured_module import StructuredModule
from sparse_bench.sparsity.layers.tiered_embedding import TieredEmbedding
from sparse_bench.sparsity.scheme import Layers
from sparse_bench.sparsity.structured import StructuredScheme, names_of, replace
from sparse_bench.sparsity.tiers import ORDERS, places, tiers
from sparse_bench.sparsity.weights import SparseWeight, sparsify
from sparse_bench.streams import Streams


@dataclass
class EmbeddingTiers(StructuredScheme):
    """Every selected table keeps the share ``density`` of its weights; ``order`` decides whose vectors are short.

    A table holds a vector for each word, or for each feature of a sparse input. The existing weights of an
    :class:`torch.nn.Embedding` are stored alone. All other tables keep the full matrix, with zeros: those that modules
    share, embedding bags, and projections of sparse features. Density 1 changes nothing.

    The model's ``word_frequencies`` give the count of each word: a sequence [V] for all tables, or a mapping from the
    names of tables to their sequences. A linear layer is a table of its inputs if the mapping names it. For other
    tables without counts, indices are assumed to run from the most frequent word to the rarest.

    Attributes:
        blocks: number of blocks of columns. The last words in the order have all blocks, the first ones only the first.
        order: ``up``: rare words first, so they have short vectors, as the paper proposes. ``down``: frequent words
            first. ``rand``: a random order. Equally frequent words are in the order of their indices.
    """

    needs: ClassVar[tuple[str, ...]] = ("embedding",)
    replaces: ClassVar[str] = "tables of words or features"

    layers: Layers = ("embedding",)
    blocks: Few = 20
    order: Annotated[str, one_of(*ORDERS)] = "up"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 / self.blocks <= self.density <= 1:
            raise ConfigError(
                f"sparsity.density={self.density} does not fit sparsity.blocks={self.blocks}: the density must lie "
                "between 1/blocks and 1."
            )

    def install(self, model: nn.Module, streams: Streams) -> dict[str, SparseWeight]:
        made, masks = dict[str, StructuredModule](), dict[str, Tensor]()
        known = getattr(model, "word_frequencies", None)
        for name in self.selected if self.density < 1 else ():
            path = name.rpartition(".")[0]
            owner, table = model.get_submodule(path), model.get_parameter(name)
            counts = known.get(name) if isinstance(known, Mapping) else known
            by_column = isinstance(owner, nn.Linear) and isinstance(known, Mapping) and counts is not None
            by_row = isinstance(owner, nn.Embedding | nn.EmbeddingBag) or getattr(owner, "rows_are_inputs", False)
            if not by_row and not by_column:
                raise ConfigError(self.misfit(name, owner))
            words, dim = table.shape[::-1] if by_column else table.shape
            geometry = tiers(words, dim, self.density, self.blocks)
            place = places(words, self.order, counts, streams.torch("topology", name))
            if type(owner) is nn.Embedding and len(names_of(model, name)) == 1:
                made[path] = TieredEmbedding(owner, geometry, place)
            else:
                exists = geometry.topology(place)
                masks[name] = exists.t() if by_column else exists
        weights = sparsify(model, masks, self.execution)
        return weights | replace(model, {path: [f"{path}.weight"] for path in made}, made)
