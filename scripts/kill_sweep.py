"""Kill sweeps at random moments, start them again each time, and compare them with undisturbed ones, byte for byte.

    python scripts/kill_sweep.py --output results/robustness/kill_sweep.md  # about 45 minutes on two cores
    python scripts/kill_sweep.py --kills 16 --cases 4                         # about ten minutes

Each case is a sweep of two small runs of another model under another scheme. It is killed by SIGKILL, so that nothing
can clean up, in three ways in turn: all its processes at a random moment; single workers of the joblib launcher, while
the sweep goes on; and the process itself at a write (of a checkpoint, a result or a line of metrics), before what it
wrote is on the disk or has its name. A sweep that ends before it has been killed often enough is begun again in another
folder, and each folder has to equal the undisturbed one. Exits with 1 if a byte differs, or if anything is left behind.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

from interleaved import run, table_of, write

DIET = ["dataset=sara_like", "dataset.corpus.examples=600", "model.transformer_size=32", "trainer.evaluate_every=5"]
TED = ["model=ted", "dataset=booking_like", "dataset.corpus.stories=60", "model.transformer_size=32"]
LANGUAGE = ["dataset=ptb_like", "dataset.corpus.sentences=600", "dataset.test_batch_size=10", "optimizer=sgd"]
LSTM = ["model=lstm_lm", *LANGUAGE, "model.embedding_dim=32", "model.hidden=64", "optimizer.lr=1"]
AWD = ["model=awd_lstm", *LANGUAGE, "model.embedding_dim=32", "model.hidden=48"]
TRANSLATION = ["model=transformer", "dataset=multi30k_like", "dataset.corpus.train=400", "dataset.beam=1"]
TRANSFORMER = [*TRANSLATION, "model.d_model=32", "model.d_inner=32", "dataset.min_count=1"]
TAGGER = ["model=bilstm_tagger", "dataset=pos_like", "dataset.corpus.sentences=600"]
TYPING = ["model=bag_of_embeddings", "dataset=text_types_like", "model.embedding_dim=64"]
#: What each case trains: epochs, and the settings of one command, or of two that follow each other. The first four
#: hold one of everything.
CASES: dict[str, tuple[int, list[list[str]]]] = {
    "DIET, RigL, kernel": (25, [[*DIET, "sparsity=rigl", "sparsity.interval=3", "sparsity.execution=kernel"]]),
    "Transformer, SET, masked": (6, [[*TRANSFORMER, "sparsity=set"]]),
    "LSTM, random fan-in, auto": (6, [[*LSTM, "sparsity=random_fan_in", "sparsity.execution=auto"]]),
    "AWD-LSTM, blocks, two stages": (
        5,
        [
            [*AWD, "sparsity=block_diagonal", "experiment_name=first"],
            [*AWD, "sparsity=block_diagonal", "experiment_name=second", "start_from=first", "optimizer.lr=0.3"],
        ],
    ),
    "DIET, random connected, masked": (30, [[*DIET, "sparsity=random_connected"]]),
    "DIET, SET, csr": (25, [[*DIET, "sparsity=set", "sparsity.execution=csr"]]),
    "TED, GMP, masked": (12, [[*TED, "sparsity=gmp", "sparsity.interval=5"]]),
    "TED, static ER, kernel": (12, [[*TED, "sparsity=static_er", "sparsity.execution=kernel"]]),
    "Transformer, RigL, kernel": (6, [[*TRANSFORMER, "sparsity=rigl", "sparsity.execution=kernel"]]),
    "LSTM, random, kernel": (6, [[*LSTM, "sparsity=random", "sparsity.execution=kernel"]]),
    "AWD-LSTM, Selfish-RNN, NT-ASGD": (5, [[*AWD, "sparsity=selfish_rnn", "optimizer=nt_asgd", "optimizer.lr=3"]]),
    "Tagger, tiers": (8, [[*TAGGER, "sparsity=embedding_tiers", "sparsity.blocks=4", "trainer.select=best"]]),
    "Bag of embeddings, row-sparse gradients": (8, [[*TYPING, "sparsity=sparse_gradient", "optimizer=adagrad"]]),
}
COMMON = [
    *("seed=0,1", "logger=none", "device=cpu", "threads=1"),
    *("trainer.keep=weights", "trainer.checkpoint_seconds=0.1", "-m"),
]
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
WAYS = ALL, AT_ONE, _ = ("kills: all processes", "kills: at a write", "kills: one worker")
FILLED, SAME = "folders filled", "identical"
#: What has to be the same, of result.json these parts.
FILES, PARTS = ("metrics.jsonl", "topology.jsonl", "weights.json", "weights.pt"), ("metrics", "counts", "data", "notes")
#: The command in a process that kills itself at a write, the one of the given number, and that notes how many it made.
AT_A_WRITE = """
import atexit, os, signal, sys
from pathlib import Path
from sparse_bench.__main__ import main
last, note, made = int(sys.argv.pop(1)), Path(sys.argv.pop(1)), 0
def watched(write):
    def call(*arguments, **settings):
        global made
        made += 1
        if made == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(*arguments, **settings)
    return call
