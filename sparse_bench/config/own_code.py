"""Code that a configuration names and that is not the project's: a user's own scheme, model or dataset.

What only watches a run, a logger say, is no part of it.
"""

import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sparse_bench.config.identifier import NOT_IDENTITY
from sparse_bench.config.nodes import target_of, targets

#: What a result holds the version of.
_VERSIONED = {"sparse_bench", "torch", *sys.stdlib_module_names}


def own_code(plain: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the file of every module outside the package and torch that a ``_target_`` comes from, by the module's
    name; of a class also of those that it inherits from.

    Raises:
        ConfigError: a target cannot be imported.
    """
    found = {}
    for path, node in targets({group: node for group, node in plain.items() if group not in NOT_IDENTITY}):
        for module in _modules(target_of(node, path)):
            if module.partition(".")[0] not in _VERSIONED and (checksum := _checksum(module)) is not None:
                found[module] = checksum
    return dict(sorted(found.items()))


def _modules(target: Any) -> Iterator[str]:
    for part in inspect.getmro(target) if inspect.isclass(target) else (inspect.unwrap(target),):
        yield part.__module__


@cache  # of the file that was imported: it may be edited while other runs of the same process follow
def _checksum(module: str) -> str | None:
    """None where there is no file: of the interpreter's own modules, or of what was typed in."""
    path = getattr(sys.modules.get(module), "__file__", None)
    return None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()
