"""Checksums of a user's own code that a configuration names: a scheme, a model or a dataset.

The modules that this code imports are included if they are in its package or folder. Code that does not change what a
run measures, such as a logger, is left out.
"""

import ast
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
#: Folders of installed packages: two modules in it do not belong together.
_INSTALLED = {"site-packages", "dist-packages"}


def own_code(plain: Mapping[str, Any]) -> dict[str, str]:
    """Module → SHA-256 of its file, for all modules of ``_target_`` classes and functions that are users' own.

    The project's own modules, torch and the standard library are left out. The modules of base classes are included,
    and so are all modules of the same package or folder that any of these imports, directly or not. Only ``import``
    statements are followed, not calls such as ``importlib.import_module``.

    Raises:
        ConfigError: a target cannot be imported.
    """
    found: dict[str, str] = {}
    for path, node in targets({group: node for group, node in plain.items() if group not in NOT_IDENTITY}):
        left = list(_modules(target_of(node, path)))
        while left:
            module, file = left.pop()
            if module not in found and module.partition(".")[0] not in _VERSIONED:
                found[module], imports = _read(module, file)
                left += imports
    return dict(sorted(found.items()))


def _modules(target: Any) -> Iterator[tuple[str, Path]]:
    """The modules that define a target and its base classes, except built-in ones and code typed in interactively."""
    for part in inspect.getmro(target) if inspect.isclass(target) else (inspect.unwrap(target),):
        if file := getattr(sys.modules.get(part.__module__), "__file__", None):
            yield part.__module__, Path(file)


@cache  # a file may be edited while the process still uses the version that it imported
def _read(module: str, file: Path) -> tuple[str, tuple[tuple[str, Path], ...]]:
    """SHA-256 of a module's file, and the neighbouring modules that it imports, with their files."""
    content = file.read_bytes()
    package = module if file.stem == "__init__" else module.rpartition(".")[0]
    names = {*_packages(module), *_imported(content, package)} if file.suffix == ".py" else set()
    # The folder from which the module's first package is imported. A helper lies there too, and in the same package if
    # packages are installed there.
    folder, first = file.parents[module.count(".") + (file.stem == "__init__")], module.partition(".")[0]
    if _INSTALLED & set(folder.parts):
        names = {name for name in names if name.partition(".")[0] == first}
    neighbours = ((name, _file(folder, name)) for name in sorted(names))
    return hashlib.sha256(content).hexdigest(), tuple((name, file) for name, file in neighbours if file is not None)


def _packages(module: str) -> Iterator[str]:
    """The packages that contain a module, whose code is executed before it."""
    while module := module.rpartition(".")[0]:
        yield module


def _imported(content: bytes, package: str) -> Iterator[str]:
    """What a module's source may import: modules, and names in modules, which may be modules too."""
    try:
        tree = ast.parse(content)
    except SyntaxError:  # of another version of Python, and imported only there
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def _file(folder: Path, module: str) -> Path | None:
    """The source of a module below ``folder``; None if there is none."""
    path = folder.joinpath(*module.split("."))
    candidates = (path.with_name(f"{path.name}.py"), path / "__init__.py")
    return next((file for file in candidates if module and file.is_file()), None)
