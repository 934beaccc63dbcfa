"""Gives the embedding tables of a model gradients that are sparse in rows."""

from torch import nn

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.layers.tiered_embedding import TieredEmbedding
from sparse_bench.sparsity.row_gradients.layers import RowGradientEmbedding, RowGradientEmbeddingBag, RowGradientLayer
from sparse_bench.sparsity.row_gradients.tiered import RowGradientTieredEmbedding

#: Layers that look rows up, and what they become.
_BECOMES: dict[type[nn.Module], type[RowGradientLayer]] = {
    nn.Embedding: RowGradientEmbedding,
    nn.EmbeddingBag: RowGradientEmbeddingBag,
    TieredEmbedding: RowGradientTieredEmbedding,
}


def tables(model: nn.Module) -> list[str]:
    """Names of the weights that can have row gradients: those of embedding layers, each once."""
    parameters = {id(parameter): name for name, parameter in reversed(list(model.named_parameters()))}
    return [
        parameters[id(module.weight)]
        for module in model.modules()
        if isinstance(module, tuple(_BECOMES)) and id(module.weight) in parameters
    ]


def use_row_gradients(model: nn.Module, name: str, exact: bool) -> None:
    """Give the embedding table ``name`` of ``model`` a gradient that is sparse in rows.

    Every layer that looks up rows of it computes the same numbers as before.

    Raises:
        ConfigError: the weight is no embedding table, has options that have no sparse gradient, or is also used by a
            layer that is no look-up (a tied decoder), whose gradient reaches all rows.
    """
    weight = model.get_parameter(name)
    users = {
        path: module
        for path, module in model.named_modules()
        if any(parameter is weight for parameter in module.parameters(recurse=False))
    }
    for path, module in users.items():
        if not isinstance(module, nn.Embedding | nn.EmbeddingBag | TieredEmbedding):
            raise ConfigError(
                f"The weight '{name}' is used by '{path}' ({type(module).__name__}), whose gradient reaches all rows, "
                "so it has no gradient that is sparse in rows. Untie it in the model's settings, or name other layers. "
                f"Embedding tables of this model: {', '.join(tables(model)) or '(none)'}."
            )
        _check(module, path)
    for module in users.values():
        # The same layer from now on computes its gradient in another way: whoever holds it goes on holding it.
        layer = next(layer for plain, layer in _BECOMES.items() if isinstance(module, plain))
        module.__class__ = layer
        assert isinstance(module, RowGradientLayer)
        module.exact = exact


def _check(module: nn.Module, path: str) -> None:
    problems: dict[str, bool] = {}
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        problems = {"max_norm": module.max_norm is not None, "scale_grad_by_freq": module.scale_grad_by_freq}
    if isinstance(module, nn.EmbeddingBag):
        problems |= {
            f"mode='{module.mode}'": module.mode == "max",
            "padding_idx": module.padding_idx is not None,
            "include_last_offset": module.include_last_offset,
        }
    plain = type(module) in _BECOMES or isinstance(module, RowGradientLayer)
    problems[f"its class {type(module).__name__}"] = not plain
    if any(problems.values()):
        found = ", ".join(problem for problem, present in problems.items() if present)
        raise ConfigError(f"The embedding layer '{path}' has no gradient that is sparse in rows because of {found}.")
