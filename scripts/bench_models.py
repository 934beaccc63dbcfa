"""Time training steps of whole models with sparse layers, a table at a time.

python scripts/bench_models.py sparse_models --models diet --batches 2 --seconds 20

A step is forward, backward and Adam, with everything that a scheme does in between. The models are made sparse by
`sparse_bench.sparsify`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from interleaved import Row, Step, Times, device_with_kernel, interleave, measure
from torch import Tensor, nn
from torch.nn import functional as F

import sparse_bench as sb
from sparse_bench.batch.language import IGNORED, LanguageSizes
from sparse_bench.batch.translation import TranslationBatch
from sparse_bench.data.multi30k import multi30k_brouns
from sparse_bench.data.sara_like import sara_like
from sparse_bench.models.diet import DIET
from sparse_bench.models.lstm_lm import LSTMLM
from sparse_bench.models.transformer import Transformer
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.streams import Streams
from sparse_bench.tasks.cross_entropy import mean_cross_entropy
from sparse_bench.tasks.intent import IntentTask
from sparse_bench.tasks.translation import TranslationTask

#: Loss of a model on a batch.
Loss = Callable[[Any, Any], Tensor]
WORDS = 10_000


def training_step(
    model: nn.Module,
    loss: Loss,
    batches: Sequence[Any],
    scheme: Scheme | None = None,
    bf16: bool = False,
    clip: float | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Step:
    """A step on each of the batches, with fused Adam by default, under a scheme if there is one."""
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    if scheme is not None:
        sb.sparsify(model, optimizer, scheme, steps=10**6)
    device = next(model.parameters()).device.type

    def steps() -> None:
        for batch in batches:
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                total = loss(model, batch)
            total.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()

    return steps


# ---- models, with their batches and sparse layers ----


def multi30k(count: int, bucketed: bool = True) -> tuple[TranslationTask, list[TranslationBatch]]:
    """The task, and batches of 64 pairs that stand for an epoch: evenly spaced among all in order of size."""
    task = TranslationTask(corpus=multi30k_brouns(), tokenizer="tokenised", min_count=5, bucketed=bucketed)
    batches = sorted((batch for batch in task.epoch_batches(0, Streams(0)) if len(batch.source) == 64), key=real_tokens)
    middles = (np.arange(count) + 0.5) * len(batches) / count
    return task, [batches[int(middle)] for middle in middles]


def real_tokens(batch: TranslationBatch) -> int:
    """Tokens of both sides that are no padding."""
    return int(batch.source_mask.sum()) + int(batch.target_lengths.sum())


def translation_loss(task: TranslationTask) -> Loss:
    """The task's own, on real tokens alone."""
    return lambda model, batch: task.loss(model, batch).total


def language_loss(model: nn.Module, words: Tensor) -> Tensor:
    """Cross-entropy of each next word."""
    logits = model(words[:-1], None).logits.flatten(0, 1)
    return mean_cross_entropy(logits, words[1:].flatten(), IGNORED)


#: What makes a model; its loss, batches, and sparse layers.
Problem = tuple[Callable[[], nn.Module], Loss, Sequence[Any], list[str]]


def diet(count: int, size: int = 256) -> Problem:
    """DIET with its default layers sparse."""
    task = IntentTask(corpus=sara_like, batch_epochs=1, batch_size=(160, 160))
    loss = lambda model, batch: torch.stack(list(model(batch).values())).sum()  # noqa: E731
    make = lambda: DIET(task.sizes, transformer_size=size)  # noqa: E731
    return make, loss, list(task.epoch_batches(0, Streams(0)))[:count], ["default"]


def transformer(count: int) -> Problem:
    """The Transformer with every linear layer sparse but the vocabulary projection."""
    task, batches = multi30k(count)
    return lambda: Transformer(task.sizes), translation_loss(task), batches, ["everything"]


def lstm(count: int) -> Problem:
    """A language model with two sparse LSTM layers; chunks of 35 random words in 20 streams."""
    sizes, draw = LanguageSizes(WORDS, (1,) * WORDS), torch.Generator().manual_seed(0)
    chunks = [torch.randint(WORDS, (36, 20), generator=draw) for _ in range(count)]
    return lambda: LSTMLM(sizes, embedding_dim=650, hidden=650), language_loss, chunks, ["recurrent"]


