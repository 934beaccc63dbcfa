"""Mixed precision: the loss still falls, and the scaler's state is part of a checkpoint."""

from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig

from sparse_bench.run import run
from sparse_bench.training.precision import Precision


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_every_precision_learns(precision: str, toy_config: Callable[..., DictConfig]) -> None:
    result = run(toy_config(trainer__precision=precision, trainer__epochs=20, trainer__gradient_clip=1.0))
    assert result is not None
    assert result.status == "finished", result.error
    assert result.metrics["test/accuracy"] > 0.85


def test_float32_is_float32_unless_asked_otherwise() -> None:
    """Torch's own setting lets cuDNN round the factors of its products, and other products not."""
    for name, allowed in [("tf32", True), ("bf16", False), ("fp32", False)]:
        Precision(name, torch.device("cpu"))
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == allowed


def test_autocast_and_scaler() -> None:
    device = torch.device("cpu")
    layer = torch.nn.Linear(2, 2)
    x = torch.ones(1, 2)
    for name, dtype, scaled in [("fp32", torch.float32, 1.0), ("bf16", torch.bfloat16, 1.0)]:
        precision = Precision(name, device)
        with precision.autocast():
            assert layer(x).dtype == dtype
        assert precision.scaler.scale(torch.tensor(1.0)).item() == scaled
    fp16 = Precision("fp16", device)
    assert fp16.scaler.scale(torch.tensor(1.0)).item() > 1.0
    assert fp16.scaler.state_dict()
