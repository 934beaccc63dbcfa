"""Time one training step of a bag-of-embeddings classifier: row-sparse gradients against dense ones.

A step is forward, backward, the optimizer's step and clearing the gradients, on a table of V × D, a batch of bags of
Zipf-distributed tokens, a linear layer and a softmax over five classes. The table names two dense forms, torch's
default and its fused one, and torch's own sparse gradients where they exist.

    python scripts/bench_embeddings.py --vocabulary 30000 --dim 300 --batch 64 --tokens 20
    python scripts/bench_embeddings.py --vocabulary 10000 30000 100000 300000 1000000 3000000 --dim 64 \\
        --output results/performance/embeddings_vocabulary.md

The second line draws the curve over the vocabulary; all arms are in memory at once, 13 GiB with Adam at the largest.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from interleaved import Row, Step, interleave, parse, report
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from sparse_bench.row_sparse import RowSparseUpdates, make_row_sparse

#: A dense gradient and the optimizer's default form; the fused form; torch's sparse gradient and optimizer; ours.
DEFAULT, FUSED, TORCH_SPARSE, EXACT, LAZY = "dense", "dense fused", "torch sparse", "exact", "lazy"
ARMS = (DEFAULT, FUSED, TORCH_SPARSE, EXACT, LAZY)
COLUMNS = dict(zip(ARMS, ("dense", "fused", TORCH_SPARSE, EXACT, LAZY), strict=True))
CLASSES = 5
_BATCHES = 40

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": lambda parameters, **form: torch.optim.SGD(parameters, lr=0.1, **form),
    "adagrad": lambda parameters, **form: torch.optim.Adagrad(parameters, lr=0.1, **form),
    "adam": lambda parameters, **form: torch.optim.Adam(parameters, lr=1e-3, **form),
    "adamw": lambda parameters, **form: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01, **form),
    "rmsprop": lambda parameters, **form: torch.optim.RMSprop(parameters, lr=1e-3, **form),
}
#: Tables of moments that each keeps, as large as the embedding table.
MOMENTS = {"sgd": 0, "adagrad": 1, "adam": 2, "adamw": 2, "rmsprop": 1}
#: Without a fused form in torch.
NOT_FUSED = ("rmsprop",)


@dataclass(frozen=True)
class Problem:
    """Sizes of the table and of a batch."""

    vocabulary: int
    dim: int
    batch: int
    tokens: int


class Classifier(nn.Module):
    """Mean of embeddings, then a linear layer."""

    def __init__(self, problem: Problem, sparse: bool) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(problem.vocabulary, problem.dim, mode="mean", sparse=sparse)
        self.output = nn.Linear(problem.dim, CLASSES)

    def forward(self, words: Tensor, offsets: Tensor) -> Tensor:
        """Logits [B, classes]."""
        logits: Tensor = self.output(self.table(words, offsets))
        return logits


def make_batches(problem: Problem, seed: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Words (p ∝ 1 / rank, the ranks spread over the table), offsets and labels of each batch."""
    draw = np.random.default_rng(seed)
    shares = 1.0 / np.arange(1, problem.vocabulary + 1)
    borders = np.cumsum(shares / shares.sum())
    rows = draw.permutation(problem.vocabulary)
    words = problem.batch * problem.tokens
    offsets = torch.arange(0, words, problem.tokens)
    return [
        (
            torch.from_numpy(rows[np.searchsorted(borders[:-1], draw.random(words))]),
            offsets,
            torch.from_numpy(draw.integers(0, CLASSES, problem.batch)),
        )
        for _ in range(_BATCHES)
    ]


def make_arm(
    problem: Problem, optimizer: str, arm: str, batches: list[tuple[Tensor, Tensor, Tensor]]
) -> tuple[Step, Callable[[], None]]:
    """A step that has reached its pace, on the batches in turn; and what brings all rows up to date."""
    torch.manual_seed(0)
    model = Classifier(problem, sparse=arm == TORCH_SPARSE)
    if arm in (EXACT, LAZY):
        make_row_sparse(model, "table.weight", exact=arm == EXACT)
    # The rows of a batch are few and small weights: what matters for them is the number of calls.
    form = {"fused": True} if arm not in (DEFAULT, TORCH_SPARSE) and optimizer not in NOT_FUSED else {}
    if arm == TORCH_SPARSE and optimizer == "adam":
        rest = torch.optim.Adam(model.output.parameters(), lr=1e-3, fused=True)
        optimizers: list[Optimizer] = [torch.optim.SparseAdam(model.table.parameters(), lr=1e-3), rest]
    else:
        optimizers = [OPTIMIZERS[optimizer](model.parameters(), **form)]
    updates = RowSparseUpdates(optimizers[0], model)
    coming = cycle(batches)

    def step() -> None:
        words, offsets, labels = next(coming)
        torch.autograd.backward(F.cross_entropy(model(words, offsets), labels))
        for one in optimizers:
            one.step()
        for one in optimizers:
            one.zero_grad()

    for _ in range((updates.dense_steps.get("table.weight") or 0) + 2):
        step()
    return step, updates.flush


