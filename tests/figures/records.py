"""Records of topologies and weights by hand, as runs leave them."""

import json
from pathlib import Path
from typing import Any

from sparse_bench.record import RunFolder
from tests.evidence.runs import write_run

#: Two units of degree 1, one of 2, one of 4, and one that is dead.
DEGREES = {
    "dead": 1,
    "mean": 1.6,
    "variance_to_mean": 1.15,
    "skew": 0.8,
    "degrees": [0, 1, 2, 4],
    "counts": [1, 2, 1, 1],
    "power_law": None,
}
AGAINST = {"ratio": 2.5, "p": 0.01}
FIT = {
    "alpha": 2.5,
    "xmin": 2,
    "ks": 0.1,
    "tail": 2,
    "favoured": True,
    "exponential": AGAINST,
    "poisson": AGAINST,
}

LAYER = {"counts": [1, 6, 1], "share_small": 0.75, "map": [[0.1, 0.2], [0.3, 0.4]]}
SUMMARY: dict[str, Any] = {
    "edges": [-0.6, -0.2, 0.2, 0.6],
    "small": 0.07,
    "layers": {"a.weight": LAYER, "b.weight": LAYER},
}


def line(epoch: int, active: int, fitted: bool = False) -> dict[str, Any]:
    """One line of a record of topologies: two layers of equal degrees."""
    degrees = DEGREES | {"power_law": FIT if fitted else None}
    layer = {"active": active, "size": 64, "in_degree": degrees, "out_degree": degrees}
    return {"epoch": epoch, "step": 10 * epoch, "layers": {"a.weight": layer, "b.weight": layer}}


LINES = [line(0, 8), line(1, 8), line(2, 8, fitted=True), line(3, 6)]


def write_lines(folder: Path, lines: list[dict[str, Any]] = LINES) -> RunFolder:
    """A record of topologies in a run's folder."""
    RunFolder(folder).topology.path.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    return RunFolder(folder)


def write_summary(folder: Path, summary: Any = SUMMARY) -> RunFolder:
    """A summary of weights in a run's folder; text as it is."""
    RunFolder(folder).weight_summary.write_text(summary if isinstance(summary, str) else json.dumps(summary))
    return RunFolder(folder)


def write_dynamic_run(root: Path, seed: int = 0, lines: list[dict[str, Any]] = LINES, **settings: Any) -> Path:
    """A run of SET over three epochs with a record of topologies, and what was followed of it."""
    folder = write_run(root, scheme="set", density=0.2, seed=seed, epochs=3, **settings)
    history = write_lines(folder, lines).metrics
    entries = [json.loads(text) for text in history.path.read_text().splitlines()]
    for number, entry in enumerate(entries):
        entry |= {
            "topology/turnover": 0.3 - 0.1 * number,
            "topology/overlap": 0.7**number,
            "topology/exploration": 0.2 + 0.1 * number + 0.01 * seed,
        }
    history.path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder
