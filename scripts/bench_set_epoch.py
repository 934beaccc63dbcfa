"""What SET adds to an epoch of the Transformer: training steps and the rewiring after them, against the dense arm's.

The arms are those of the report on SET in the Transformer (d_model 512, 2 + 2 layers, 64 pairs a batch, ε = 20 on the
queries, keys and values of the encoder), on real batches that stand for an epoch. A whole step's ratio to the dense
arm's is measured. So small a difference drowns in what else a machine does: the time within the scheme's own calls is
measured too. The rewiring with its diagnostics happens once an epoch; its share of a step is reckoned with the epoch's
454 steps. All times are processor time of all threads.

    python scripts/bench_set_epoch.py --output results/performance/set_epoch.md
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench_sparse_models import training
from bench_transformer import multi30k
from interleaved import interleave, parse, report

from sparse_bench.models.transformer import Transformer
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.sparsity.schemes.dense import Dense
from sparse_bench.sparsity.schemes.set import SET
from sparse_bench.streams import Streams


@dataclass
class Clocked:
    """A function, and the seconds of processor time that each of its calls took."""

    work: Callable[..., Any]
    seconds: list[float] = field(default_factory=list)

    def __call__(self, *arguments: Any) -> None:
        begin = time.process_time()
        self.work(*arguments)
        self.seconds.append(time.process_time() - begin)


def main() -> None:
    """Measure, print and write."""
    given = parse(
        __doc__ or "",
        batches=(3, "of a round, for each arm"),
        seconds=90.0,
        threads=1,
        executions=(["masked", "kernel"], "of the arms with SET"),
    )
    task, chosen = multi30k(given.batches)
    batches = chosen.bucketed
    steps = task.epoch_steps(0, Streams(0))
    schemes: dict[str, Scheme] = {"dense": Dense(), "dense, Adam begins anew": Dense()}
    layers = ["encoder_self_attention_qkv"]
    schemes |= {f"SET, {way}": SET(epsilon=20, layers=layers, execution=way) for way in given.executions}
    rounds, hooks, ends = {}, {}, {}
    for name, scheme in schemes.items():
        hooks[name] = [Clocked(getattr(scheme, call)) for call in ("before_backward", "after_backward", "after_step")]
        for call in hooks[name]:
            setattr(scheme, call.work.__name__, call)
        model = Transformer(task.sizes)
        adam = {"betas": (0.9, 0.98), "eps": 1e-9}
        loss = lambda batch, model=model: task.loss(model, batch).total  # noqa: E731
        rounds[name], optimizer = training(lambda model=model, loss=loss: (model, loss), scheme, batches, **adam)

        def end(scheme: Scheme = scheme, optimizer: Any = optimizer, reset: bool = "anew" in name) -> None:
            scheme.at_epoch_end(0, False, optimizer, Streams(0))
            scheme.topology()
            if reset:  # which is what the report's transfer of weights comes to
                optimizer.state.clear()

        ends[name] = Clocked(end)
    spent = interleave(rounds, given.seconds, before=ends)
    base = spent["dense"].median_processor / len(batches)
    rows = []
    for name, times in spent.items():
        ratios, quartiles = times.ratios(spent["dense"])
        middle = statistics.median(ratios)
        # Of each, what came before the first measured round warms up.
        call = sum(statistics.median(hook.seconds[len(batches) :]) for hook in hooks[name])
        at_end = statistics.median(ends[name].seconds[1:])
        same_products = schemes[name].execution == "masked" and "anew" not in name  # making moments is part of a step
        rows.append(
            {
                "arm": name,
                "epoch over dense, whole steps": f"{middle + at_end / steps / base:.3f}",
                "epoch over dense, reckoned": f"{(base + call + at_end / steps) / base:.4f}" if same_products else None,
                "whole steps": f"{middle:.3f} ({quartiles.replace(' to ', '–') or 'one round'})",
                "ms a step": f"{1e3 * times.median_processor / len(batches):.1f}",
                "scheme's calls, ms a step": f"{1e3 * call:.2f}",
                "epoch end, ms": f"{1e3 * at_end:.1f}",
            }
        )
    text = f"""
    {len(spent["dense"].clock)} rounds of {len(batches)} batches, the arms in turn; an epoch has {steps} steps.
    Processor time of all threads. *Whole steps* are medians of the rounds' ratios to the dense arm, with their
    quartiles; *reckoned* is the dense step with the scheme's own calls and its share of the epoch's end added, for
    arms whose products are the dense arm's.
    """
    report(given.output, "An epoch with SET against a dense one", text, rows)


if __name__ == "__main__":
    main()