def available(optimizer: str, arm: str) -> bool:
    """Whether torch has this form of this optimizer."""
    if arm == FUSED:
        return optimizer not in NOT_FUSED
    return arm != TORCH_SPARSE or optimizer in ("sgd", "adagrad", "adam")


def bytes_needed(problem: Problem, optimizer: str) -> int:
    """Memory for all arms at once: weights and moments of each, one dense gradient, and what a dense step makes."""
    arms = sum(available(optimizer, arm) for arm in ARMS)
    return (arms * (1 + MOMENTS[optimizer]) + 3) * problem.vocabulary * problem.dim * 4


def bytes_free() -> int | None:
    """Memory that is free on this machine; None where it does not say."""
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), None)


def measure(problem: Problem, optimizer: str, seconds: float) -> Iterator[dict[str, Any]]:
    """A row for each arm of one optimizer."""
    batches = make_batches(problem, 0)
    arms = {name: make_arm(problem, optimizer, name, batches) for name in ARMS if available(optimizer, name)}
    spent = interleave({name: step for name, (step, _) in arms.items()}, seconds)
    default = spent[DEFAULT].median
    fused = spent.get(FUSED, spent[DEFAULT]).median
    begin = time.perf_counter()
    arms[EXACT][1]()
    flush = 1e3 * (time.perf_counter() - begin)
    for name, times in spent.items():
        yield {
            **asdict(problem),
            "optimizer": optimizer,
            "arm": name,
            "median_ms": times.milliseconds,
            "least_ms": times.least,
            "repetitions": len(times.clock),
            "against_default": default / times.median,
            "against_fused": fused / times.median,  # of the default form where torch has no fused one
            "time_saved": 1 - times.median / default,
            "flush_ms": flush if name == EXACT else None,
        }


def view(rows: pd.DataFrame) -> Iterator[Row]:
    """Milliseconds of each arm, and how many times faster than the two dense forms ours are."""
    for (words, dim, batch, tokens, optimizer), part in rows.groupby(
        ["vocabulary", "dim", "batch", "tokens", "optimizer"], sort=False
    ):
        arms = part.set_index("arm").to_dict("index")
        yield {
            "V × D": f"{words:,} × {dim}",
            "batch × words": f"{batch} × {tokens}",
            "optimizer": optimizer,
            **{COLUMNS[arm]: f"{arms[arm]['median_ms']:.2f}" if arm in arms else None for arm in ARMS},
            **{
                f"{arm} ×": f"{arms[arm]['against_default']:.1f} / {arms[arm]['against_fused']:.1f}"
                for arm in (EXACT, LAZY)
            },
            "flush": f"{arms[EXACT]['flush_ms']:.0f}",
        }


TEXT = """
Mean of embeddings, linear layer, softmax over five classes; Zipf-distributed words. Forward, backward, the optimizer's
step and clearing the gradients: medians of interleaved repetitions, in milliseconds. `exact` has the trajectory of the
dense optimizer, `lazy` leaves rows without a gradient alone. `×`: how many times as fast as the dense step in torch's
default form / in its fused form (in its default form again where torch has no fused one). `flush`: bringing all rows
up to date in the exact form, before an evaluation and every 1,024 steps or more. The process keeps its memory, as in
this project's runs: where the C library takes a dense gradient from the system anew in every step, as it does by
itself from 32 MiB on, dense steps take longer.
"""


def main() -> None:
    """Measure, print and write."""
    given = parse(
        __doc__ or "",
        vocabulary=[30_000],
        dim=[300],
        batch=[64],
        tokens=([20], "words of an example"),
        optimizers=["adam", "adagrad", "sgd"],
        threads=1,
        seconds=(10.0, "for each row of the table"),
    )
    problems = [Problem(*sizes) for sizes in product(given.vocabulary, given.dim, given.batch, given.tokens)]
    free = bytes_free()
    for problem, optimizer in product(problems, given.optimizers):
        needed = bytes_needed(problem, optimizer)
        if free is not None and needed > free:
            raise SystemExit(
                f"{problem.vocabulary:,} × {problem.dim} with {optimizer} needs {needed / 2**30:.0f} GiB for all arms, "
                f"and {free / 2**30:.0f} GiB are free. Take a smaller --dim or --vocabulary."
            )
    rows: list[dict[str, Any]] = []
    for problem, optimizer in product(problems, given.optimizers):
        rows += measure(problem, optimizer, given.seconds)
    axes = {"vocabulary": given.vocabulary, "dimension": given.dim}
    by = " and ".join(name for name, values in axes.items() if len(values) > 1)
    title = "One training step of a bag of embeddings" + (f", by {by}" if by else "")
    report(given.output, title, TEXT, rows, view=view)


if __name__ == "__main__":
    main()
