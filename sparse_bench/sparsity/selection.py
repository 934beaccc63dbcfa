"""Select the weight matrices that a scheme works on, by the model's groups or by patterns on parameter names."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from sparse_bench.errors import ConfigError, unknown_choice

_WILDCARDS = "*?["


def is_pattern(selector: str) -> bool:
    """Whether ``selector`` is a shell pattern on parameter names rather than the name of a group."""
    return any(character in selector for character in _WILDCARDS) or "." in selector


def select(model: nn.Module, groups: dict[str, list[str]], selectors: Sequence[str]) -> list[str]:
    """Names of the selected weight matrices, in the model's own order, each once.

    Args:
        model: the model.
        groups: group → names of its weight matrices.
        selectors: names of groups, or patterns on parameter names.

    Raises:
        ConfigError: the model does not declare a group, or a pattern matches no weight matrix.
    """
    matrices = [name for name, parameter in model.named_parameters() if parameter.dim() == 2]
    chosen: set[str] = set()
    for selector in selectors:
        if is_pattern(selector):
            matched = [name for name in matrices if fnmatchcase(name, selector)]
            if not matched:
                raise ConfigError(
                    f"The layer pattern '{selector}' matches no weight matrix. Weight matrices: {', '.join(matrices)}."
                )
            chosen.update(matched)
        elif selector in groups:
            chosen.update(groups[selector])
        else:
            raise ConfigError(unknown_choice("layer group", selector, groups))
    return [name for name in matrices if name in chosen]


def heads(model: nn.Module) -> dict[str, int]:
    """Name of a weight matrix → into how many heads its rows are divided; matrices without heads are left out.

    A module of attention declares them: ``heads`` is their number, and ``per_head`` names its linear layers to queries,
    keys and values. Torch's own attention holds these three in one matrix.
    """
    found: dict[str, int] = {}
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        if isinstance(module, nn.MultiheadAttention):
            found[f"{prefix}in_proj_weight"] = 3 * module.num_heads
        for part in getattr(module, "per_head", ()):
            found[f"{prefix}{part}.weight"] = module.heads
    return found


def units(names: Sequence[str]) -> dict[str, list[str]]:
    """Name of some units → the weight matrices that feed them, in the order of their columns.

    In torch, a recurrent layer has two, ``weight_ih_l0`` and ``weight_hh_l0``, with ``_reverse`` for the other
    direction. Their units are called ``weight_l0``.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.replace("weight_ih_", "weight_").replace("weight_hh_", "weight_"), []).append(name)
    return found


def refuse_transposed(model: nn.Module, names: Sequence[str], scheme: str) -> None:
    """Check that the rows of matrices are units, for a scheme that chooses the inputs of each unit.

    Raises:
        ConfigError: the rows of a matrix are its inputs.
    """
    for name in names:
        owner = model.get_submodule(name.rpartition(".")[0])
        if getattr(owner, "rows_are_inputs", False):
            raise ConfigError(
                f"{scheme} chooses the inputs of each unit, so units must be rows of a matrix [out, in]. The rows of "
                f"'{name}' ({type(owner).__name__}) are inputs. Select other layers (sparsity.layers), or another "
                "scheme."
            )
