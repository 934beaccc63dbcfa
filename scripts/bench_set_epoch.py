"""What SET adds to an epoch of the Transformer: training steps and the rewiring after them, against the dense arm's.

The arms are those of the report on SET in the Transformer (d_model 512, 2 + 2 layers, 64 pairs a batch, ε = 20 on the
queries, keys and values of the encoder). They take turns, batch by batch, on real batches that stand for an epoch. A
whole step's ratio to the dense arm's is measured, and beside it, since so small a difference drowns in what else a
machine does, the time within the scheme's own calls alone. The rewiring with its diagnostics happens once an epoch;
how much of it falls to a step is reckoned with the epoch's 454 steps. All times are processor time of all threads.

    python scripts/bench_set_epoch.py --output results/performance/set_epoch.md
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from bench_transformer import Batches
from interleaved import describe_machine, write

from sparse_bench.batch.translation import TranslationBatch
from sparse_bench.data.multi30k import multi30k_brouns
from sparse_bench.environment import tune_process
from sparse_bench.models.transformer import Transformer
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.sparsity.schemes.dense import Dense
from sparse_bench.sparsity.schemes.set import SET
from sparse_bench.streams import Streams
from sparse_bench.tasks.translation import TranslationTask

_STREAMS = Streams(0)


@dataclass
class Arm:
    """A model in training under a scheme, and what it has taken so far, in seconds of processor time.

    Attributes:
        scheme: attached to the model.
        reset: Adam begins anew after every epoch, which is what the report's transfer of weights comes to.
        rounds: of each round's steps.
        hooks: within the scheme's calls of each round.
        ends: of each epoch end: rewiring, optimizer moments, diagnostics.
    """

    scheme: Scheme
    task: TranslationTask
    reset: bool = False
    rounds: list[float] = field(default_factory=list)
    hooks: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model = Transformer(self.task.sizes)
        self.scheme.attach(self.model, _STREAMS)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9, fused=True)
        self.steps = 0

    def begin_round(self) -> None:
        """The steps to come are another round."""
        self.rounds.append(0.0)
        self.hooks.append(0.0)

    def step(self, batch: TranslationBatch, measured: bool = True) -> None:
        """One training step as the trainer makes it."""
        self.steps += 1
        begin, hooks = time.process_time(), 0.0
        hooks += spent(lambda: self.scheme.before_backward(self.steps))
        self.task.loss(self.model, batch).total.backward()
        hooks += spent(self.scheme.after_backward)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        hooks += spent(lambda: self.scheme.after_step(self.steps, self.optimizer, _STREAMS))
        if measured:
            self.rounds[-1] += time.process_time() - begin
            self.hooks[-1] += hooks

    def end_epoch(self, measured: bool = True) -> None:
        """What the scheme does after an epoch, and what is written down of it."""

        def end() -> None:
            self.scheme.at_epoch_end(0, False, self.optimizer, _STREAMS)
            self.scheme.topology()
            if self.reset:
                self.optimizer.state.clear()

        seconds = spent(end)
        if measured:
            self.ends.append(seconds)


def spent(work: Callable[[], object]) -> float:
    """Seconds of processor time that ``work`` takes."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def report(arms: dict[str, Arm], batches: int, steps: int) -> str:
    """The table, each arm against the first."""
    dense = next(iter(arms.values()))
    base = statistics.median(dense.rounds) / batches
    lines = [
        "# An epoch with SET against a dense one",
        "",
        f"{describe_machine()}. {len(dense.rounds)} rounds "
        f"of {batches} batches, the arms in turn; an epoch has {steps} steps. Processor time of all threads. *Whole "
        "steps* are medians of the rounds' ratios to the dense arm, with their quartiles; *reckoned* is the dense step "
        "with the scheme's own calls and its share of the epoch's end added, for arms whose products are the dense "
        "arm's.",
        "",
        "| arm | epoch over dense, whole steps | epoch over dense, reckoned | whole steps | ms a step "
        "| scheme's calls, ms a step | epoch end, ms |",
        "|:--|--:|--:|--:|--:|--:|--:|",
    ]
    for name, arm in arms.items():
        ratios = [own / other for own, other in zip(arm.rounds, dense.rounds, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        hooks, end = statistics.median(arm.hooks) / batches, statistics.median(arm.ends)
        masked = arm.scheme.execution == "masked" and not arm.reset  # making the moments again is part of a step
        reckoned = f"{(base + hooks + end / steps) / base:.4f}" if masked else "–"
        lines.append(
            f"| {name} | {middle + end / steps / base:.3f} | {reckoned} | {middle:.3f} ({low:.3f}–{high:.3f}) "
            f"| {1e3 * statistics.median(arm.rounds) / batches:.1f} | {1e3 * hooks:.2f} | {1e3 * end:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=3, help="batches of a round, for each arm")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--executions", nargs="+", default=["masked", "kernel"], help="of the arms with SET")
    parser.add_argument("--output", type=Path, help="Markdown file")
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error("--rounds must be at least 2: a spread is told")
    tune_process()
    torch.set_num_threads(arguments.threads)
    corpus = multi30k_brouns()
    tasks = {
        bucketed: TranslationTask(corpus=corpus, tokenizer="tokenised", min_count=5, bucketed=bucketed)
        for bucketed in (False, True)
    }
    task = tasks[True]
    batches = Batches.of(tasks, arguments.batches).bucketed
    arms = {"dense": Arm(Dense(), task), "dense, Adam begins anew": Arm(Dense(), task, reset=True)}
    for execution in arguments.executions:
        layers = ["encoder_self_attention_qkv"]
        arms[f"SET, {execution}"] = Arm(SET(epsilon=20, layers=layers, execution=execution), task)
    for arm in arms.values():  # warm-up
        arm.step(batches[0], measured=False)
        arm.end_epoch(measured=False)
    for number in range(arguments.rounds):
        for arm in arms.values():
            arm.begin_round()
        for batch in batches:
            for arm in arms.values():
                arm.step(batch)
        for arm in arms.values():
            arm.end_epoch()
        print(f"round {number + 1}", *(f"{name}: {arm.rounds[-1]:.2f} s" for name, arm in arms.items()), flush=True)
    write(report(arms, len(batches), task.epoch_steps(0, _STREAMS)), arguments.output)


if __name__ == "__main__":
    main()
