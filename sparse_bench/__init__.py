"""Sparse training of language models, and of any other PyTorch model.

import sparse_bench as sb

sparse = sb.sparsify(model, optimizer, sb.RigL(density=0.1), steps=10_000)
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Public names and the modules that hold them. They are imported when they are first used.
_NAMES = {
    "sparsify": "library",
    "SparseTraining": "library",
    "SavedRun": "saved",
    "load_run": "saved",
    "Scheme": "sparsity.scheme",
    "BlockDiagonal": "sparsity.schemes.block_diagonal",
    "Combined": "sparsity.schemes.combined",
    "EmbeddingTiers": "sparsity.schemes.embedding_tiers",
    "GMP": "sparsity.schemes.gmp",
    "Random": "sparsity.schemes.random",
    "RandomConnected": "sparsity.schemes.random_connected",
    "RandomFanIn": "sparsity.schemes.random_fan_in",
    "RigL": "sparsity.schemes.rigl",
    "SET": "sparsity.schemes.set",
    "SparseGradient": "sparsity.schemes.sparse_gradient",
    "StaticER": "sparsity.schemes.static_er",
}

__all__ = ["schemes", *_NAMES]


def schemes() -> list[str]:
    """Names of the schemes that :func:`sparsify` takes."""
    return sorted(name for name, module in _NAMES.items() if module.startswith("sparsity.schemes."))


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'sparse_bench' has no attribute '{name}'")
    return getattr(importlib.import_module(f"sparse_bench.{_NAMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]


if TYPE_CHECKING:  # what an editor completes
    from sparse_bench.library import SparseTraining as SparseTraining
    from sparse_bench.library import sparsify as sparsify
    from sparse_bench.saved import SavedRun as SavedRun
    from sparse_bench.saved import load_run as load_run
    from sparse_bench.sparsity.scheme import Scheme as Scheme
    from sparse_bench.sparsity.schemes.block_diagonal import BlockDiagonal as BlockDiagonal
    from sparse_bench.sparsity.schemes.combined import Combined as Combined
    from sparse_bench.sparsity.schemes.embedding_tiers import EmbeddingTiers as EmbeddingTiers
    from sparse_bench.sparsity.schemes.gmp import GMP as GMP
    from sparse_bench.sparsity.schemes.random import Random as Random
    from sparse_bench.sparsity.schemes.random_connected import RandomConnected as RandomConnected
    from sparse_bench.sparsity.schemes.random_fan_in import RandomFanIn as RandomFanIn
    from sparse_bench.sparsity.schemes.rigl import RigL as RigL
    from sparse_bench.sparsity.schemes.set import SET as SET
    from sparse_bench.sparsity.schemes.sparse_gradient import SparseGradient as SparseGradient
    from sparse_bench.sparsity.schemes.static_er import StaticER as StaticER
