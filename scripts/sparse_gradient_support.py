"""Which optimizers take a row-sparse gradient: torch's own, and the same with this project's row-sparse updates.

One step of a small table each, the answer torch's own words. Nothing is timed. torch's SparseAdam is not asked: it
leaves the moments of absent rows alone, which is another method than Adam.

    python scripts/sparse_gradient_support.py --output results/performance/sparse_gradient_support.md
"""

from collections.abc import Iterator

import pandas as pd
import torch
from bench_embeddings import OPTIMIZERS
from interleaved import Row, parse, report
from torch import nn

from sparse_bench.row_sparse import RowSparseUpdates, make_row_sparse


class Table(nn.Module):
    """An embedding alone."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.rows = nn.Embedding(8, 4, sparse=sparse)


def refusal(optimizer: str, *, row_sparse: bool) -> str | None:
    """What ``optimizer`` says to a gradient for two of eight rows; None where it takes the step."""
    model = Table(sparse=not row_sparse)
    if row_sparse:
        make_row_sparse(model, "rows.weight", exact=True)
    before = model.rows.weight.detach().clone()
    made = OPTIMIZERS[optimizer](model.parameters())
    updates = RowSparseUpdates(made, model) if row_sparse else None
    torch.autograd.backward(model.rows(torch.tensor([1, 5])).square().sum())
    try:
        made.step()
    except RuntimeError as error:
        return str(error)
    if updates is not None:
        updates.flush()
    changed = (model.rows.weight.detach() != before).any(dim=1).nonzero().flatten().tolist()
    # Weight decay changes every row; nothing else changes a row without a gradient.
    expected = list(range(8)) if optimizer == "adamw" else [1, 5]
    if changed != expected:
        raise AssertionError(f"{optimizer} took the step and changed rows {changed}, not {expected}.")
    return None


def view(rows: pd.DataFrame) -> Iterator[Row]:
    """Verdicts in words."""
    for row in rows.fillna("").to_dict("records"):
        torchs, ours = ("takes them" if row[side] else "refuses" for side in ("torch", "ours"))
        yield {"optimizer": row["optimizer"], "torch": torchs, "row updates": ours, "torch says": row["torch_says"]}


def main() -> None:
    """Ask, print and write."""
    given = parse(__doc__ or "")
    rows = []
    for optimizer in OPTIMIZERS:
        said = refusal(optimizer, row_sparse=False)
        ours = refusal(optimizer, row_sparse=True)
        rows.append({"optimizer": optimizer, "torch": int(said is None), "ours": int(ours is None), "torch_says": said})
    text = "One step of each; what torch says where it refuses. `row updates`: the same optimizer with this project's "
    title = "Optimizers that take gradients sparse in rows"
    report(given.output, title, f"{text}row-sparse updates.", rows, view=view)


if __name__ == "__main__":
    main()
