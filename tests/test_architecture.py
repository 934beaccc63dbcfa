"""No arrow points upward: which part of the package may import which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "sparse_bench"

BASEMENT = {"errors", "limits", "streams", "batch", "cache", "interruption", "commands"}
#: Part → the parts that it may import, besides the basement and itself.
MAY_IMPORT: dict[str, set[str]] = {
    **{part: set() for part in BASEMENT},
    "limits": {"errors"},
    "commands": {"errors"},
    "data": set(),
    "models": {"kernels"},  # compiled dropout, softmax and attention
    "kernels": set(),
    "row_sparse": {"kernels"},
    "sparsity": {"kernels", "row_sparse"},
    "library": {"sparsity", "row_sparse"},
    "tracking": set(),
    "config": set(),
    "locks": set(),
    "agreement": {"locks"},
    "record": {"locks"},
    "environment": set(),
    "workers": set(),
    "journal": {"record"},
    "slurm": {"journal", "record"},
    "ray_launcher": {"journal", "record"},
    "sharing": {"workers", "journal", "slurm", "ray_launcher"},
    "source": {"config", "record"},
    "origin": {"config", "record", "source", "tasks", "training", "sparsity"},
    "tasks": {"data"},
    "training": {"tasks", "sparsity", "row_sparse", "kernels", "config", "record"},
    "sweeps": {"config", "record", "source"},
    "papers": {"config"},
    "evidence": {"papers", "sweeps", "config", "record"},
    "figures": {"evidence", "papers", "record"},
    "benchmark": {"figures", "evidence", "papers", "sweeps", "config", "record"},
    "site": {"benchmark", "figures", "evidence", "papers", "config", "record"},
    "model_factory": {"config", "environment"},
    "run": {
        "config",
        "agreement",
        "model_factory",
        "record",
        "source",
        "origin",
        "environment",
        "tasks",
        "training",
        "sparsity",
        "tracking",
    },
    "saved": {"config", "model_factory", "record", "environment", "run", "tasks", "training", "sparsity"},
    "new": set(),
    "shell": {"config"},
    "testing": {"library", "sparsity", "record", "config", "run"},
    "plan": {"config", "record", "sweeps", "environment", "training", "run", "evidence", "papers", "sharing"},
    "status": {"config", "record", "journal", "sweeps"},
    "scheme_table": {"config", "record", "sparsity"},
    "__main__": {"config", "record", "run", "sharing", "journal", "shell"},
    "__init__": {"library", "saved", "sparsity"},  # the public names, imported when they are used
}
#: Arrows that may not be drawn, whatever lies between.
NEVER = [
    ("kernels", "sparsity"),
    ("kernels", "row_sparse"),
    ("row_sparse", "sparsity"),
    ("evidence", "figures"),
    ("evidence", "site"),
    ("papers", "evidence"),
    ("sparsity", "library"),
]


def parts() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in PACKAGE.rglob("*.py"):
        found.setdefault(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), []).append(path)
    return found


def imported(path: Path) -> set[str]:
    """The parts of the package that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names |= {f"{module}.{alias.name}" for alias in node.names} if module == "sparse_bench" else {module}
    return {name.split(".")[1] for name in names if name.startswith("sparse_bench.")}


def test_every_part_is_known() -> None:
    assert set(parts()) == set(MAY_IMPORT)


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_imports_point_downward(part: str) -> None:
    allowed = MAY_IMPORT[part] | {part} | (BASEMENT if part not in BASEMENT else set())
    for path in parts()[part]:
        extra = imported(path) - allowed
        assert not extra, f"{path.relative_to(PACKAGE)} may not import {', '.join(sorted(extra))}"


def test_models_use_no_sparse_kernel() -> None:
    """Of the kernels they may import those that dense models have too."""
    dense = {"sparse_bench.kernels.attention", "sparse_bench.kernels.dropout", "sparse_bench.kernels.softmax"}
    for path in parts()["models"]:
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        modules = {node.module for node in tree if isinstance(node, ast.ImportFrom) and node.module}
        assert {name for name in modules if name.startswith("sparse_bench.kernels")} <= dense, path


def reached(part: str) -> set[str]:
    """All parts that a part may import, also by way of others."""
    return MAY_IMPORT[part].union(*(reached(below) for below in MAY_IMPORT[part]))


def test_the_table_allows_no_circle_and_none_of_the_forbidden_arrows() -> None:
    for below, above in NEVER:
        assert above not in reached(below), f"{below} may import {above}"
    for part in MAY_IMPORT:  # a circle has no end
        assert part not in reached(part)


def test_models_and_tasks_do_not_speak_of_sparsity() -> None:
    for part in ("models", "tasks"):
        for path in parts()[part]:
            names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
            assert not {name for name in names if "sparsity" in name.lower() or "topology" in name.lower()}


def test_no_device_is_named_below_run() -> None:
    for part in ("models", "tasks", "kernels", "row_sparse", "sparsity", "training", "data"):
        for path in parts()[part]:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    assert node.func.attr != "cuda", f"{path}: moves something to CUDA by name"
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and part in ("models", "tasks"):
                    assert not node.value.startswith("cuda"), f"{path}: names a device"


@pytest.mark.parametrize("name", ["evidence.store", "evidence.verdicts", "evidence.collect", "papers.page"])
def test_evidence_needs_neither_torch_nor_matplotlib(name: str) -> None:
    code = f"import sys, sparse_bench.{name}; print(*sorted({{'torch', 'matplotlib'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert found.stdout.split() == []


@pytest.mark.parametrize("folder", ["sparse_bench", "scripts"])
def test_no_file_is_read_in_a_way_that_may_run_what_it_holds(folder: str) -> None:
    """Checkpoints are read by one function, which takes tensors and plain values alone."""
    found = []
    for path in (PACKAGE.parent / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            given = {word.arg: ast.unparse(word.value) for word in node.keywords} if isinstance(node, ast.Call) else {}
            safe = called != "torch.load" or given.get("weights_only") == "True"
            unsafe = called.startswith(("pickle.load", "joblib.load", "dill.", "marshal.")) or "allow_pickle" in given
            if unsafe or not safe:
                found.append(f"{path.name}: {called}")
    assert found == []
