"""Time dense training steps of DIET against a plain version, which is what one would write first.

OMP_WAIT_POLICY=passive python scripts/bench_diet.py --at-threads 1 2
"""

import math
from collections.abc import Iterator
from functools import partial

import torch
from bench_models import diet, training_step
from interleaved import Row, interleave, measure
from torch import Tensor
from torch.nn import functional as F

from sparse_bench.batch import IntentBatch, SparseRows
from sparse_bench.models.diet import DIET
from sparse_bench.models.rasa_transformer import EncoderLayer, sinusoids
from sparse_bench.models.similarity import draw_negatives
from sparse_bench.models.sparse_features import SparseProjection


def diet_step(
    *, sizes: tuple[int, ...] = (256, 16), at_threads: tuple[int, ...] = (1, 2), seconds: float = 15.0
) -> Iterator[Row | str]:
    """One training step of DIET, before and after.

    *Before* is a plain version of the step: everything padded, torch's own dropout and embedding_bag gradients, a
    logsumexp CRF left to autograd, an embedding for every sampled negative, Adam in a loop. *After* is the model in the
    package with fused Adam; their losses are the same. Batches of 160 messages of Sara-like, 4.9 tokens on average;
    medians of steps that alternate between the two in one process. Processor time counts all threads; it is the
    steadier of the two on a machine that others use.
    """
    for threads in at_threads:
        torch.set_num_threads(threads)
        for size in sizes:
            make, loss, batches, _ = diet(10, size)
            first, second = make(), make()
            looped = torch.optim.Adam(first.parameters(), lr=1e-3, eps=1e-7, foreach=False)
            plain = lambda model, batch, loss=loss: loss(partial(plain_losses, model), batch)  # noqa: E731
            arms = {
                "before": training_step(first, plain, batches, optimizer=looped),
                "after": training_step(second, loss, batches),
            }
            before, after = interleave(arms, seconds).values()
            processor = [f"{times.ms('processor') / len(batches):.1f}" for times in (before, after)]
            yield {
                "threads": threads,
                "U": size,
                "before / after": f"{before.over(after):.2f}",
                "before / after (processor)": f"{before.over(after, 'processor'):.2f}",
                "before, ms": f"{before.ms() / len(batches):.1f}",
                "after, ms": f"{after.ms() / len(batches):.1f}",
                "(processor)": " → ".join(processor),
            }


def plain_losses(model: DIET, batch: IntentBatch) -> dict[str, Tensor]:
    """DIET's losses from ``model``'s weights, written without regard to speed."""
    training, drop = model.training, model.input_dropout.rate

    def project(rows: SparseRows, projection: SparseProjection) -> Tensor:
        values = rows.values
        if training and projection.dropout > 0:
            values = values * (torch.rand_like(values) >= projection.dropout)
        bags = F.embedding_bag(rows.indices, projection.weight, rows.offsets, mode="sum", per_sample_weights=values)
        return bags + projection.bias

    tokens = F.dropout(project(batch.tokens, model.token_projection), drop, training)
    sentences = F.dropout(project(batch.sentences, model.sentence_projection), drop, training)
    layout, encoder = batch.layout, model.encoder
    x = tokens.new_zeros(layout.position.shape[0], tokens.shape[1])
    x = x.index_add(0, batch.token_rows, tokens).index_add(0, batch.sentence_rows, sentences)
    x = x[layout.grid] * layout.mask[:, :, None]

    x = encoder.input(x) * math.sqrt(encoder.size) + sinusoids(x.shape[1], encoder.size, x.device)
    x = F.dropout(x, encoder.dropout.rate, training)
    for layer in encoder.layers:
        assert isinstance(layer, EncoderLayer)
        x = plain_layer(layer, x, layout.mask)
    x = F.gelu(encoder.norm(x))

    intents = model.label_embed(project(model.intents, model.label_projection))
    messages = model.text_embed(x[torch.arange(len(x)), layout.lengths - 1])
    losses = {"intent": plain_similarity(messages, intents, batch.intents, model.negatives)}
    penalised = [model.token_projection, model.sentence_projection, encoder.input, model.text_embed]
    penalised += [model.label_projection, model.label_embed]
    weights = [layer.weight for layer in penalised]
    if model.tag_embed is not None:
        grid = batch.token_layout.grid
        emissions = model.tag_embed(x)[:, : grid.shape[1]]
        losses["entity"] = plain_crf(emissions, model.transitions, batch.tags[grid], batch.token_layout.lengths)
        weights += [model.tag_embed.weight, model.transitions]
    losses["l2"] = model.regularization * torch.stack([(weight**2).sum() for weight in weights]).sum()
    return losses


def plain_layer(layer: EncoderLayer, x: Tensor, mask: Tensor) -> Tensor:
    """One encoder layer on padded sequences [B, S, U]."""
    attention, rate, training = layer.attention, layer.dropout.rate, layer.training
    normed = layer.attention_norm(x)
    query, key, value = (
        project(normed).unflatten(2, (attention.heads, -1)).transpose(1, 2)
        for project in (attention.query, attention.key, attention.value)
    )
    logits = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
    weights = (logits + torch.where(mask, 0.0, -1e9)[:, None, None, :]).softmax(3)
    attended = attention.output((weights @ value).transpose(1, 2).flatten(2))
    x = x + F.dropout(attended, rate, training)
    hidden = F.gelu(layer.feed_forward.hidden(layer.feed_forward_norm(x)))
    return x + F.dropout(layer.feed_forward.output(F.dropout(hidden, rate, training)), rate, training)


def plain_similarity(messages: Tensor, intents: Tensor, labels: Tensor, count: int) -> Tensor:
    """Softmax over the positive and the four groups of negatives, each negative with its own embedding."""
    negative_labels = draw_negatives(len(messages), count, len(intents), messages.device)
    negative_inputs = draw_negatives(len(messages), count, len(messages), messages.device)
    other_intents, other_messages = intents[negative_labels], messages[negative_inputs]
    own, own_intents = messages[:, None], intents[labels][:, None]
    bad_labels = (negative_labels == labels[:, None]) * -1e9
    bad_inputs = (labels[negative_inputs] == labels[:, None]) * -1e9
    similarities = [
        (own * own_intents).sum(2),
        (own * other_intents).sum(2) + bad_labels,
        (own_intents * other_messages).sum(2) + bad_inputs,
        (own * other_messages).sum(2) + bad_inputs,
        (own_intents * other_intents).sum(2) + bad_labels,
    ]
    return F.cross_entropy(torch.cat(similarities, 1), torch.zeros_like(labels))


def plain_crf(emissions: Tensor, transitions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
    """Mean negative log-likelihood of padded sequences [B, T, K] by the forward algorithm in the log domain."""
    mask = torch.arange(emissions.shape[1], device=emissions.device) < lengths[:, None]
    alpha = emissions[:, 0]
    for time_step in range(1, emissions.shape[1]):
        step = (alpha[:, :, None] + transitions).logsumexp(1) + emissions[:, time_step]
        alpha = torch.where(mask[:, time_step, None], step, alpha)
    unary = emissions.gather(2, tags[:, :, None])[:, :, 0] * mask
    binary = transitions[tags[:, :-1], tags[:, 1:]] * mask[:, 1:]
    return (alpha.logsumexp(1) - unary.sum(1) - binary.sum(1)).mean()


if __name__ == "__main__":
    measure(diet_step)
