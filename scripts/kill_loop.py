"""Kill a plain training loop with ``sparse_bench.sparsify`` at random moments, and compare what it ends with.

    python scripts/kill_loop.py --output results/robustness/kill_loop.md  # a minute or two

The loop saves a checkpoint of model, optimizer and scheme after every fourth step, and goes on from it. Each case is
trained undisturbed, and once more with SIGKILLs. Model, moments and masks have to be the same, byte for byte.
"""

import hashlib
import io
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from interleaved import parse, table_of, write
from torch import nn

import sparse_bench as sb

STEPS, CASES = 1200, ("masked", "kernel")


def train(execution: str, folder: Path) -> None:
    """The user's loop, from its last checkpoint to its end."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scheme = sb.RigL(density=0.2, interval=7, execution=execution)
    parts = {"model": model, "optimizer": optimizer, "sparse": sb.sparsify(model, optimizer, scheme, steps=STEPS)}
    checkpoint = folder / "checkpoint.pt"
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        first = saved.pop("step")
        for name, state in saved.items():
            parts[name].load_state_dict(state)
    for step in range(first, STEPS):
        x = torch.randn(32, 64, generator=torch.Generator().manual_seed(step))
        nn.functional.mse_loss(model(x), x[:, :8].sin()).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 4 == 3:
            torch.save({"step": step + 1} | {name: part.state_dict() for name, part in parts.items()}, folder / "new")
            (folder / "new").replace(checkpoint)
    buffer = io.BytesIO()
    torch.save({name: part.state_dict() for name, part in parts.items()}, buffer)
    (folder / "digest").write_text(hashlib.sha256(buffer.getvalue()).hexdigest())


def digest(execution: str, folder: Path, kills: int, draw: random.Random) -> tuple[str, int]:
    """What the loop ends with after so many kills, and how many of them hit it."""
    command, hit = [sys.executable, __file__, "--train", execution, "--folder", str(folder)], 0
    folder.mkdir()
    while not (folder / "digest").exists():
        process = subprocess.Popen(command)
        if hit < kills:
            written = _written(folder)
            while process.poll() is None and _written(folder) == written:  # importing torch takes seconds
                time.sleep(0.005)
            time.sleep(draw.uniform(0, 0.3))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                hit += 1
        if process.wait() not in (0, -signal.SIGKILL):
            raise SystemExit(f"the loop failed in {folder}")
    return (folder / "digest").read_text(), hit


def _written(folder: Path) -> int:
    """When the last checkpoint was written; 0 if there is none."""
    path = folder / "checkpoint.pt"
    return path.stat().st_mtime_ns if path.exists() else 0


def main() -> None:
    """Kill, compare, write."""
    given = parse(__doc__ or "", kills=(10, "of each case"), seed=0, train="", folder="")
    if given.train:
        train(given.train, Path(given.folder))
        return
    draw, rows = random.Random(given.seed), []
    with tempfile.TemporaryDirectory() as temporary:
        for execution in CASES:
            whole, _ = digest(execution, Path(temporary) / f"{execution}-whole", 0, draw)
            killed, hit = digest(execution, Path(temporary) / f"{execution}-killed", given.kills, draw)
            rows.append({"RigL, execution": execution, "kills": hit, "identical": "yes" if whole == killed else "no"})
    page = f"# A plain loop that is killed\n\n{STEPS} steps of a loop of one's own with `sparse_bench.sparsify`.\n\n"
    write(f"{page}{table_of(rows)}", given.output)
    sys.exit(any(row["identical"] == "no" or row["kills"] < given.kills for row in rows))


if __name__ == "__main__":
    main()
