"""Checksums of a user's own code that a configuration names: a scheme, a model or a dataset.

Code that does not change what a run measures, such as a logger, is left out.
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

#: Packages whose version a result records.
_VERSIONED = {"sparse_bench", "torch", *sys.stdlib_module_names}


def own_code(plain: Mapping[str, Any]) -> dict[str, str]:
    """Module → SHA-256 of its file, for all modules of ``_target_`` classes and functions that are users' own.

    The project's own modules, torch and the standard library are left out. The modules of base classes are included.

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


@cache  # a file may be edited while the process goes on with the version that it imported
def _checksum(module: str) -> str | None:
    """SHA-256 of a module's file; None for built-in modules and code typed in interactively."""
    path = getattr(sys.modules.get(module), "__file__", None)
    return None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()
