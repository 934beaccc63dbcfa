"""Fixtures that many tests share."""

import copy
import gc
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: many tests are small and run side by side

import pytest
import torch

if not torch.cuda.is_available():  # before triton is imported, by whatever module: its kernels run in its interpreter
    os.environ.setdefault("TRITON_INTERPRET", "1")

from hydra import compose, initialize_config_dir
from hypothesis import settings
from omegaconf import DictConfig, OmegaConf

from sparse_bench.config import CONF, register
from sparse_bench.kernels import auto

# How long an example takes says more of what else the machine does than of the code.
settings.register_profile("any_machine", deadline=None)
settings.load_profile("any_machine")

ROOT = Path(__file__).resolve().parents[1]

#: A small run that needs no corpus; every key can be overridden.
TOY: dict[str, Any] = {
    "experiment_name": "toy",
    "model": {"label": "toy", "_target_": "tests.toy.ToyModel", "_partial_": True},
    "dataset": {"label": "toy", "_target_": "tests.toy.ToyTask", "_partial_": True},
    "sparsity": {
        "label": "random",
        "_target_": "sparse_bench.sparsity.schemes.random.Random",
        "density": 0.5,
        "layers": ["default"],
    },
    "optimizer": {"label": "adam", "_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.01},
    "trainer": {"epochs": 3},
    "logger": {},
    "threads": 1,
    "progress": False,
}


def pytest_collection_finish() -> None:
    """Take what was imported out of garbage collection: every run collects, and would look at all of it again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="session")
def _choices_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What ``auto`` measures during the tests is not kept among the user's choices."""
    path = tmp_path_factory.mktemp("auto") / "auto.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "cache_file", lambda: path)
        yield


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Local copies of the real corpora; tests that need them are skipped where they are not at hand."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs copies of the real corpora in ../shared/data")
    return folder


@pytest.fixture
def toy_config(tmp_path: Path) -> Callable[..., DictConfig]:
    """A function that makes the toy run's configuration, with dotted settings replaced."""

    def make(**settings: Any) -> DictConfig:
        from sparse_bench.config import Config

        config = OmegaConf.merge(OmegaConf.structured(Config), TOY, {"output": str(tmp_path / "runs")})
        assert isinstance(config, DictConfig)
        for key, value in settings.items():
            OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
        return config

    return make


@pytest.fixture
def compose_config() -> Callable[..., DictConfig]:
    """A function that composes the shipped configuration with command-line overrides."""

    return lambda *overrides: copy.deepcopy(composed(*overrides))


@cache  # composing takes a fifth of a second, and many tests look at the same choices
def composed(*overrides: str) -> DictConfig:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))
