"""The dot-product loss of Rasa's DIET and TED, after StarSpace (Wu et al. 2018). Inputs and labels share one space.

Every example is compared with its own label, and with sampled negatives in four groups: input·negative label,
label·negative input, input·negative input and label·negative label.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sparse_bench.batch.base import as_logits
from sparse_bench.models.full_precision import full_precision

#: Added to the similarity of a sampled negative that happens to have the true label.
_IMPOSSIBLE = -1e9


def similarity_loss(
    inputs: Tensor,
    label_embeddings: Tensor,
    labels: Tensor,
    negative_labels: Tensor,
    negative_inputs: Tensor,
    *,
    constrain_similarities: bool = False,
    scale_loss: bool = False,
) -> Tensor:
    """Cross-entropy of the true label against negatives, averaged over the batch. Computed in float32 or float64.

    Args:
        inputs: embedded inputs [B, D].
        label_embeddings: embeddings of all labels [C, D].
        labels: true label of each input [B].
        negative_labels: labels drawn as negatives for each input [B, n]; see :func:`draw_negatives`.
        negative_inputs: inputs of this batch drawn as negatives for each input [B, n].
        constrain_similarities: if False, take the softmax over all similarities. If True, take it only over the
            positive and the groups input·negative label and label·negative input, and add the mean binary
            cross-entropy of the sigmoid of all similarities.
        scale_loss: multiply each example's loss by ((1 − p) / 0.5)⁴ with p = exp(−loss), if some example of the batch
            has p > 0.5. The factor has no gradient. Examples that are already learned then count less.

    Returns:
        A scalar.
    """
    with full_precision(inputs):
        precise = torch.promote_types(inputs.dtype, torch.float32)
        loss = _per_example(
            inputs.to(precise),
            label_embeddings.to(precise),
            labels,
            negative_labels,
            negative_inputs,
            constrain_similarities,
        )
        if scale_loss:
            probability = torch.exp(-loss.detach())
            loss = loss * torch.where(probability.max() > 0.5, ((1 - probability) / 0.5) ** 4, 1.0)
        return loss.mean()


def _per_example(
    inputs: Tensor,
    label_embeddings: Tensor,
    labels: Tensor,
    negative_labels: Tensor,
    negative_inputs: Tensor,
    constrain_similarities: bool,
) -> Tensor:
    """Loss of each example [B]."""
    # Compute all similarities in one product of the stacked embeddings, then pick the sampled ones. This needs far
    # fewer numbers than an embedding for every negative.
    batch = inputs.shape[0]
    stacked = torch.cat([inputs, label_embeddings])
    table = stacked @ stacked.t()
    own_input = torch.arange(batch, device=inputs.device)[:, None]
    own_label = batch + labels[:, None]
    other_label = batch + negative_labels
    groups = (
        (own_input, own_label),
        (own_input, other_label),
        (own_label, negative_inputs),
        (own_input, negative_inputs),
        (own_label, other_label),
    )
    picked = torch.cat([row * table.shape[0] + column for row, column in groups], dim=1)
    # A negative with the true label is excluded by a very low similarity.
    wrong_label = negative_labels == labels[:, None]
    wrong_input = labels[negative_inputs] == labels[:, None]
    mistaken = torch.cat(
        [torch.zeros_like(wrong_label[:, :1]), wrong_label, wrong_input, wrong_input, wrong_label], dim=1
    )
    similarities = as_logits(table.reshape(-1).gather(0, picked.reshape(-1)).view_as(picked)) + mistaken * _IMPOSSIBLE

    # Cross-entropy of the positive, which is column 0.
    compared = similarities
    if constrain_similarities:
        compared = similarities[:, : 1 + negative_labels.shape[1] + negative_inputs.shape[1]]
    loss = compared.logsumexp(1) - compared[:, 0]
    if constrain_similarities:
        targets = torch.zeros_like(similarities)
        targets[:, 0] = 1
        loss = loss + F.binary_cross_entropy_with_logits(similarities, targets, reduction="none").mean(1)
    return loss


def draw_negatives(examples: int, count: int, candidates: int, device: torch.device) -> Tensor:
    """Draw ``count`` of ``candidates`` for each example, uniform with replacement [examples, count], int64."""
    return torch.randint(candidates, (examples, count), device=device)