class GPT(nn.Module):
    """A pre-norm causal transformer in plain PyTorch, 10 million weights in its blocks; [B, T] → [B, T, 1000]."""

    def __init__(self, width: int = 408, context: int = 128) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(1000, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(5))
        self.head = nn.Linear(width, 1000)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of the next token."""
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        scores: Tensor = self.head(x)
        return scores


class Block(nn.Module):
    """Attention and feed-forward, each with a residual connection: [B, T, width] → [B, T, width]."""

    def __init__(self, width: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, width] → [B, T, width]."""
        query, key, value = self.attention(self.norms[0](x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(attended.transpose(1, 2).flatten(2))
        hidden: Tensor = x + self.down(F.gelu(self.up(self.norms[1](x))))
        return hidden


# ---- tables ----


def sparse_models(
    *,
    models: tuple[str, ...] = ("diet", "transformer", "lstm"),
    densities: tuple[float, ...] = (0.2, 0.05),
    batches: int = 4,
    seconds: float = 180.0,
    threads: int = torch.get_num_threads(),
) -> Iterator[Row | str]:
    """Training steps of whole models with sparse layers.

    Whole steps: forward, backward and fused Adam, in float32 or under bfloat16 autocast. The arms take turns, each in
    every round; a turn is one step on every batch. Ratios are those of a round, median and quartiles over the rounds.
    Processor time counts all threads. DIET: its default layers are sparse; batches of 160 messages of Sara-like.
    Transformer: every linear layer but the vocabulary projection is; batches of 64 sentence pairs of Multi30k, evenly
    spaced among all of its batches of like length in order of size. LSTM: both layers are; chunks of 35 words in 20
    streams.
    """
    known = {
        "diet": ("DIET, U = 256", diet),
        "transformer": ("transformer, Multi30k", transformer),
        "lstm": ("LSTM language model, 650 units", lstm),
    }
    ways = [(way, density) for density in densities for way in ("kernel", "kernel bf16")]
    ways += [(way, densities[0]) for way in ("auto", "auto bf16", "csr", "masked")]
    for title, make_problem in (known[name] for name in models):
        make, loss, data, layers = make_problem(batches)
        arms = {name: training_step(make(), loss, data, bf16="bf16" in name) for name in ("dense", "dense bf16")}
        for way, density in ways:
            scheme = sb.Random(density=density, layers=layers, execution=way.partition(" ")[0])
            arms[f"{way}, density {density:g}"] = training_step(make(), loss, data, scheme, bf16="bf16" in way)
        spent = interleave(arms, seconds)
        dense, rival = spent["dense"], spent["dense bf16"]
        for name, times in spent.items():
            yield {
                "model": title,
                "arm": name,
                "time / dense bf16": f"{times.over(rival):.2f}",
                "its quartiles": times.quartiles(rival),
                "time / dense": f"{times.over(dense):.2f}",
                "quartiles": times.quartiles(dense),
                "of processor time": f"{times.over(dense, 'processor'):.2f}",
                "ms a step": f"{times.ms() / batches:.1f}",
                "rounds": len(times.clock),
            }


def sparsify(*, seconds: float = 120.0, threads: int = torch.get_num_threads()) -> Iterator[Row | str]:
    """Training steps of a GPT that was made sparse by one call.

    Whole steps: forward, backward and fused Adam. The arms take turns. Ratios are those of a round to its dense step,
    by the clock, median and quartiles over the rounds. The blocks have 10 million weights; a batch is 16 sequences of
    128 tokens. `masked` and `kernel`: RigL at density 0.1.
    """
    tokens = [torch.randint(1000, (16, 129), generator=torch.Generator().manual_seed(0))]
    loss = lambda model, words: F.cross_entropy(model(words[:, :-1]).float().flatten(0, 1), words[:, 1:].flatten())  # noqa: E731
    arms = {name: training_step(GPT(), loss, tokens, bf16="bf16" in name) for name in ("dense", "dense bf16")}
    for way in ("masked", "kernel"):
        scheme = sb.RigL(density=0.1, layers=["blocks.*"], execution=way, interval=100)
        arms[way] = training_step(GPT(), loss, tokens, scheme)
    spent = interleave(arms, seconds)
    for arm, times in spent.items():
        yield {
            "arm": arm,
            "time / dense": f"{times.over(spent['dense']):.2f}",
            "quartiles": times.quartiles(spent["dense"]),
            "ms a step": f"{times.ms():.1f}",
            "rounds": len(times.clock),
        }


def sparse_lstm(*, hidden: int = 2500, seconds: float = 60.0, device: str = "cpu") -> Iterator[Row | str]:
    """A training step of SparseLang's LSTM, sparse against dense.

    Medians of interleaved steps: forward, backward, clipping and fused Adam in float32. 20 streams of 20 tokens; two
    layers of 2,500 units, and a factored head over 10,000 words.
    """
    place = device_with_kernel(device)
    words, embedded = torch.randint(WORDS, (21, 20)).to(place), torch.randn(20, 20, 600).to(place)

    def layers_alone(model: Any, x: Tensor) -> Tensor:
        for layer in model.layers:
            x, _ = layer(x)
        return x.square().mean()

    spent: list[dict[str, Times]] = []
    weights: dict[str, int] = {}
    for loss, batch in ((layers_alone, embedded), (language_loss, words)):
        arms = {}
        for density in (1.0, 0.0005, 0.001, 0.002, 0.005, 0.01):
            model = LSTMLM(LanguageSizes(WORDS, (1,) * WORDS), hidden=hidden, head="factored")
            sb.RandomFanIn(density=density, execution="kernel" if density < 1 else "masked").attach(model, Streams(0))
            arms[f"{density:g}"] = training_step(model.to(place), loss, [batch], clip=0.25)
            weights[f"{density:g}"] = sum(p.numel() for p in model.layers.parameters() if p.requires_grad)
        spent.append(interleave(arms, seconds))
    alone, whole = spent
    for name, count in weights.items():
        yield {
            "density": name,
            "LSTM weights": count,
            "times faster, LSTM layers alone": f"{alone['1'].over(alone[name]):.1f}",
            "times faster, whole model": f"{whole['1'].over(whole[name]):.1f}",
            "LSTM ms": f"{alone[name].ms():.1f}",
            "model ms": f"{whole[name].ms():.1f}",
        }


if __name__ == "__main__":
    measure(sparse_models, sparse_lstm, sparsify)
