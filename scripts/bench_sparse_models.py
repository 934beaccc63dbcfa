"""Time whole training steps of models with sparse layers against dense ones, in float32 and bfloat16.

    OMP_WAIT_POLICY=passive python scripts/bench_sparse_models.py --output results/performance/sparse_models.md

A step is forward, backward and fused Adam, with everything that a run does between them for its scheme. DIET (U = 256)
has its default layers sparse and trains on synthetic batches of Sara's shape. The transformer (d_model 512, 2 + 2
layers) has every linear layer but the vocabulary projection sparse and trains on real sentences. The language model has
two sparse LSTM layers of 650 units and 10,000 words. bfloat16 is torch's autocast.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from bench_transformer import PAIRS, multi30k
from interleaved import Row, Step, bf16_is_native, interleave, parse, report
from profile_diet import sara_like_batch, sara_like_sizes
from torch import Tensor, nn

from sparse_bench.batch.language import IGNORED, LanguageSizes
from sparse_bench.models.diet import DIET
from sparse_bench.models.lstm_lm import LSTMLM
from sparse_bench.models.transformer import Transformer
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.sparsity.schemes.dense import Dense
from sparse_bench.sparsity.schemes.random import Random
from sparse_bench.streams import Streams
from sparse_bench.tasks.cross_entropy import mean_cross_entropy

DENSE, BF16 = "dense", "dense bf16"
WORDS = 10_000
#: Ways of computing sparse layers at every density, and those at the first alone.
EXECUTIONS, FURTHER = ("kernel", "kernel bf16"), ("auto", "auto bf16", "csr", "masked")
#: Makes a model and its loss.
Make = Callable[[], tuple[nn.Module, Callable[[Any], Tensor]]]


def training(
    make: Make, scheme: Scheme, batches: Sequence[Any], bf16: bool = False, **adam: Any
) -> tuple[Step, torch.optim.Optimizer]:
    """A step on each of the batches, as the trainer makes it under a scheme; and the optimizer."""
    torch.manual_seed(0)
    model, loss = make()
    scheme.attach(model, Streams(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True, **adam)
    number = 0

    def steps() -> None:
        nonlocal number
        for batch in batches:
            number += 1
            scheme.before_backward(number)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                total = loss(batch)
            total.backward()
            scheme.after_backward()
            optimizer.step()
            optimizer.zero_grad()
            scheme.after_step(number, optimizer, Streams(0))

    return steps, optimizer


def diet(count: int) -> tuple[Make, list[Any], list[str]]:
    """DIET, batches for it, and the layers that are sparse."""
    sizes, generator = sara_like_sizes(), np.random.default_rng(0)

    def make() -> tuple[nn.Module, Callable[[Any], Tensor]]:
        model = DIET(sizes, transformer_size=256)
        return model, lambda batch: torch.stack(list(model(batch).values())).sum()

    return make, [sara_like_batch(generator, sizes) for _ in range(count)], ["default"]


def transformer(count: int) -> tuple[Make, list[Any], list[str]]:
    """The same of the transformer."""
    task, batches = multi30k(count)

    def make() -> tuple[nn.Module, Callable[[Any], Tensor]]:
        model = Transformer(task.sizes)
        return model, lambda batch: task.loss(model, batch).total

    return make, batches.bucketed, ["everything"]


def lstm(count: int) -> tuple[Make, list[Any], list[str]]:
    """The same of a language model: chunks of 35 random words in 20 streams."""
    generator = torch.Generator().manual_seed(0)
    chunks = [torch.randint(WORDS, (36, 20), generator=generator) for _ in range(count)]

    def make() -> tuple[nn.Module, Callable[[Any], Tensor]]:
        model = LSTMLM(LanguageSizes(WORDS, (1,) * WORDS), embedding_dim=650, hidden=650)
        return model, lambda chunk: mean_cross_entropy(
            model(chunk[:-1], None).logits.flatten(0, 1), chunk[1:].flatten(), IGNORED
        )

    return make, chunks, ["recurrent"]


#: Name on the command line → title, and what makes model, batches and sparse layers.
MODELS: dict[str, tuple[str, Callable[[int], tuple[Make, list[Any], list[str]]]]] = {
    "diet": ("DIET, U = 256", diet),
    "transformer": ("transformer, Multi30k", transformer),
    "lstm": ("LSTM language model, 650 units", lstm),
}


def measure(
    title: str, problem: tuple[Make, list[Any], list[str]], densities: Sequence[float], seconds: float
) -> Iterator[Row]:
    """What share of the dense times each way of computing takes."""
    make, batches, layers = problem
    arms: dict[str, Step] = {
        name: training(make, Dense(layers=layers), batches, bf16=name == BF16)[0] for name in (DENSE, BF16)
    }
    for density in densities:
        for way in (*EXECUTIONS, *(FURTHER if density == densities[0] else ())):
            execution, _, bf16 = way.partition(" ")
            scheme = Random(density=density, layers=layers, execution=execution)
            arms[f"{way}, density {density:g}"] = training(make, scheme, batches, bf16=bool(bf16))[0]
    spent = interleave(arms, seconds)
    for name, times in spent.items():
        clock, quartiles = times.ratios(spent[DENSE], "clock")
        rival, of_rival = times.ratios(spent[BF16], "clock")
        processor, _ = times.ratios(spent[DENSE], "processor")
        yield {
            "model": title,
            "arm": name,
            "time / dense bf16": f"{statistics.median(rival):.2f}",
            "its quartiles": of_rival,
            "time / dense": f"{statistics.median(clock):.2f}",
            "quartiles": quartiles,
            "of processor time": f"{statistics.median(processor):.2f}",
            "ms a step": f"{times.milliseconds / len(batches):.1f}",
            "rounds": len(clock),
        }


def main() -> None:
    """Measure, print and write."""
    given = parse(
        __doc__ or "",
        models=list(MODELS),
        densities=[0.2, 0.05],
        batches=(4, "a turn; those of the transformer stand for its epoch"),
        seconds=(180.0, "for each model"),
        threads=torch.get_num_threads(),
    )
    rows: list[Row] = []
    for name in given.models:
        title, problem = MODELS[name]
        rows += measure(title, problem(given.batches), given.densities, given.seconds)
    native = "faster" if bf16_is_native(torch.device("cpu")) else "slower"
    text = f"""
Whole steps: forward, backward and fused Adam, in float32 or under bfloat16 autocast. On this processor products in
bfloat16 are {native} than in float32. The arms take turns, each in every round; a turn is one step on every batch.
Ratios are those of a round, median and quartiles over the rounds. Processor time counts all threads. DIET: its default
layers are sparse; {given.batches} synthetic batches of Sara's shape. Transformer: every linear layer but the vocabulary
projection is; {given.batches} batches of {PAIRS} sentence pairs of Multi30k, evenly spaced among all of its batches of
like length in order of size. LSTM: both layers are; {given.batches} chunks of 35 words in 20 streams.
"""
    report(given.output, "Training steps of whole models with sparse layers", text, rows)


if __name__ == "__main__":
    main()
