"""Time whole training steps of two models with sparse layers against dense ones: DIET, and the transformer on Multi30k.

    OMP_WAIT_POLICY=passive python scripts/bench_sparse_models.py --output results/performance/sparse_models.md

A step is forward, backward and fused Adam, with everything that a run does between them for its scheme. DIET (U = 256)
has its default layers sparse and trains on synthetic batches of Sara's shape; the transformer (d_model 512, 2 + 2
layers) has every linear layer but the vocabulary projection sparse and trains on real sentences.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from bench_transformer import PAIRS, multi30k
from interleaved import Row, Step, interleave, parse, report
from profile_diet import sara_like_batch, sara_like_sizes
from torch import Tensor, nn

from sparse_bench.models.diet import DIET
from sparse_bench.models.transformer import Transformer
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.sparsity.schemes.dense import Dense
from sparse_bench.sparsity.schemes.random import Random
from sparse_bench.streams import Streams

EXECUTIONS = ("kernel", "auto", "csr", "masked")
#: Makes a model and its loss.
Make = Callable[[], tuple[nn.Module, Callable[[Any], Tensor]]]


def training(make: Make, scheme: Scheme, batches: Sequence[Any], **adam: Any) -> tuple[Step, torch.optim.Optimizer]:
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
            loss(batch).backward()
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


def measure(title: str, problem: tuple[Make, list[Any], list[str]], density: float, seconds: float) -> Iterator[Row]:
    """What share of the dense time each way of computing takes."""
    make, batches, layers = problem
    schemes: dict[str, Scheme] = {"dense": Dense(layers=layers)}
    for way in EXECUTIONS:
        schemes[f"{way}, density {density:g}"] = Random(density=density, layers=layers, execution=way)
    spent = interleave({name: training(make, scheme, batches)[0] for name, scheme in schemes.items()}, seconds)
    for name, times in spent.items():
        (clock, quartiles), (processor, of_processor) = (
            times.ratios(spent["dense"], of) for of in ("clock", "processor")
        )
        yield {
            "model": title,
            "arm": name,
            "time / dense": f"{statistics.median(clock):.2f}",
            "quartiles": quartiles,
            "of processor time": f"{statistics.median(processor):.2f}",
            "quartiles of it": of_processor,
            "ms a step": f"{times.milliseconds / len(batches):.1f}",
            "rounds": len(clock),
        }


def main() -> None:
    """Measure, print and write."""
    given = parse(
        __doc__ or "",
        models=["diet", "transformer"],
        density=0.2,
        batches=(8, "that stand for the transformer's epoch"),
        seconds=(180.0, "for each model"),
        threads=torch.get_num_threads(),
    )
    rows: list[Row] = []
    if "diet" in given.models:
        rows += measure("DIET, U = 256", diet(4), given.density, given.seconds)
    if "transformer" in given.models:
        rows += measure("transformer, Multi30k", transformer(given.batches), given.density, given.seconds)
    text = f"""
Whole steps: forward, backward and fused Adam in float32. The arms take turns, each in every round; a turn is one step
on every batch. Ratios are those of a round to its dense turn, median and quartiles over the rounds. Processor time
counts all threads. DIET: its default layers are sparse; 4 synthetic batches of Sara's shape. Transformer: every linear
layer but the vocabulary projection is; {given.batches} batches of {PAIRS} sentence pairs of Multi30k that stand for an
epoch, evenly spaced among all of its batches of like length in order of size.
"""
    report(given.output, "Training steps of whole models with sparse layers", text, rows)


if __name__ == "__main__":
    main()
