"""Kill a sweep at random moments, restart it each time, and compare it with an undisturbed one, byte for byte.

    python scripts/kill_sweep.py --kills 20 --output results/robustness/kill_sweep.md

Eight runs of DIET on Sara-like (two seeds, four densities), one process a core. Every kill is a SIGKILL to the whole
process group, so nothing can clean up. Exits with 1 if any metric differs.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SWEEP = [
    "experiment=rasa/diet",
    "dataset=sara_like",
    "dataset.corpus.examples=1500",
    "hydra/launcher=joblib",
    "seed=0,1",
    "sparsity.density=1.0,0.2,0.05,0.01",
    "model.transformer_size=32",
    "trainer.epochs=40",
    "trainer.evaluate_every=5",
    "trainer.checkpoint_seconds=1",
    "logger=none",
    "-m",
]


def command(folder: Path) -> list[str]:
    """The command line of the sweep with its runs in ``folder``."""
    return [sys.executable, "-m", "sparse_bench", f"output={folder}", *SWEEP]


def results(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Run id → (bytes of metrics.jsonl, final metrics) of every finished run."""
    found = {}
    for path in sorted(folder.glob("rasa/diet/*/result.json")):
        result = json.loads(path.read_text())
        if result["status"] == "finished":
            metrics = (path.parent / "metrics.jsonl").read_bytes()
            found[result["id"]] = (metrics, json.dumps(result["metrics"], sort_keys=True))
    return found


def killed_at_random(folder: Path, kills: int, shortest: float, longest: float, draw: random.Random) -> list[float]:
    """Start the sweep again and again, killing it; then let it end. Returns the seconds that each start lived.

    Stops with an error if the sweep ends before it has been killed that often.
    """
    lives: list[float] = []
    for number in range(kills):
        started = time.monotonic()
        process = subprocess.Popen(command(folder), start_new_session=True, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=draw.uniform(shortest, longest))
            sys.exit(f"The sweep ended after {number} kills; give it more epochs, or kill it sooner.")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        lives.append(time.monotonic() - started)
        print(f"kill {number + 1}/{kills} after {lives[-1]:.1f} s, {len(results(folder))} runs finished", flush=True)
    subprocess.run(command(folder), check=True, stderr=subprocess.DEVNULL)
    return lives


def main() -> None:
    """Run both sweeps and compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--shortest", type=float, default=6.0, help="seconds before a kill, at least")
    parser.add_argument("--longest", type=float, default=20.0, help="seconds before a kill, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, help="write a short report here")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        undisturbed, disturbed = Path(temporary, "undisturbed"), Path(temporary, "disturbed")
        subprocess.run(command(undisturbed), check=True, stderr=subprocess.DEVNULL)
        draw = random.Random(arguments.seed)
        lives = killed_at_random(disturbed, arguments.kills, arguments.shortest, arguments.longest, draw)
        expected, got = results(undisturbed), results(disturbed)
    same = sum(got.get(run) == entry for run, entry in expected.items())
    report = (
        "# A sweep that is killed\n\n"
        f"{len(expected)} runs, {arguments.kills} SIGKILLs to the whole process group after "
        f"{min(lives):.0f} to {max(lives):.0f} seconds each, one more start to the end.\n\n"
        f"Runs whose `metrics.jsonl` and final metrics equal the undisturbed sweep's byte for byte: "
        f"**{same} of {len(expected)}**.\n"
    )
    print(report)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(report)
    if same != len(expected) or len(expected) != 8:
        sys.exit(1)


if __name__ == "__main__":
    main()
