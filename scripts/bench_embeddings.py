"""Time one training step of a bag-of-embeddings classifier: row-sparse gradients against dense ones.

A step is forward, backward, the optimizer's step and clearing the gradients, on a table of V × D, a batch of bags of
Zipf-distributed tokens, a linear layer and a softmax over five classes. All arms of an optimizer are run in turn, in
random order, in one process, so that what else happens on the machine hits all of them alike; the figures are ratios of
medians. An honest table names two dense forms, torch's default and its fused one, and torch's own sparse gradients
where they exist.

Writes a table in Markdown that describes the machine, and a tidy CSV file beside it.

    python scripts/bench_embeddings.py --vocabulary 30000 --dim 300 --batch 64 --tokens 20
    python scripts/bench_embeddings.py --vocabulary 10000 30000 100000 300000 1000000 3000000 --dim 64 \\
        --output results/performance/embeddings_vocabulary.md

The second line draws the curve over the vocabulary; all arms are in memory at once, 13 GiB with Adam at the largest.
"""

import argparse
import csv
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path

import numpy as np
import torch
from interleaved import describe_machine
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from sparse_bench.environment import tune_process
from sparse_bench.row_sparse import RowSparseUpdates, make_row_sparse

#: A dense gradient and the optimizer's default form; the fused form; torch's sparse gradient and optimizer; ours.
DEFAULT, FUSED, TORCH_SPARSE, EXACT, LAZY = "dense", "dense fused", "torch sparse", "exact", "lazy"
ARMS = (DEFAULT, FUSED, TORCH_SPARSE, EXACT, LAZY)
CLASSES = 5
_BATCHES = 40
_LEAST_ROUNDS = 5

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

Step = Callable[[int], None]


@dataclass(frozen=True)
class Problem:
    """Sizes of the table and of a batch."""

    vocabulary: int
    dim: int
    batch: int
    tokens: int


@dataclass(frozen=True)
class Timing:
    """One arm on one problem."""

    vocabulary: int
    dim: int
    batch: int
    tokens: int
    optimizer: str
    arm: str
    median_ms: float
    least_ms: float
    repetitions: int
    against_default: float  # median of the default dense form divided by this one's
    against_fused: float  # and of the fused one; of the default one where torch has no fused one
    time_saved: float  # share of the default dense form's median that this one does not need


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


@dataclass
class Arm:
    """One way of training: a function that takes step number n, and what it has to do before it is at its pace."""

    step: Step
    warm_up: int
    #: Brings all rows up to date, in the exact form.
    flush: Callable[[], None] | None = None


def make_arm(problem: Problem, optimizer: str, arm: str, batches: list[tuple[Tensor, Tensor, Tensor]]) -> Arm:
    """A model of its own with its optimizer."""
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

    def step(number: int) -> None:
        words, offsets, labels = batches[number % len(batches)]
        torch.autograd.backward(F.cross_entropy(model(words, offsets), labels))
        for one in optimizers:
            one.step()
        for one in optimizers:
            one.zero_grad()

    dense_steps = updates.dense_steps.get("table.weight") or 0
    return Arm(step, dense_steps + 2, updates.flush if arm == EXACT else None)


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


def measure(problem: Problem, optimizer: str, seconds: float, seed: int) -> tuple[list[Timing], float]:
    """Timings of all arms of one optimizer, and milliseconds of bringing all rows up to date in the exact form."""
    batches = make_batches(problem, seed)
    arms = {name: make_arm(problem, optimizer, name, batches) for name in ARMS if available(optimizer, name)}
    for arm in arms.values():
        for number in range(arm.warm_up):
            arm.step(number)
    spent: dict[str, list[float]] = {name: [] for name in arms}
    began, rounds, order = time.perf_counter(), 0, random.Random(seed)
    while rounds < _LEAST_ROUNDS or time.perf_counter() - began < seconds:
        # In another order every time: each arm finds the caches as the one before it leaves them.
        for name in order.sample(list(arms), len(arms)):
            begin = time.perf_counter()
            arms[name].step(rounds)
            spent[name].append(time.perf_counter() - begin)
        rounds += 1
    medians = {name: statistics.median(times) for name, times in spent.items()}
    fused = medians.get(FUSED, medians[DEFAULT])
    timings = [
        Timing(
            **asdict(problem),
            optimizer=optimizer,
            arm=name,
            median_ms=1e3 * medians[name],
            least_ms=1e3 * min(times),
            repetitions=len(times),
            against_default=medians[DEFAULT] / medians[name],
            against_fused=fused / medians[name],
            time_saved=1 - medians[name] / medians[DEFAULT],
        )
        for name, times in spent.items()
    ]
    flush = arms[EXACT].flush
    assert flush is not None
    begin = time.perf_counter()
    flush()
    return timings, 1e3 * (time.perf_counter() - begin)


