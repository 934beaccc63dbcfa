"""Linear-chain conditional random field without start and end potentials.

The likelihood and its gradient come from one forward-backward pass in the probability domain (Rabiner 1989, scaled
variables). Each time step multiplies a [B, K] matrix by the [K, K] transitions, instead of a logsumexp over [B, K, K].

For numerical stability, potentials of emissions are divided by the largest of their position, those of transitions by
the largest of all. Forward variables are normalised at each step. Whatever the emissions are, no sum can become zero
while the transition scores differ by less than about 80. A path that is lost to underflow weighs less than 1e-38 of the
best path, times e^(the largest difference of transition scores).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparse_bench.batch import Layout
from sparse_bench.batch.base import as_logits
from sparse_bench.models.full_precision import full_precision


def _time_major(layout: Layout) -> tuple[Tensor, Tensor]:
    """For the time-major grid: the packed row of each cell [S·B], and the cell of each packed row [N]."""
    batch, length = layout.grid.shape
    return layout.grid.t().reshape(-1), layout.position * batch + (layout.cell - layout.position) // length


class _NegativeLogLikelihood(torch.autograd.Function):
    """Mean over sequences. The forward pass also computes the gradient: expected minus observed counts."""

    @staticmethod
    def forward(ctx: Any, emissions: Tensor, transitions: Tensor, tags: Tensor, layout: Layout) -> Tensor:
        batch, length = layout.grid.shape
        tokens, states = emissions.shape
        rows, cells = _time_major(layout)
        real = layout.mask.t().contiguous().unsqueeze(2)  # [S, B, 1]

        scores = emissions.index_select(0, rows).view(length, batch, states)
        best_score = scores.amax(2, keepdim=True)
        potentials = (scores - best_score).exp_()
        best_transition = transitions.max()
        moves = (transitions - best_transition).exp_()

        # Forward variables: alpha[t] is normalised to sum 1, and scale[t] is its sum before that. Padding cells cannot
        # affect real ones, because a cell depends only on earlier cells.
        alpha = torch.empty_like(potentials)
        scale = torch.empty_like(best_score)
        current, before = potentials[0], None
        for potential, forward, total in zip(potentials, alpha, scale, strict=True):
            if before is not None:
                current = torch.mm(before, moves).mul_(potential)
            before = torch.div(current, torch.sum(current, 1, keepdim=True, out=total), out=forward)
        # Padding may hold anything, even infinities, so it is masked by selection, not by a product with zero.
        log_partition = torch.where(real, scale.log() + best_score, 0.0).sum() + best_transition * (tokens - batch)

        # Score of the gold tags: their emissions, and their transitions within each sequence.
        continues = (layout.position[1:] > 0).to(emissions.dtype)
        move = tags[:-1] * states + tags[1:]
        gold = emissions.gather(1, tags[:, None]).sum() + (transitions.reshape(-1)[move] * continues).sum()
        loss = (log_partition - gold) / batch

        # Backward variables, and from them the marginals of tags and the expected counts of transitions.
        if any(ctx.needs_input_grad):
            incoming = torch.where(real, potentials / scale, 0.0)
            ends = (~real).to(emissions.dtype)
            beta = torch.ones_like(potentials)
            backward, arriving, ended = beta.unbind(), incoming.unbind(), ends.unbind()
            for time in range(length - 1, 0, -1):
                arriving[time].mul_(backward[time])
                # At a sequence's last position beta is 1: the step after it contributes nothing.
                torch.addmm(ended[time], arriving[time], moves.t(), out=backward[time - 1])
            marginals = beta.mul_(alpha).view(-1, states).index_select(0, cells)
            marginals.scatter_add_(1, tags[:, None], marginals.new_full((1, 1), -1.0).expand(tokens, 1))
            counts = torch.where(real[1:], alpha[:-1], 0.0).view(-1, states).t() @ incoming[1:].view(-1, states)
            counts.mul_(moves).view(-1).index_add_(0, move, continues, alpha=-1)
            ctx.save_for_backward(marginals.div_(batch), counts.div_(batch))
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        emissions, transitions = ctx.saved_tensors
        return emissions * gradients[0], transitions * gradients[0], None, None


def crf_loss(emissions: Tensor, transitions: Tensor, tags: Tensor, layout: Layout) -> Tensor:
    """Negative log-likelihood of the tags, averaged over sequences. It is computed in float32 or float64.

    Args:
        emissions: score of each tag for each token [N, K], packed.
        transitions: score of tag j after tag i, at [i, j] [K, K].
        tags: the gold tags [N].
        layout: layout of the N tokens.

    Returns:
        A scalar.
    """
    with full_precision(emissions):
        precise = torch.promote_types(emissions.dtype, torch.float32)
        scores = as_logits(emissions.to(precise))
        loss: Tensor = _NegativeLogLikelihood.apply(scores, transitions.to(precise), tags, layout)
        return loss


@torch.no_grad()
def viterbi(emissions: Tensor, transitions: Tensor, layout: Layout) -> Tensor:
    """The highest-scoring tags of every sequence.

    Args:
        emissions: score of each tag for each token [N, K], packed.
        transitions: score of tag j after tag i, at [i, j] [K, K].
        layout: layout of the N tokens.

    Returns:
        The tag of each token [N], int64.
    """
    batch, length = layout.grid.shape
    rows, cells = _time_major(layout)
    precise = torch.promote_types(emissions.dtype, torch.float32)
    scores = emissions.to(precise).index_select(0, rows).view(length, batch, -1)
    into = transitions.to(precise).t().contiguous()  # [to, from]
    states = torch.arange(into.shape[0], device=scores.device)
    best = scores[0]
    pointers = []
    for time in range(1, length):
        value, pointer = (best[:, None, :] + into).max(2)
        real = layout.mask[:, time, None]
        # After its end a sequence keeps its scores, and each tag points to itself.
        best = torch.where(real, value + scores[time], best)
        pointers.append(torch.where(real, pointer, states))
    tag = best.argmax(1, keepdim=True)
    path = [tag]
    for pointer in reversed(pointers):
        tag = pointer.gather(1, tag)
        path.append(tag)
    return torch.stack(path[::-1]).view(-1).index_select(0, cells)
