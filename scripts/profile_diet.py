"""Time one training step of DIET against a plain version of the same step, and see where its time goes.

The plain version is what one would write first: everything padded, torch's own dropout and embedding_bag gradients, a
logsumexp CRF left to autograd, an embedding for every sampled negative, Adam in a loop. Both work on the same weights
and give the same losses (the tests compare them). Where the time goes is told on a page of its own (`…_shares`).

    OMP_WAIT_POLICY=passive python scripts/profile_diet.py --threads 1 2 --output results/performance/diet_step.md

(Passive waiting matters where other programs use the cores: threads that spin at barriers then wait for each other
several times as long.)
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import torch
from interleaved import Step, interleave, parse, report
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from sparse_bench.batch import IntentBatch, IntentSizes, Layout, SparseRows
from sparse_bench.models.diet import DIET
from sparse_bench.models.rasa_transformer import EncoderLayer, sinusoids
from sparse_bench.models.similarity import draw_negatives
from sparse_bench.models.sparse_features import SparseProjection

#: Prefixes of the names of operations, by what they compute. The first group that fits counts; what fits none is
#: 'other' (element-wise arithmetic above all, that of dropout and of the looped Adam included).
GROUPS = {
    "matrix products": ("aten::addmm", "aten::mm"),
    "attention products": ("aten::bmm", "aten::baddbmm"),
    "attention softmax": ("aten::_softmax", "_NarrowSoftmax"),
    "sparse features": ("aten::_embedding_bag", "aten::sort", "_SparseTimesDense"),
    "optimizer": ("Optimizer.step", "aten::_fused_adam", "aten::lerp_", "aten::addcdiv_", "aten::sqrt"),
    "GELU": ("aten::gelu",),
    "random numbers": ("aten::bernoulli", "aten::random_", "aten::ge", "_Dropped"),
    "norms": ("aten::native_layer_norm",),
    "moving rows": ("aten::index", "aten::gather", "aten::scatter", "aten::cat", "_Spread", "_Take"),
    "weight penalty": ("aten::dot", "aten::addcmul", "aten::pow"),
}


def rows_of(generator: np.random.Generator, rows: int, mean: int, features: int) -> SparseRows:
    """Sparse rows with about ``mean`` stored values each; feature frequencies fall as in text."""
    counts = np.maximum(1, generator.poisson(mean, rows))
    weights = 1 / np.arange(1, features + 1) ** 0.9
    indices = np.concatenate([np.sort(generator.choice(features, n, False, weights / weights.sum())) for n in counts])
    return SparseRows(
        indices=torch.from_numpy(indices.astype(np.int64)),
        offsets=torch.from_numpy(np.cumsum(counts) - counts),
        values=torch.ones(len(indices)),
    )


def sara_like_sizes() -> IntentSizes:
    """Widths of features and numbers of labels as Sara has them."""
    intents = SparseRows(torch.arange(32), torch.arange(32), torch.ones(32))
    return IntentSizes(token_features=11_975, sentence_features=11_951, intent_features=32, intents=intents, tags=41)


def sara_like_batch(generator: np.random.Generator, sizes: IntentSizes, messages: int = 160) -> IntentBatch:
    """Messages of 4.9 tokens on average and at most 24 (the longest of a batch has about 16), 28 features a token."""
    lengths = np.clip(1 + generator.negative_binomial(5, 5 / 8.9, messages), 1, 24).astype(np.int64)
    tokens, number = int(lengths.sum()), np.arange(messages)
    return IntentBatch(
        tokens=rows_of(generator, tokens, 28, sizes.token_features),
        sentences=rows_of(generator, messages, 28 * 8 // 3, sizes.sentence_features),
        layout=Layout.of(lengths + 1),
        token_rows=torch.from_numpy(np.arange(tokens) + np.repeat(number, lengths)),
        sentence_rows=torch.from_numpy(np.cumsum(lengths) + number),
        token_layout=Layout.of(lengths),
        intents=torch.from_numpy(generator.integers(0, sizes.intents.rows, messages)),
        tags=torch.from_numpy(generator.integers(0, sizes.tags, tokens)),
    )


def plain_losses(model: DIET, batch: IntentBatch) -> dict[str, Tensor]:
    """DIET's losses from ``model``'s weights, written without regard to speed."""
    training, drop = model.training, model.input_dropout.rate

    def project(rows: SparseRows, projection: SparseProjection) -> Tensor:
        values = rows.values
        if training and projection.dropout > 0:
            values = values * (torch.rand_like(values) >= projection.dropout)
        projected = F.embedding_bag(
            rows.indices, projection.weight, rows.offsets, mode="sum", per_sample_weights=values
        )
        return projected + projection.bias

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
    weights = [
        model.token_projection.weight,
        model.sentence_projection.weight,
        encoder.input.weight,
        model.text_embed.weight,
        model.label_projection.weight,
        model.label_embed.weight,
    ]
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
    batch, length, size = x.shape
    normed = layer.attention_norm(x)
    query, key, value = (
        project(normed).view(batch, length, attention.heads, -1).transpose(1, 2)
        for project in (attention.query, attention.key, attention.value)
    )
    logits = query @ key.transpose(2, 3) / math.sqrt(size // attention.heads)
    weights = (logits + torch.where(mask, 0.0, -1e9)[:, None, None, :]).softmax(3)
    attended = attention.output((weights @ value).transpose(1, 2).reshape(batch, length, size))
    x = x + F.dropout(attended, rate, training)
    hidden = F.gelu(layer.feed_forward.hidden(layer.feed_forward_norm(x)))
    return x + F.dropout(layer.feed_forward.output(F.dropout(hidden, rate, training)), rate, training)


def plain_similarity(messages: Tensor, intents: Tensor, labels: Tensor, count: int) -> Tensor:
    """Softmax over the positive and the four groups of negatives, each negative with its own embedding."""
    negative_labels = draw_negatives(len(messages), count, len(intents), messages.device)
    negative_inputs = draw_negatives(len(messages), count, len(messages), messages.device)
    other_intents, other_messages = intents[negative_labels], messages[negative_inputs]
    own_intents = intents[labels][:, None]
    bad_labels = (negative_labels == labels[:, None]) * -1e9
    bad_inputs = (labels[negative_inputs] == labels[:, None]) * -1e9
    own = messages[:, None]
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


def training_step(size: int, plain: bool, batches: list[IntentBatch]) -> Step:
    """Forward, backward and Adam, on the batches in turn."""
    torch.manual_seed(0)
    model = DIET(sara_like_sizes(), transformer_size=size)
    losses: Callable[[IntentBatch], dict[str, Tensor]] = partial(plain_losses, model) if plain else model
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7, foreach=False, fused=not plain)
    coming = cycle(batches)

    def step() -> None:
        torch.stack(list(losses(next(coming)).values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def shares(step: Step, steps: int) -> dict[str, float]:
    """Share of the processor's time by group of operations."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            step()
    events = profiler.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    found = dict.fromkeys([*GROUPS, "other"], 0.0)
    for event in events:
        group = next((name for name, keys in GROUPS.items() if event.key.startswith(keys)), "other")
        found[group] += event.self_cpu_time_total / total
    print(events.table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=45))
    return found


