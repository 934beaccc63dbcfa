"""Cross-entropy over a large vocabulary, without copies of the scores in another precision."""

from typing import Any

import torch
from torch import Tensor


class _CrossEntropy(torch.autograd.Function):
    """Value and gradient of :func:`weighted_cross_entropy`. Keeps the probabilities alone, in the scores' own type."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, target: Tensor, weights: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        # The kernel works in float32 inside, whatever the type; given the type, autocast has no say.
        probabilities = torch.softmax(scores, dim=-1, dtype=scores.dtype)
        index = target[:, None]
        precise = torch.promote_types(scores.dtype, torch.float32)
        chosen = probabilities.gather(1, index).squeeze(1).to(precise)
        # A probability may round to 0. Its logarithm is cut off, its gradient is not.
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
        return gradient.scatter_(1, index, at_target), None, None, None


def weighted_cross_entropy(
    scores: Tensor, target: Tensor, weights: Tensor, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Σ weight · loss over N tokens, where a token's loss is its cross-entropy with label smoothing.

    With smoothing ε the wanted distribution is (1 - ε) on the target and ε spread evenly over the vocabulary
    (Szegedy et al. 2016), as :func:`torch.nn.functional.cross_entropy` has it. That function would turn bfloat16
    scores into float32 and keep both; this one keeps one array of the scores' size and type. In bfloat16 a token's
    probability is rounded to 8 bits: its loss is off by at most 0.004, without bias, and the gradient is what
    bfloat16 can hold.

    Args:
        scores: unnormalised log-probabilities [N, V], float32 or bfloat16; float16 is widened, for it rounds small
            probabilities to 0.
        target: right token of each row [N], int64.
        weights: of the rows in the sum [N], float32; no gradient flows into them.
        smoothing: ε, from 0 to less than 1.

    Returns:
        The weighted sum, and the negative log-likelihood of each row [N] without smoothing, detached; in float32 at
        least.
    """
    if scores.dtype == torch.float16:
        scores = scores.float()
    value, nll = _CrossEntropy.apply(scores, target, weights, smoothing)
    return value, nll
