"""Weighted cross-entropy against torch's own, in value and gradient."""

import math

import pytest
import torch
from torch.nn import functional as F

from sparse_bench.tasks.cross_entropy import mean_cross_entropy, weighted_cross_entropy


def problem(dtype=torch.float32):
    torch.manual_seed(0)
    scores = (torch.randn(12, 50) * 3).to(dtype).requires_grad_()
    return scores, torch.randint(0, 50, (12,)), torch.rand(12)


def test_by_hand():
    scores = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0]], requires_grad=True)
    total, nll = weighted_cross_entropy(scores, torch.tensor([1, 1]), torch.tensor([1.0, 0.5]))
    assert nll.tolist() == pytest.approx([math.log(4 / 3), math.log(5)])
    assert total.item() == pytest.approx(math.log(4 / 3) + 0.5 * math.log(5))
    total.backward()
    torch.testing.assert_close(scores.grad, torch.tensor([[0.25, -0.25], [0.4, -0.4]]))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_value_and_gradient_are_those_of_torch(smoothing):
    scores, target, weights = problem()
    total, nll = weighted_cross_entropy(scores, target, weights, smoothing)
    expected = (F.cross_entropy(scores, target, reduction="none", label_smoothing=smoothing) * weights).sum()
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(nll, F.cross_entropy(scores, target, reduction="none").detach())
    assert not nll.requires_grad
    (found,) = torch.autograd.grad(total * 3, scores)
    (right,) = torch.autograd.grad(expected * 3, scores)
    torch.testing.assert_close(found, right)


def test_gradient_is_that_of_finite_differences():
    scores, target, weights = problem()
    assert torch.autograd.gradcheck(
        lambda s: weighted_cross_entropy(s, target, weights.double(), 0.1)[0],
        scores.double().detach().requires_grad_(),
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bfloat16_stays_bfloat16_and_close(smoothing):
    scores, target, weights = problem(torch.bfloat16)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        total, nll = weighted_cross_entropy(scores, target, weights, smoothing)
    assert {t.dtype for t in saved if t.shape == scores.shape} == {torch.bfloat16}
    assert total.dtype == nll.dtype == torch.float32
    wide = scores.detach().float().requires_grad_()
    expected = (F.cross_entropy(wide, target, reduction="none", label_smoothing=smoothing) * weights).sum()
    torch.testing.assert_close(nll, F.cross_entropy(wide, target, reduction="none").detach(), atol=0.004, rtol=0)
    assert total.item() == pytest.approx(expected.item(), rel=1e-3)
    total.backward()
    expected.backward()
    assert scores.grad.dtype == torch.bfloat16
    torch.testing.assert_close(scores.grad.float(), wide.grad, atol=1e-4, rtol=0.02)


def test_autocast_has_no_say():
    scores, target, weights = problem(torch.bfloat16)
    expected = weighted_cross_entropy(scores, target, weights)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(weighted_cross_entropy(scores, target, weights)[0], expected)


def test_float16_is_widened():
    scores, target, weights = problem(torch.float16)
    total, _ = weighted_cross_entropy(scores, target, weights)
    expected = (F.cross_entropy(scores.float(), target, reduction="none") * weights).sum()
    torch.testing.assert_close(total, expected)


def test_an_impossible_target_has_a_finite_loss_and_its_full_gradient():
    scores = torch.tensor([[0.0, 1000.0]], requires_grad=True)
    total, nll = weighted_cross_entropy(scores, torch.tensor([0]), torch.ones(1))
    assert 80 < nll.item() < 100
    total.backward()
    assert scores.grad.tolist() == [[-1.0, 1.0]]


def test_divergence_shows():
    scores = torch.tensor([[float("nan"), 0.0]], requires_grad=True)
    assert weighted_cross_entropy(scores, torch.tensor([1]), torch.ones(1))[0].isnan()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_on_the_meta_device(smoothing):
    scores = torch.empty(6, 9, device="meta", requires_grad=True)
    total, nll = weighted_cross_entropy(
        scores, torch.empty(6, dtype=torch.int64, device="meta"), torch.empty(6, device="meta"), smoothing
    )
    total.backward()
    assert scores.grad.shape == scores.shape
    assert nll.shape == (6,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_mean_ignores_rows_without_a_target(dtype):
    scores, target, _ = problem(dtype)
    target[[2, 5]] = -100
    mean = mean_cross_entropy(scores, target, -100)
    reference = scores.detach().double().requires_grad_()
    expected = F.cross_entropy(reference, target)
    tolerance = {torch.bfloat16: 4e-3, torch.float16: 1e-3}.get(dtype, 1e-6)
    assert mean.item() == pytest.approx(expected.item(), abs=tolerance)
    (found,), (right,) = torch.autograd.grad(mean, scores), torch.autograd.grad(expected, reference)
    torch.testing.assert_close(found.double(), right, atol=tolerance / 10, rtol=0.01)
    assert not found[[2, 5]].any()