def main() -> None:
    """Measure, print and write."""
    given = parse(
        __doc__ or "", sizes=([256, 16], "transformer sizes"), threads=[1], seconds=(15.0, "for each row of the table")
    )
    generator = np.random.default_rng(0)
    batches = [sara_like_batch(generator, sara_like_sizes()) for _ in range(10)]
    rows, parts = [], dict[str, dict[str, Any]]()
    for threads in given.threads:
        torch.set_num_threads(threads)
        for size in given.sizes:
            steps = {name: training_step(size, name == "before", batches) for name in ("before", "after")}
            before, after = interleave(steps, given.seconds).values()
            own = f"{1e3 * before.median_processor:.1f} → {1e3 * after.median_processor:.1f}"
            rows.append(
                {
                    "threads": threads,
                    "U": size,
                    "before / after": f"{before.median / after.median:.2f}",
                    "before / after (processor)": f"{before.median_processor / after.median_processor:.2f}",
                    "before, ms": f"{before.milliseconds:.1f}",
                    "after, ms": f"{after.milliseconds:.1f}",
                    "(processor)": own,
                }
            )
            for name, step in steps.items():
                for group, share in shares(step, len(batches)).items():
                    column = f"U = {size}, {threads} thr., {name}"
                    parts.setdefault(group, {"operations": group})[column] = f"{share:.1%}"
    text = """
*Before* is the plain version of the step in that script, *after* is the model in the package with fused Adam; their
losses are the same. Synthetic batches of Sara's shape (160 messages, 4.9 tokens on average, 23,926 features in two
projections); medians of steps that alternate between the two in one process. Processor time counts all threads; it is
the steadier of the two on a machine that others use.
"""
    report(given.output, "One training step of DIET, before and after", text, rows)
    output = given.output and given.output.with_stem(f"{given.output.stem}_shares")
    text = (
        "Share of the step's time by what operations compute, as torch.profiler counts it; the steps are those of the "
    )
    report(output, "Where the time of a training step of DIET goes", f"{text}page before.", list(parts.values()))


if __name__ == "__main__":
    main()
