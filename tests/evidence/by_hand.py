"""Evidence by hand, without folders or files."""

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd

from sparse_bench.evidence.compare import Evidence
from sparse_bench.evidence.store import CURVE_COLUMNS, RunTable, assembled


def run(
    experiment: str,
    seed: int,
    metrics: dict[str, float] | None = None,
    *,
    settings: dict[str, Any] | None = None,
    curves: dict[str, list[float]] | None = None,
    columns: dict[str, Any] | None = None,
    status: str = "finished",
    **labels: Any,
) -> dict[str, Any]:
    """One run: its row, its settings and its learning curves (a value an epoch, from the first)."""
    what = f"{experiment} {seed} {settings} {labels}"
    number = hashlib.sha256(what.encode()).hexdigest()[:12]
    row = {"experiment": experiment, "id": number, "status": status, "seed": seed}
    row |= {f"label:{name}": value for name, value in labels.items()}
    row |= {f"metric:{name}": value for name, value in (metrics or {}).items()} | (columns or {})
    return {"row": row, "settings": settings or {}, "curves": curves or {}}


def table(*runs: dict[str, Any]) -> RunTable:
    """All runs in one table."""
    curves = [
        (one["row"]["experiment"], one["row"]["id"], one["row"]["seed"], epoch, metric, value)
        for one in runs
        for metric, values in one["curves"].items()
        for epoch, value in enumerate(values, start=1)
    ]
    frame = pd.DataFrame(curves, columns=list(CURVE_COLUMNS))
    return assembled([one["row"] for one in runs], [one["settings"] for one in runs], frame)


def evidence(*runs: dict[str, Any], root: Path = Path("nowhere")) -> Evidence:
    """All runs in the table of one paper."""
    return Evidence(root, {"rasa": table(*runs)} if runs else {})
