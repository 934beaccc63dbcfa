"""Time training steps of a bag-of-embeddings classifier: row-sparse gradients against dense ones.

python scripts/bench_embeddings.py embeddings --vocabulary 10000 30000 --dim 64 --seconds 2

All arms of a row are in memory at once; at three million words that is 13 GiB with Adam.
"""

from collections.abc import Callable, Iterator
from itertools import cycle, product
from typing import Any

import numpy as np
import torch
from interleaved import Row, Step, Times, interleave, measure, timed
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from sparse_bench.row_sparse import RowSparseUpdates, make_row_sparse

#: A dense gradient and the optimizer's default form; the fused form; torch's sparse gradient and optimizer; ours.
DEFAULT, FUSED, TORCH_SPARSE, EXACT, LAZY = ARMS = ("dense", "dense fused", "torch sparse", "exact", "lazy")
CLASSES = 5
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": lambda parameters, **form: torch.optim.SGD(parameters, lr=0.1, **form),
    "adagrad": lambda parameters, **form: torch.optim.Adagrad(parameters, lr=0.1, **form),
    "adam": lambda parameters, **form: torch.optim.Adam(parameters, lr=1e-3, **form),
    "adamw": lambda parameters, **form: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01, **form),
    "rmsprop": lambda parameters, **form: torch.optim.RMSprop(parameters, lr=1e-3, **form),
}


class Classifier(nn.Module):
    """Mean of embeddings, then a linear layer."""

    def __init__(self, vocabulary: int, dim: int, sparse: bool) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(vocabulary, dim, mode="mean", sparse=sparse)
        self.output = nn.Linear(dim, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        """Words [B, T] → logits [B, classes]."""
        logits: Tensor = self.output(self.table(words))
        return logits


def make_batches(vocabulary: int, batch: int, tokens: int) -> list[tuple[Tensor, Tensor]]:
    """Words (p ∝ 1 / rank, the ranks spread over the table) and labels of 40 batches."""
    draw = np.random.default_rng(0)
    borders, rows = np.cumsum(1.0 / np.arange(1, vocabulary + 1)), draw.permutation(vocabulary)

    def words() -> np.ndarray:
        return rows[np.searchsorted(borders[:-1] / borders[-1], draw.random((batch, tokens)))]

    return [(torch.from_numpy(words()), torch.from_numpy(draw.integers(0, CLASSES, batch))) for _ in range(40)]


def make_arm(
    arm: str, optimizer: str, vocabulary: int, dim: int, batches: list[tuple[Tensor, Tensor]]
) -> tuple[Step, Step]:
    """A step that has reached its pace, on the batches in turn; and what brings all rows up to date."""
    model = Classifier(vocabulary, dim, sparse=arm == TORCH_SPARSE)
    if arm in (EXACT, LAZY):
        make_row_sparse(model, "table.weight", exact=arm == EXACT)
    # The rows of a batch are few and small weights: what matters for them is the number of calls.
    form = {"fused": True} if arm in (FUSED, EXACT, LAZY) else {}
    if arm == TORCH_SPARSE and optimizer == "adam":
        rest = torch.optim.Adam(model.output.parameters(), lr=1e-3, fused=True)
        optimizers: list[Optimizer] = [torch.optim.SparseAdam(model.table.parameters(), lr=1e-3), rest]
    else:
        optimizers = [OPTIMIZERS[optimizer](model.parameters(), **form)]
    updates = RowSparseUpdates(optimizers[0], model)
    coming = cycle(batches)

    def step() -> None:
        words, labels = next(coming)
        torch.autograd.backward(F.cross_entropy(model(words), labels))
        for one in optimizers:
            one.step()
        for one in optimizers:
            one.zero_grad()

    for _ in range((updates.dense_steps.get("table.weight") or 0) + 2):
        step()
    return step, updates.flush


def embeddings(
    *,
    vocabulary: tuple[int, ...] = (30_000,),
    dim: tuple[int, ...] = (300,),
    batch: tuple[int, ...] = (64,),
    tokens: tuple[int, ...] = (20,),
    seconds: float = 10.0,
    threads: int = 1,
) -> Iterator[Row | str]:
    """One training step of a bag of embeddings.

    Mean of embeddings, linear layer, softmax over five classes; Zipf-distributed words. Forward, backward, the
    optimizer's step and clearing the gradients: how many times as fast as the dense step in torch's fused form (medians
    of interleaved repetitions; milliseconds are in the CSV file). `exact` has the trajectory of the dense optimizer,
    `lazy` leaves rows without a gradient alone. flush_ms: bringing all rows up to date in the exact form, before an
    evaluation and every 1,024 steps or more. The process keeps its memory, as in this project's runs: where the C
    library takes a dense gradient from the system anew in every step, as it does by itself from 32 MiB on, dense steps
    take longer.
    """
    for words, width, examples, length, name in product(vocabulary, dim, batch, tokens, ("adam", "adagrad", "sgd")):
        batches = make_batches(words, examples, length)
        arms = {arm: make_arm(arm, name, words, width, batches) for arm in ARMS}
        spent = interleave({arm: step for arm, (step, _) in arms.items()}, seconds)
        flush = Times()
        timed(arms[EXACT][1], flush)
        arms.clear()  # before the next ones are made
        sizes = {"vocabulary": words, "dim": width, "batch": examples, "tokens": length, "optimizer": name}
        for arm, times in spent.items():
            yield {
                **sizes,
                "arm": arm,
                "median_ms": times.ms(),
                "least_ms": 1e3 * min(times.clock),
                "repetitions": len(times.clock),
                "against_default": spent[DEFAULT].over(times),
                "against_fused": spent[FUSED].over(times),
                "time_saved": 1 - times.over(spent[DEFAULT]),
                "flush_ms": flush.ms() if arm == EXACT else None,
            }


def sparse_gradient_support() -> Iterator[Row | str]:
    """Optimizers that take gradients sparse in rows.

    One step of each, 1 if it is taken, 0 with what torch says where it refuses. `ours`: the same optimizer with this
    project's row-sparse updates. torch's SparseAdam is not asked: it leaves the moments of absent rows alone, which is
    another method than Adam.
    """
    for name in OPTIMIZERS:
        said, ours = (_refusal(name, row_sparse=row_sparse) for row_sparse in (False, True))
        yield {"optimizer": name, "torch": int(said is None), "ours": int(ours is None), "torch_says": said}


def _refusal(optimizer: str, *, row_sparse: bool) -> str | None:
    """What ``optimizer`` says to a gradient for two of eight rows; None where it takes the step."""
    model: Any = nn.Sequential(nn.Embedding(8, 4, sparse=not row_sparse))
    if row_sparse:
        make_row_sparse(model, "0.weight", exact=True)
    before = model[0].weight.detach().clone()
    made = OPTIMIZERS[optimizer](model.parameters())
    updates = RowSparseUpdates(made, model)
    torch.autograd.backward(model(torch.tensor([1, 5])).square().sum())
    try:
        made.step()
    except RuntimeError as error:
        return str(error)
    updates.flush()
    changed = (model[0].weight.detach() != before).any(dim=1).nonzero().flatten().tolist()
    # Weight decay changes every row; nothing else changes a row without a gradient.
    if changed != (list(range(8)) if optimizer == "adamw" else [1, 5]):
        raise AssertionError(f"{optimizer} took the step and changed rows {changed}.")
    return None


if __name__ == "__main__":
    measure(embeddings, sparse_gradient_support, wide={"embeddings": ("arm", "against_fused")})
