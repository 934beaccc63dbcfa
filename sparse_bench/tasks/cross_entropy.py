"""Cross-entropy over a large vocabulary that makes no copy of the scores in another precision."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparse_bench.batch.base import as_logits


class _CrossEntropy(torch.autograd.Function):
    """Value and gradient of :func:`weighted_cross_entropy`. It saves only the probabilities, in the scores' type."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, target: Tensor, weights: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        # The kernel computes in float32 internally for any type. An explicit type prevents a cast by autocast.
        probabilities = torch.softmax(scores, dim=-1, dtype=scores.dtype)
        index = target[:, None]
        precise = torch.promote_types(scores.dtype, torch.float32)
        chosen = probabilities.gather(1, index).squeeze(1).to(precise)
        # A probability may round to 0. Then its logarithm is clamped, but its gradient is not.
        nll = -chosen.clamp_min(torch.finfo(chosen.dtype).tiny).log()
        losses = nll
        if smoothing:
            # mean over v of -log p_v = log Z - mean of the scores, and log Z = nll + score of the target.
            target_score = scores.gather(1, index).squeeze(1).to(precise)
            uniform = nll + target_score - scores.mean(dim=-1, dtype=precise)
            losses = (1 - smoothing) * nll + smoothing * uniform
        ctx.save_for_backward(probabilities, index, weights)
        ctx.smoothing = smoothing
        ctx.mark_non_differentiable(nll)
        return (losses * weights).sum(), nll

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        probabilities, index, weights = ctx.saved_tensors
        smoothing: float = ctx.smoothing
        factors = (weights * gradients[0])[:, None].to(probabilities.dtype)
        gradient = probabilities * factors
        if smoothing:
            gradient -= factors * (smoothing / probabilities.shape[1])
        at_target = gradient.gather(1, index) - factors * (1 - smoothing)
        # On a CPU scatter_ would copy the whole array first.
        flat = torch.arange(index.shape[0], device=index.device) * gradient.shape[1] + index.squeeze(1)
        gradient.view(-1).index_copy_(0, flat, at_target.squeeze(1))
        return gradient, None, None, None


def weighted_cross_entropy(
    scores: Tensor, target: Tensor, weights: Tensor, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Σ weight · loss over N tokens. A token's loss is its cross-entropy with label smoothing.

    With smoothing ε the target distribution is 1 - ε on the target, plus ε spread evenly over the vocabulary (Szegedy
    et al. 2016), as in :func:`torch.nn.functional.cross_entropy`. That function would convert bfloat16 scores to
    float32 and keep both. This one keeps one array of the scores' size and type. In bfloat16 a token's probability is
    rounded to 8 bits. The error of its loss is then at most 0.004 and without bias; the gradient has the precision of
    bfloat16.

    Args:
        scores: unnormalised log-probabilities [N, V], float32 or bfloat16. float16 is converted to float32, because it
            would round small probabilities to 0.
        target: correct token of each row [N], int64.
        weights: weight of each row in the sum [N], float32, without gradient.
        smoothing: ε, from 0 to less than 1.

    Returns:
        The weighted sum, and the negative log-likelihood of each row [N] without smoothing, detached. Both are at least
        float32.
    """
    if scores.dtype == torch.float16:
        scores = scores.float()
    value, nll = _CrossEntropy.apply(as_logits(scores), target, weights, smoothing)
    return value, nll


def mean_cross_entropy(scores: Tensor, target: Tensor, ignored: int) -> Tensor:
    """Mean cross-entropy of the tokens whose target is not ``ignored``; at least float32.

    In float32 it is that of torch. In lower precision it is that of :func:`weighted_cross_entropy`.

    Args:
        scores: unnormalised log-probabilities [N, V].
        target: correct token of each row [N], int64, or ``ignored``.
        ignored: the target of rows that do not count.
    """
    if scores.dtype in (torch.float32, torch.float64):
        return F.cross_entropy(scores, target, ignore_index=ignored)
    counts = target != ignored
    total, _ = weighted_cross_entropy(scores, target.where(counts, 0), counts / counts.sum())
    return total
