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
    "ACDC": "sparsity.schemes.ac_dc",
    "BlockDiagonal": "sparsity.schemes.block_diagonal",
    "CHTs": "sparsity.schemes.chts",
    "CHTss": "sparsity.schemes.chtss",
    "Combined": "sparsity.schemes.combined",
    "EmbeddingTiers": "sparsity.schemes.embedding_tiers",
    "GMP": "sparsity.schemes.gmp",
    "GraSP": "sparsity.schemes.grasp",
    "Powerpropagation": "sparsity.schemes.powerpropagation",
    "GraNet": "sparsity.schemes.granet",
    "MEST": "sparsity.schemes.mest",
    "Random": "sparsity.schemes.random",
    "RandomConnected": "sparsity.schemes.random_connected",
    "RandomFanIn": "sparsity.schemes.random_fan_in",
    "RigL": "sparsity.schemes.rigl",
    "SET": "sparsity.schemes.set",
    "SNIP": "sparsity.schemes.snip",
    "SNFS": "sparsity.schemes.snfs",
    "SparseGradient": "sparsity.schemes.sparse_gradient",
    "SRigL": "sparsity.schemes.srigl",
    "StaticER": "sparsity.schemes.static_er",
    "STE": "sparsity.schemes.ste",
    "SynFlow": "sparsity.schemes.synflow",
    "TopKAST": "sparsity.schemes.top_kast",
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
    from sparse_bench.sparsity.schemes.ac_dc import ACDC as ACDC
    from sparse_bench.sparsity.schemes.block_diagonal import BlockDiagonal as BlockDiagonal
    from sparse_bench.sparsity.schemes.chts import CHTs as CHTs
    from sparse_bench.sparsity.schemes.chtss import CHTss as CHTss
    from sparse_bench.sparsity.schemes.combined import Combined as Combined
    from sparse_bench.sparsity.schemes.embedding_tiers import EmbeddingTiers as EmbeddingTiers
    from sparse_bench.sparsity.schemes.gmp import GMP as GMP
    from sparse_bench.sparsity.schemes.granet import GraNet as GraNet
    from sparse_bench.sparsity.schemes.grasp import GraSP as GraSP
    from sparse_bench.sparsity.schemes.mest import MEST as MEST
    from sparse_bench.sparsity.schemes.powerpropagation import Powerpropagation as Powerpropagation
    from sparse_bench.sparsity.schemes.random import Random as Random
    from sparse_bench.sparsity.schemes.random_connected import RandomConnected as RandomConnected
    from sparse_bench.sparsity.schemes.random_fan_in import RandomFanIn as RandomFanIn
    from sparse_bench.sparsity.schemes.rigl import RigL as RigL
    from sparse_bench.sparsity.schemes.set import SET as SET
    from sparse_bench.sparsity.schemes.snfs import SNFS as SNFS
    from sparse_bench.sparsity.schemes.snip import SNIP as SNIP
    from sparse_bench.sparsity.schemes.sparse_gradient import SparseGradient as SparseGradient
    from sparse_bench.sparsity.schemes.srigl import SRigL as SRigL
    from sparse_bench.sparsity.schemes.static_er import StaticER as StaticER
    from sparse_bench.sparsity.schemes.ste import STE as STE
    from sparse_bench.sparsity.schemes.synflow import SynFlow as SynFlow
    from sparse_bench.sparsity.schemes.top_kast import TopKAST as TopKAST