os.fsync, os.truncate, Path.replace = watched(os.fsync), watched(os.truncate), watched(Path.replace)
atexit.register(lambda: note.write_text(str(made)))
main()
"""


class StormError(Exception):
    """A sweep did what none may do, whatever is killed."""


class Case:
    """One sweep, or two that follow each other, killed again and again."""

    def __init__(self, name: str, folder: Path, draw: random.Random) -> None:
        epochs, self._commands = CASES[name]
        self._settings = [f"trainer.epochs={epochs}", *COMMON]
        self._folder, self._draw = folder, draw
        self._note, self.log = folder / "writes", folder / "log"

    def storm(self, kills: int) -> Counter[str]:
        """Kill it so often, and compare what comes out with what an undisturbed sweep gives.

        Counted are the kills of each way, and the folders that were filled under them, and those that are the same.
        """
        self._folder.mkdir(parents=True)
        started = time.monotonic()
        self._to_the_end(self._folder / "undisturbed")
        self._longest = (time.monotonic() - started) / len(self._commands)
        expected, found = contents(self._folder / "undisturbed"), Counter[str]()
        ways, killed = cycle([*WAYS, AT_ONE]), 0
        while killed < kills:
            copy = self._folder / f"copy{found[FILLED]}"
            for settings in self._commands:
                ended = False
                while killed < kills and not ended:
                    way = next(ways)
                    times, ended = self._kill(way, copy, settings)
                    found[way] += times
                    killed += times
            self._to_the_end(copy)
            found += Counter({FILLED: 1, SAME: int(contents(copy) == expected)})
        return found

    def _kill(self, way: str, folder: Path, settings: list[str]) -> tuple[int, bool]:
        """Start the sweep and kill of it what ``way`` says. Returns the number of kills, and whether it has ended."""
        if way == AT_ONE:
            return self._kill_at_a_write(folder, settings)
        process, killed = self._start(folder, [*settings, *JOBLIB]), 0
        try:
            while True:
                try:
                    code = process.wait(timeout=self._draw.uniform(0.2, 0.9) * self._longest)
                except subprocess.TimeoutExpired:
                    if way == ALL:
                        return 1, False
                    killed += self._kill_a_worker(process.pid)
                    continue
                # A run whose worker has been killed twice fails, and goes on when the sweep is started again.
                if code not in ((0, 1) if killed > 1 else (0,)):
                    raise StormError(f"exit status {code} after {killed} kills of workers: {settings}")
                return killed, code == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _kill_a_worker(self, parent: int) -> int:
        """Kill one of the processes that a sweep has its runs carried out by."""
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            workers = [n for n in children if b"--multiprocessing-fork" in Path(f"/proc/{n}/cmdline").read_bytes()]
            os.kill(int(self._draw.choice(workers)), signal.SIGKILL)
        except (OSError, IndexError):  # there is none, or it has just ended by itself
            return 0
        return 1

    def _kill_at_a_write(self, folder: Path, settings: list[str]) -> tuple[int, bool]:
        # None are made where all runs had ended before.
        made = (int(self._note.read_text()) if self._note.exists() else 0) or 60
        # Half of them among the last ones, which write weights and the result.
        last = self._draw.randint(1, made) if self._draw.random() < 0.5 else made - self._draw.randint(0, 12)
        code = self._start(folder, settings, ["-c", AT_A_WRITE, str(max(1, last)), str(self._note)]).wait()
        if code not in (0, -signal.SIGKILL):
            raise StormError(f"exit status {code} where it was killed at write {last}: {settings}")
        return int(code != 0), code == 0

    def _to_the_end(self, folder: Path) -> None:
        for settings in self._commands:
            if (code := self._start(folder, [*settings, *JOBLIB]).wait()) != 0:
                raise StormError(f"exit status {code} without a kill: {settings}")

    def _start(self, folder: Path, settings: list[str], program: list[str] | None = None) -> "subprocess.Popen[bytes]":
        command = [sys.executable, *(program or ["-m", "sparse_bench"]), f"output={folder}", *settings, *self._settings]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, start_new_session=True, stdout=log, stderr=log)


def contents(folder: Path) -> dict[str, object]:
    """What the runs below a folder came to, without what differs from time to time: seconds, memory, circumstances."""
    found: dict[str, object] = {}
    for path in sorted(folder.glob("*/*/result.json")):
        result = json.loads(path.read_text())
        found[f"{path.parent.name} {result['status']}"] = json.dumps([result[part] for part in PARTS], sort_keys=True)
        files = [path.with_name(name) for name in FILES]
        found |= {str(file.relative_to(folder)): file.read_bytes() for file in files if file.exists()}
    return found


def page(outcomes: dict[str, Counter[str]]) -> str:
    """What came of all cases."""
    total = sum(outcomes.values(), Counter())
    rows = [
        {"sweep of two runs": name} | {column: found[column] for column in (*WAYS, FILLED, SAME)}
        for name, found in [*outcomes.items(), ("all", total)]
    ]
    files = ", ".join(f"`{name}`" for name in FILES)
    return (
        "# Sweeps that are killed\n\n"
        f"{sum(total[way] for way in WAYS)} SIGKILLs over {len(outcomes)} sweeps of two runs each: to all processes at "
        "a random moment, to one worker of the joblib launcher while the sweep goes on, and to a process at one of its "
        "own writes (of a checkpoint, a result, a line of metrics). After each, the same command goes on. A folder is "
        f"identical if {files} and the metrics, counts, notes and checksums in `result.json` of both runs are those of "
        f"an undisturbed sweep, byte for byte.\n\n**{total[SAME]} of {total[FILLED]}** folders are identical.\n\n"
        f"{table_of(rows)}"
    )


def main(
    *, kills: int = 104, cases: int = len(CASES), at_once: int = 2, seed: int = 0, output: Path | None = None
) -> None:
    """Kill the first cases, some at a time, and say what came of it."""
    outcomes: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(at_once) as pool:
        (left := Path(temporary, "left")).mkdir()
        os.environ |= {"TMPDIR": str(left), "SPARSE_BENCH_CACHE": str(Path(temporary, "cache")), "OMP_NUM_THREADS": "1"}
        names = list(CASES)[:cases]
        storms = []
        for number, name in enumerate(names):
            case = Case(name, Path(temporary, str(number)), random.Random(seed + number))
            storms.append((name, case, pool.submit(case.storm, -(-kills // len(names)))))
        for name, case, storm in storms:
            try:
                outcomes[name] = storm.result()
            except BaseException as error:
                pool.shutdown(cancel_futures=True)
                if isinstance(error, StormError):
                    sys.exit(f"{name}: {error}\n{case.log.read_text(errors='replace')[-4000:]}")
                raise
            print(name, dict(outcomes[name]), flush=True)
        # Torch keeps one cache of its own there, the same for all processes.
        remains = sorted(path.name for path in left.iterdir() if not path.name.startswith("torchinductor_"))
    write(page(outcomes), output)
    if remains:
        sys.exit(f"Left behind among temporary files: {', '.join(remains)}")
    sys.exit(any(found[SAME] != found[FILLED] for found in outcomes.values()))


if __name__ == "__main__":
    run(main)
