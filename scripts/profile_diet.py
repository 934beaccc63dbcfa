"""Time one training step of DIET against a plain version of the same step, and see where its time goes.

The plain version is what one would write first: everything padded, torch's own dropout and embedding_bag gradients, a
logsumexp CRF left to autograd, an embedding for every sampled negative, Adam in a loop. Both work on the same weights
and give the same losses (the tests compare them); their steps alternate in one process.

    OMP_WAIT_POLICY=passive python scripts/profile_diet.py --threads 1 2 --markdown results/performance/diet_step.md

(Passive waiting matters where other programs use the cores: threads that spin at barriers then wait for each other
several times as long.)
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from sparse_bench.batch import IntentBatch, IntentSizes, Layout, SparseRows
from sparse_bench.environment import machine, versions
from sparse_bench.models.diet import DIET
from sparse_bench.models.rasa_transformer import EncoderLayer, sinusoids
from sparse_bench.models.similarity import draw_negatives
from sparse_bench.models.sparse_features import SparseProjection

#: Prefixes of the names of operations, by what they compute. The first group that fits counts; what fits none is
#: 'other' (element-wise arithmetic above all, that of dropout and of the looped Adam included).
GROUPS = {
    "matrix products": ("aten::addmm", "aten::mm"),
    "attention products": ("aten::bmm", "aten::baddbmm"),
    "attention softmax": ("aten::_softmax",),
    "sparse features": ("aten::_embedding_bag", "aten::sort", "_SparseTimesDense"),
    "optimizer": ("Optimizer.step", "aten::_fused_adam", "aten::lerp_", "aten::addcdiv_", "aten::sqrt"),
    "GELU": ("aten::gelu",),
    "random numbers": ("aten::bernoulli", "aten::random_", "aten::ge"),
    "norms": ("aten::native_layer_norm",),
    "moving rows": ("aten::index", "aten::gather", "aten::scatter", "aten::cat", "_Spread", "_Take"),
    "weight penalty": ("aten::dot", "aten::addcmul", "aten::pow"),
}


# ---- synthetic batches of Sara's shape ---------------------------------------------------------------------------


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


def make_batch(generator: np.random.Generator, sizes: IntentSizes, lengths: np.ndarray, nnz: int) -> IntentBatch:
    """A random batch of messages with these numbers of tokens and about ``nnz`` features a token."""
    lengths = np.asarray(lengths, dtype=np.int64)
    messages, tokens = len(lengths), int(lengths.sum())
    number = np.arange(messages)
    return IntentBatch(
        tokens=rows_of(generator, tokens, nnz, sizes.token_features),
        sentences=rows_of(generator, messages, nnz * 8 // 3, sizes.sentence_features),
        layout=Layout.of(lengths + 1),
        token_rows=torch.from_numpy(np.arange(tokens) + np.repeat(number, lengths)),
        sentence_rows=torch.from_numpy(np.cumsum(lengths) + number),
        token_layout=Layout.of(lengths),
        intents=torch.from_numpy(generator.integers(0, sizes.intents.rows, messages)),
        tags=torch.from_numpy(generator.integers(0, sizes.tags, tokens)),
    )


def sara_like_batch(generator: np.random.Generator, sizes: IntentSizes, messages: int = 160) -> IntentBatch:
    """Messages of 4.9 tokens on average and at most 24 (the longest of a batch has about 16), 28 features a token."""
    lengths = np.clip(1 + generator.negative_binomial(5, 5 / 8.9, messages), 1, 24)
    return make_batch(generator, sizes, lengths, 28)


# ---- the plain version -------------------------------------------------------------------------------------------


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


# ---- timing ------------------------------------------------------------------------------------------------------


@dataclass
class Side:
    """One way to make a training step."""

    model: DIET
    losses: Callable[[IntentBatch], dict[str, Tensor]]
    optimizer: torch.optim.Optimizer

    def step(self, batch: IntentBatch) -> None:
        """Forward, backward, update."""
        torch.stack(list(self.losses(batch).values())).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def sides(size: int) -> dict[str, Side]:
    """The plain version and DIET, each with its own weights and optimizer."""
    made = {}
    for name in ("before", "after"):
        torch.manual_seed(0)
        model = DIET(sara_like_sizes(), transformer_size=size)
        plain = name == "before"
        made[name] = Side(
            model,
            partial(plain_losses, model) if plain else model,
            torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7, foreach=False, fused=not plain),
        )
    return made


@dataclass
class Timing:
    """Median milliseconds of a step: by the clock, and of the processor's time (less disturbed by other programs)."""

    clock: float
    processor: float


