"""Print exact pins of every installed package that the project and its ``dev`` extra need, for ``constraints.txt``.

Run in the environment to be pinned: ``make constraints``. Packages that are installed but not needed are left out, as
are the CUDA libraries and the version of triton that torch names for GPU machines: torch's own pins already fix them.
"""

import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def needed(requirement: Requirement, extra: str) -> bool:
    """Whether the requirement holds on this platform when ``extra`` is asked for."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def installed(name: str) -> Distribution | None:
    """The installed package, or None: a CUDA library is not there with a CPU build of torch."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def closure() -> Iterator[tuple[str, str]]:
    """Name and version of everything reachable from the project's dependencies."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    own = canonicalize_name(project["name"])
    waiting = [Requirement(line) for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]]
    seen: set[tuple[str, frozenset[str]]] = set()
    pinned: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        if name == own:
            extras = project["optional-dependencies"]
            waiting += [Requirement(line) for extra in requirement.extras for line in extras[extra]]
            continue
        package = installed(name)
        if package is None or name.startswith(("nvidia-", "cuda-", "triton")):
            continue
        if name not in pinned:
            pinned.add(name)
            # A local label ("+cpu") names one build of a version; the pin has to fit every build of it.
            yield package.metadata["Name"], Version(package.version).public
        for line in package.requires or []:
            child = Requirement(line)
            if any(needed(child, extra) for extra in ("", *requirement.extras)):
                waiting.append(child)


if __name__ == "__main__":
    print("# Exact versions of what the project and its `dev` extra need. Written by `make constraints`.")
    for name, version in sorted(closure(), key=lambda pin: pin[0].lower()):
        print(f"{name}=={version}")
