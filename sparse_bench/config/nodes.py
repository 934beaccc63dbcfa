"""Nodes of a configuration: a ``_target_`` and its arguments."""

import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate

from sparse_bench.config.schema import choices
from sparse_bench.errors import ConfigError, SparseBenchError
from sparse_bench.limits import hints_of, without_range

#: Modules from which a target in a result may be imported.
SAFE = ("sparse_bench.", "torch.optim.")

#: Setting with a short name of the file for tables and figures; not an argument of the target.
LABEL = "label"


def target_of(node: Any, path: str) -> Any:
    """The class or function that a node's ``_target_`` names.

    Raises:
        ConfigError: there is no node or no ``_target_``, or it cannot be imported or called.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"'{path}' needs a _target_. Choose one of the files in conf/: {', '.join(choices(path))}.")
    try:
        target = get_object(node["_target_"])
    except Exception as error:
        raise ConfigError(f"'{path}._target_' names {node['_target_']}, which cannot be imported: {error}") from error
    if not callable(target):
        raise ConfigError(f"'{path}._target_' names {node['_target_']}, which is neither a class nor a function.")
    return target


def build(node: Any, **overrides: Any) -> Any:
    """Instantiate a node with ``overrides`` of its settings; None gives None. The project's errors are not wrapped."""
    if node is None:
        return None
    try:
        return instantiate(_unlabelled(node) | overrides)
    except InstantiationException as error:
        if isinstance(error.__cause__, SparseBenchError):
            raise error.__cause__ from None
        raise


def _unlabelled(node: Any) -> Any:
    if not isinstance(node, Mapping):
        return node
    known = parameters_of(get_object(node["_target_"])) if "corpus" in node and "_target_" in node else {}
    left_out = {LABEL, *corpus_only_settings(node, known)}
    return {key: _unlabelled(value) for key, value in node.items() if key not in left_out}


def corpus_only_settings(node: Mapping[str, Any], known: Mapping[str, inspect.Parameter]) -> set[str]:
    """Settings of a dataset that its corpus takes and its task does not, as ``dataset.train`` for a short command line.

    The corpus refers to them, so they are no arguments of the task and add nothing to the run's identity.

    Args:
        node: the dataset.
        known: arguments of its task; empty if unknown.
    """
    corpus = node.get("corpus")
    if not isinstance(corpus, Mapping) or not known or any(one.kind is one.VAR_KEYWORD for one in known.values()):
        return set()
    return {key for key in node if key in corpus and key not in known and key != LABEL and not key.startswith("_")}


def targets(node: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Pairs of path and node, for all nodes that have a ``_target_``, inner ones first."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from targets(value, f"{path}.{key}" if path else str(key))
        if "_target_" in node:
            yield path, node


def parameters_of(target: Any) -> dict[str, inspect.Parameter]:
    """Name → argument of a target, annotated with its type without the range.

    Empty for a target whose signature Python cannot read, as for some compiled ones.
    """
    try:
        found = inspect.signature(target).parameters
    except ValueError:
        return {}
    hints = hints_of(target)
    return {
        name: parameter.replace(annotation=without_range(hints.get(name, parameter.annotation)))
        for name, parameter in found.items()
    }


def recorded_parameters(target: str) -> dict[str, inspect.Parameter]:
    """Name → argument of a target in a result; empty if the target is unknown.

    Results may come from other people, so reading one must not run their code. Only the project's own modules and
    torch's optimizers are imported. Other targets are known only if their module is already imported.
    """
    try:
        module, _, name = target.rpartition(".")
        found = get_object(target) if target.startswith(SAFE) else vars(sys.modules[module])[name]
        return parameters_of(found)
    except Exception:  # a class that no longer exists or is unknown
        return {}