def table(timings: list[Timing], flushes: dict[tuple[Problem, str], float]) -> str:
    """Milliseconds of each arm, and how many times faster than the two dense forms ours are."""
    several = {
        "vocabulary": len({timing.vocabulary for timing in timings}) > 1,
        "dimension": len({timing.dim for timing in timings}) > 1,
    }
    by = " and ".join(name for name, varies in several.items() if varies)
    lines = [
        "# One training step of a bag of embeddings" + (f", by {by}" if by else ""),
        "",
        f"{describe_machine()}.",
        "",
        "Mean of embeddings, linear layer, softmax over five classes; Zipf-distributed words. Forward, backward, the "
        "optimizer's step and clearing the gradients: medians of interleaved repetitions, in milliseconds. `exact` has "
        "the trajectory of the dense optimizer, `lazy` leaves rows without a gradient alone. `×`: how many times as "
        "fast as the dense step in torch's default form / in its fused form (in its default form again where torch has "
        "no fused one). `flush`: bringing all rows up to date in the exact form, before an evaluation and every 1,024 "
        "steps or more. The process keeps its memory, as in this project's runs: where the C library takes a dense "
        "gradient from the system anew in every step, as it does by itself from 32 MiB on, dense steps take longer.",
        "",
        "| V × D | batch × words | optimizer | dense | fused | torch sparse | exact | lazy | exact × | lazy × | "
        "flush |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    cells: dict[tuple[Problem, str], dict[str, Timing]] = {}
    for t in timings:
        problem = Problem(t.vocabulary, t.dim, t.batch, t.tokens)
        cells.setdefault((problem, t.optimizer), {})[t.arm] = t
    for (problem, optimizer), arms in cells.items():
        milliseconds = [f"{arms[name].median_ms:.2f}" if name in arms else "—" for name in ARMS]
        ratios = [f"{arms[name].against_default:.1f} / {arms[name].against_fused:.1f}" for name in (EXACT, LAZY)]
        sizes = f"{problem.vocabulary:,} × {problem.dim} | {problem.batch} × {problem.tokens}"
        flush = f"{flushes[problem, optimizer]:.0f}"
        lines.append(f"| {sizes} | {optimizer} | {' | '.join([*milliseconds, *ratios, flush])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", nargs="+", type=int, default=[30_000])
    parser.add_argument("--dim", nargs="+", type=int, default=[300])
    parser.add_argument("--batch", nargs="+", type=int, default=[64])
    parser.add_argument("--tokens", nargs="+", type=int, default=[20], help="words of an example")
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=["adam", "adagrad", "sgd"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each row of the table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("results/performance/embeddings"), help="without suffix")
    arguments = parser.parse_args()
    tune_process()
    torch.set_num_threads(arguments.threads)

    problems = [
        Problem(*sizes) for sizes in product(arguments.vocabulary, arguments.dim, arguments.batch, arguments.tokens)
    ]
    free = bytes_free()
    for problem, optimizer in product(problems, arguments.optimizers):
        needed = bytes_needed(problem, optimizer)
        if free is not None and needed > free:
            parser.error(
                f"{problem.vocabulary:,} × {problem.dim} with {optimizer} needs {needed / 2**30:.0f} GiB for all arms, "
                f"and {free / 2**30:.0f} GiB are free. Take a smaller --dim or --vocabulary."
            )

    timings: list[Timing] = []
    flushes: dict[tuple[Problem, str], float] = {}
    for problem in problems:
        for optimizer in arguments.optimizers:
            measured, flushes[problem, optimizer] = measure(problem, optimizer, arguments.seconds, arguments.seed)
            timings += measured
            print(problem, optimizer, ", ".join(f"{t.arm} {t.median_ms:.2f} ms" for t in measured), flush=True)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Timing)])
        writer.writeheader()
        writer.writerows(asdict(timing) for timing in timings)
    arguments.output.with_suffix(".md").write_text(table(timings, flushes))
    print(table(timings, flushes))


if __name__ == "__main__":
    main()