def medians(made: dict[str, Side], batches: list[IntentBatch], steps: int) -> dict[str, Timing]:
    """The median step of each side; the sides take turns on the same batches."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
    for number in range(-3, steps):
        for name, side in made.items():
            clock, processor = time.perf_counter(), time.process_time()
            side.step(batches[number % len(batches)])
            if number >= 0:
                seconds[name].append((time.perf_counter() - clock, time.process_time() - processor))
    return {
        name: Timing(*(1e3 * statistics.median(values) for values in zip(*pairs, strict=True)))
        for name, pairs in seconds.items()
    }


def shares(side: Side, batches: list[IntentBatch]) -> tuple[dict[str, float], str]:
    """Share of the CPU time by group of operations, and torch's table of the longest ones."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for batch in batches:
            side.step(batch)
    events = profiler.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    found = dict.fromkeys([*GROUPS, "other"], 0.0)
    for event in events:
        group = next((name for name, keys in GROUPS.items() if event.key.startswith(keys)), "other")
        found[group] += event.self_cpu_time_total / total
    return found, events.table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=45)


def main() -> None:
    """Measure and print; with ``--markdown``, write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 16], help="transformer sizes")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="numbers of threads")
    parser.add_argument("--steps", type=int, default=30, help="measured steps of each side")
    parser.add_argument("--markdown", type=Path, help="file to write the table to")
    arguments = parser.parse_args()

    generator = np.random.default_rng(0)
    batches = [sara_like_batch(generator, sara_like_sizes()) for _ in range(10)]
    cases = []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for size in arguments.sizes:
            made = sides(size)
            timings = medians(made, batches, arguments.steps)
            print(f"threads {threads}, U = {size}: {timings}")
            share = {}
            for name, side in made.items():
                share[name], table = shares(side, batches)
                print(f"\n{name}: " + ", ".join(f"{k} {v:.0%}" for k, v in share[name].items()) + f"\n{table}")
            cases.append(Case(threads, size, timings, share))
    if arguments.markdown:
        arguments.markdown.parent.mkdir(parents=True, exist_ok=True)
        arguments.markdown.write_text(report(cases, arguments.steps))


@dataclass
class Case:
    """What was measured with one number of threads at one size; timings and shares of both sides."""

    threads: int
    size: int
    timings: dict[str, Timing]
    shares: dict[str, dict[str, float]]


def report(cases: list[Case], steps: int) -> str:
    """The tables as Markdown."""
    load = os.getloadavg()[1]
    host = machine(torch.device("cpu"))
    lines = [
        "# One training step of DIET, before and after",
        "",
        "Made by `OMP_WAIT_POLICY=passive python scripts/profile_diet.py --threads 1 2 --markdown FILE`.",
        "*Before* is the plain version of the step in that script, *after* is the model in the package with fused",
        "Adam; their losses are the same. Synthetic batches of Sara's shape (160 messages, 4.9 tokens on average,",
        f"23,926 features in two projections); medians of {steps} steps that alternate between the two in one process.",
        "Processor time counts all threads; it is the steadier of the two on a machine that others use.",
        "",
        f"{host['processor']}, {host['cores']} cores, with {load:.1f} programs running on them on average; the ratios",
        f"count, the milliseconds would be less on a quiet machine. torch {versions()['torch']}.",
        "",
        "| threads | U | before / after | before / after (processor) | before, ms | after, ms | (processor) |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for case in cases:
        before, after = case.timings["before"], case.timings["after"]
        lines.append(
            f"| {case.threads} | {case.size} | {before.clock / after.clock:.2f} "
            f"| {before.processor / after.processor:.2f} "
            f"| {before.clock:.1f} | {after.clock:.1f} | {before.processor:.1f} → {after.processor:.1f} |"
        )
    columns = [
        (f"U = {case.size}, {case.threads} thr., {name}", share)
        for case in cases
        for name, share in case.shares.items()
    ]
    lines += [
        "",
        "Share of the step's time (torch.profiler):",
        "",
        "| | " + " | ".join(title for title, _ in columns) + " |",
        "|:--|" + "--:|" * len(columns),
        *(
            f"| {group} | " + " | ".join(f"{share[group]:.1%}" for _, share in columns) + " |"
            for group in [*GROUPS, "other"]
        ),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
