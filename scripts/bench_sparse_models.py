"""Time whole training steps of two models with sparse layers against dense ones: DIET, and the transformer on Multi30k.

    OMP_WAIT_POLICY=passive python scripts/bench_sparse_models.py --output results/performance/sparse_models.md

A step is forward, backward and fused Adam, with everything that a run does between them for its scheme. DIET (U = 256)
has its default layers sparse and trains on synthetic batches of Sara's shape; the transformer (d_model 512, 2 + 2
layers) has every linear layer but the vocabulary projection sparse and trains on real sentences, in batches of like
length that stand for an epoch: evenly spaced among all of its batches in order of size.

All arms compute in float32 and take turns in one process. Each turn is a step on every batch; a round is a turn of each
arm. What is reported are a round's ratios to its dense turn: their median and quartiles. With the variable above
OpenMP's threads sleep while they wait for work; otherwise they may spin, which counts as processor time.
"""

import argparse
import os
import statistics
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_transformer import Batches
from interleaved import Times, describe_machine, interleave, write
from profile_diet import sara_like_batch, sara_like_sizes
from torch import Tensor, nn

from sparse_bench.data.multi30k import multi30k_brouns
from sparse_bench.environment import tune_process
from sparse_bench.models.diet import DIET
from sparse_bench.models.transformer import Transformer
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.sparsity.schemes.dense import Dense
from sparse_bench.sparsity.schemes.random import Random
from sparse_bench.streams import Streams
from sparse_bench.tasks.translation import TranslationTask

DENSE, EXECUTIONS = "dense", ("kernel", "auto", "csr", "masked")
_BATCH, _ROUND = 64, 4

Step = Callable[[], None]


def training_step(
    model: nn.Module, scheme: Scheme, loss: Callable[[Any], Tensor], batches: Sequence[Any], count: int
) -> Step:
    """``count`` steps, on the batches in turn."""
    scheme.attach(model, Streams(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    remaining, number = cycle(batches), 0

    def step() -> None:
        nonlocal number
        for _ in range(count):
            number += 1
            optimizer.zero_grad()
            scheme.before_backward(number)
            loss(next(remaining)).backward()
            scheme.after_backward()
            optimizer.step()
            scheme.after_step(number, optimizer, Streams(0))

    return step


def schemes(density: float, layers: Sequence[str]) -> dict[str, Scheme]:
    """An arm for each way of computing."""
    sparse = {way: Random(density=density, layers=layers, execution=way) for way in EXECUTIONS}
    return {DENSE: Dense(layers=layers), **sparse}


def diet(density: float) -> dict[str, Step]:
    """Four steps of DIET."""
    sizes, generator = sara_like_sizes(), np.random.default_rng(0)
    batches = [sara_like_batch(generator, sizes) for _ in range(_ROUND)]
    arms = {}
    for name, scheme in schemes(density, ["default"]).items():
        torch.manual_seed(0)
        model = DIET(sizes, transformer_size=256)
        arms[name] = training_step(
            model, scheme, lambda batch, model=model: torch.stack(list(model(batch).values())).sum(), batches, _ROUND
        )
    return arms


def transformer(density: float, count: int) -> dict[str, Step]:
    """As many steps of the transformer as there are batches."""
    settings: dict[str, Any] = {"tokenizer": "tokenised", "min_count": 5, "batch_size": _BATCH}
    corpus = multi30k_brouns()
    tasks = {bucketed: TranslationTask(corpus=corpus, bucketed=bucketed, **settings) for bucketed in (False, True)}
    batches, task = Batches.of(tasks, count).bucketed, tasks[True]
    arms = {}
    for name, scheme in schemes(density, ["everything"]).items():
        torch.manual_seed(0)
        model = Transformer(task.sizes)
        arms[name] = training_step(
            model, scheme, lambda batch, model=model: task.loss(model, batch).total, batches, len(batches)
        )
    return arms


def rows(title: str, density: float, spent: dict[str, Times], steps: int) -> list[str]:
    """One line for each arm: what share of the dense time it takes."""
    dense = spent[DENSE]
    lines = []
    for name, times in spent.items():
        arm = name if name == DENSE else f"{name}, density {density:g}"
        # An arm that leaves out rounds leaves out the last ones, so equal places are of one round.
        clock = [arm_s / dense_s for arm_s, dense_s in zip(times.clock, dense.clock, strict=False)]
        processor = [arm_s / dense_s for arm_s, dense_s in zip(times.processor, dense.processor, strict=False)]
        lines.append(
            f"| {title} | {arm} | {statistics.median(clock):.2f} | {quartiles(clock)} "
            f"| {statistics.median(processor):.2f} | {quartiles(processor)} | {times.milliseconds / steps:.1f} "
            f"| {len(clock)} |"
        )
    return lines


def quartiles(ratios: Sequence[float]) -> str:
    """The first and the third one."""
    if len(ratios) < 2:
        return "–"
    first, _, third = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{first:.2f} to {third:.2f}"


def command() -> str:
    """What makes this table, with the environment variable that this process was given."""
    waiting = os.environ.get("OMP_WAIT_POLICY")
    variable = f"OMP_WAIT_POLICY={waiting} " if waiting else ""
    return f"{variable}python scripts/bench_sparse_models.py --output FILE"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=["diet", "transformer"], default=["diet", "transformer"])
    parser.add_argument("--density", type=float, default=0.2)
    parser.add_argument("--batches", type=int, default=8, help="batches that stand for the transformer's epoch")
    parser.add_argument("--seconds", type=float, default=180.0, help="for each model")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="Markdown file")
    arguments = parser.parse_args()
    tune_process()
    torch.set_num_threads(arguments.threads)

    lines: list[str] = []
    if "diet" in arguments.models:
        lines += rows(
            "DIET, U = 256", arguments.density, interleave(diet(arguments.density), arguments.seconds), _ROUND
        )
    if "transformer" in arguments.models:
        spent = interleave(transformer(arguments.density, arguments.batches), arguments.seconds)
        lines += rows("transformer, Multi30k", arguments.density, spent, arguments.batches)
    head = [
        "# Training steps of whole models with sparse layers",
        "",
        f"Made by `{command()}`. {describe_machine()}.",
        "",
        "Whole steps: forward, backward and fused Adam in float32. The arms take turns, each in every round; a turn is "
        "one step on every batch. Ratios are those of a round to its dense turn, median and quartiles over the rounds. "
        f"Processor time counts all threads. DIET: its default layers are sparse; {_ROUND} synthetic batches of Sara's "
        "shape. Transformer: every linear layer but the vocabulary projection is; "
        f"{arguments.batches} batches of {_BATCH} sentence pairs of Multi30k that stand for an epoch, evenly spaced "
        "among all of its batches of like length in order of size.",
        "",
        "| model | arm | time / dense | quartiles | of processor time | quartiles of it | ms a step | rounds |",
        "|:--|:--|--:|--:|--:|--:|--:|--:|",
    ]
    write("\n".join(head + lines) + "\n", arguments.output)


if __name__ == "__main__":
    main()
