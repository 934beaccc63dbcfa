"""How long it takes to collect and show the results of very many runs, and what a run leaves on the file system.

    python scripts/bench_collect.py --runs 10000 --output results/performance/collect.md

One small run is trained. Its folder is copied under other seeds, densities and names, with other metrics. Then the
tables are collected, and the pages are built from them.
"""

import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from interleaved import parse, report

from sparse_bench.record import checksum_of

DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8)
RUN = [
    *("experiment=rasa/diet", "dataset=sara_like", "dataset.corpus.examples=200", "model.transformer_size=16"),
    *("trainer.epochs=100", "trainer.evaluate_every=10", "logger=none", "device=cpu", "threads=1", "-m"),
]


def copies(template: Path, target: Path, runs: int) -> None:
    """Write so many folders like that of ``template`` below ``target``."""
    result = json.loads((template / "result.json").read_text())
    draw = random.Random(0)
    for number in range(runs):
        seed, density = number // len(DENSITIES), DENSITIES[number % len(DENSITIES)]
        result["id"] = hashlib.sha256(str(number).encode()).hexdigest()[:12]
        result["seed"] = result["config"]["seed"] = seed
        result["labels"]["density"] = result["config"]["sparsity"]["density"] = density
        metrics = {name: value * draw.uniform(0.9, 1.0) for name, value in result["metrics"].items()}
        folder = target / result["id"]
        folder.mkdir(parents=True)
        copy = result | {"metrics": metrics}
        (folder / "result.json").write_text(json.dumps(copy | {"checksum": checksum_of(copy)}, indent=2))
        for name in ("config.yaml", "metrics.jsonl", "timing.jsonl", "weights.json"):
            shutil.copyfile(template / name, folder / name)
        (folder / ".lock").touch()


def timed(*arguments: str) -> float:
    """Seconds that a module's command takes.

    Raises:
        CalledProcessError: it failed.
    """
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Measure, print, and write the table."""
    given = parse(__doc__ or "", runs=10000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        timed("sparse_bench", f"output={folder / 'one'}", *RUN)
        (template,) = (path.parent for path in folder.glob("one/rasa/diet/*/result.json"))
        files = sorted(path for path in template.iterdir() if path.is_file())
        sweep = [path for path in folder.glob("one/.sweeps/*/*") if path.is_file()]
        journal = sum(path.stat().st_size for path in sweep if path.name.startswith("journal"))
        copies(template, folder / "runs/rasa/diet", given.runs)
        collected = timed(
            "sparse_bench.evidence", "collect", "--results", f"{folder / 'tables'}", "--runs", f"{folder / 'runs'}"
        )
        own = timed("sparse_bench.site", f"{folder / 'own'}", "--runs", f"{folder / 'runs'}")
        pages = timed("sparse_bench.site", f"{folder / 'site'}", "--results", f"{folder / 'tables'}")
        rows = [
            {"what": "collect the tables", "seconds": f"{collected:.0f}"},
            {"what": "a page of one's own runs", "seconds": f"{own:.0f}"},
            {"what": "the papers' pages from the tables", "seconds": f"{pages:.0f}"},
        ]
        sizes = ", ".join(f"{path.name} {path.stat().st_size:,}" for path in files)
        total = sum(path.stat().st_size for path in files)
        text = f"""
        {given.runs:,} result folders, made of one run of 100 epochs.

        A run of the size that was copied leaves {len(files)} files with {total:,} bytes: {sizes}. It adds {journal:,}
        bytes to the journal of its sweep, which has {len(sweep)} files on one machine.
        """
        report(given.output, "Many results", text, rows)


if __name__ == "__main__":
    main()
