"""Trainers as a run puts them together, without the run around them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from sparse_bench.record import RunFolder
from sparse_bench.run import assemble, task_of
from sparse_bench.training.trainer import Trainer


@pytest.fixture
def make_trainer(toy_config: Callable[..., DictConfig], tmp_path: Path) -> Callable[..., Trainer]:
    """A function that makes the toy run's trainer, with dotted settings replaced, in the folder ``folder``."""

    def make(folder: str = "run", **settings: Any) -> Trainer:
        plain: Any = OmegaConf.to_container(toy_config(**settings), resolve=True)
        (tmp_path / folder).mkdir(exist_ok=True)
        return assemble(plain, task_of(plain), torch.device("cpu"), RunFolder(tmp_path / folder))

    return make
