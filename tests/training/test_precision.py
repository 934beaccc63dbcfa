"""Mixed precision: what computes in which type, and that its gradients are those of float32 to the type's digits."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sparse_bench.training.precision import Precision
from sparse_bench.training.trainer import Trainer


@pytest.mark.parametrize(
    ("precision", "dtype", "digits"),
    [("tf32", torch.float32, None), ("bf16", torch.bfloat16, 8), ("fp16", torch.float16, 11)],
)
def test_gradients_are_right_to_the_digits_of_their_type(
    precision: str, dtype: torch.dtype, digits: int | None, make_trainer: Callable[..., Trainer]
) -> None:
    """``digits``: binary ones of a number of the type; on a CPU tf32 rounds nothing."""

    def first_step(precision: str) -> tuple[Tensor, set[torch.dtype]]:
        trained = make_trainer(precision, trainer__precision=precision, model__dropout=0.0)
        seen: set[torch.dtype] = set()
        trained.model.get_submodule("second").register_forward_hook(lambda _m, _i, output: seen.add(output.dtype))
        given: list[Tensor] = []
        trained.optimizer.register_step_pre_hook(
            lambda *_: given.append(torch.cat([p.grad.flatten() for p in trained.model.parameters()]))  # type: ignore[union-attr]
        )
        trained.forward_backward(next(trained.task.epoch_batches(0, trained.streams)))
        trained.update()
        return given[0], seen

    exact, types = first_step("fp32")
    rounded, rounded_types = first_step(precision)
    assert (types, rounded_types) == ({torch.float32}, {dtype})
    assert rounded.dtype == torch.float32
    error = float((rounded - exact).norm() / exact.norm())
    assert error == 0 if digits is None else 0 < error < 4 * 2.0**-digits


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
