"""Which optimizers take a row-sparse gradient: torch's own, and the same with this project's row-sparse updates.

One step of a small table each, the answer torch's own words. Nothing is timed. torch's SparseAdam is not asked: it
leaves the moments of absent rows alone, which is another method than Adam.

Writes a table in Markdown and a tidy CSV file beside it.

    python scripts/sparse_gradient_support.py --output results/performance/sparse_gradient_support.md
"""

import argparse
import csv
from pathlib import Path

import torch
from bench_embeddings import OPTIMIZERS
from interleaved import write
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


def main() -> None:
    """Ask, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="Markdown file; a CSV file goes beside it")
    arguments = parser.parse_args()
    rows = []
    for optimizer in OPTIMIZERS:
        said = refusal(optimizer, row_sparse=False)
        ours = refusal(optimizer, row_sparse=True)
        rows.append({"optimizer": optimizer, "torch": int(said is None), "ours": int(ours is None), "torch_says": said})
    lines = [
        "# Optimizers that take gradients sparse in rows",
        "",
        f"torch {torch.__version__}. One step of each; what torch says where it refuses. `row updates`: the same "
        "optimizer with this project's row-sparse updates.",
        "",
        "| optimizer | torch | row updates | torch says |",
        "|---|---|---|---|",
    ]
    for row in rows:
        verdicts = " | ".join("takes them" if row[side] else "refuses" for side in ("torch", "ours"))
        lines.append(f"| {row['optimizer']} | {verdicts} | {row['torch_says'] or '—'} |")
    write("\n".join(lines) + "\n", arguments.output)
    if arguments.output:
        with arguments.output.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
