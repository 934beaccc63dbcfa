"""Give every setting that the shipped configuration files hold values that it should not have, and see what happens.

    python scripts/fuzz_settings.py --workers 2 --output results/robustness/fuzz.md

Every leaf of every file of every group, every setting of a run itself and every schedule and stopping rule gets every
value of :data:`VALUES`, one at a time, beside an otherwise small run, which takes one step on generated data if nothing
refuses it. A good end is a refusal by Hydra's schema or by an error of the project. A traceback, an aborted process and
a hang are bad ones. A value that is taken, and not named in :data:`SENSIBLE`, counts as senseless.

Exits with 1 if there is a traceback, an abort, a hang, or more senseless values than :data:`MOST_SENSELESS`.
"""

import argparse
import itertools
import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TIMEOUT = 60
MOST_SENSELESS = 10
#: Address space of a worker, in bytes: a model for which a machine is too small must not take this one with it.
MEMORY = 12 << 30

VALUES: dict[str, Any] = {
    "empty text": "",
    "text": "abc",
    "number as text": "16",
    "unicode": "ключ 🙂",
    "path": "../../x",
    "long text": "x" * 300,
    "true": True,
    "null": None,
    "zero": 0,
    "minus one": -1,
    "one and a half": 1.5,
    "10^12": 10**12,
    "nan": float("nan"),
    "inf": float("inf"),
    "list of numbers": [3, 2, 1],
    "dict": {"a": 1},
}

TEXTS = {"text", "number as text", "unicode", "long text"}
#: Setting → values that make sense for it, beside those that its shipped value is one of.
SENSIBLE: list[tuple[str, set[str]]] = []

#: Small problems by task, and the model that learns it fastest.
SMALL = {
    "intent": ["dataset=sara_like", "dataset.corpus.examples=150", "model=diet", "model.transformer_size=8"],
    "dialogue": ["dataset=booking_like", "dataset.corpus.stories=10", "dataset.corpus.test_stories=4", "model=ted"],
    "language_modelling": [
        "dataset=ptb_like",
        "dataset.corpus.sentences=60",
        "dataset.batch_size=4",
        "dataset.bptt=8",
        "dataset.valid_batch_size=4",
        "dataset.test_batch_size=4",
        "model=lstm_lm",
        "model.hidden=9",
        "model.embedding_dim=4",
    ],
    "tagging": [
        "dataset=pos_like",
        "dataset.corpus.sentences=100",
        "dataset.corpus.vocabulary=100",
        "model=bilstm_tagger",
    ],
    "text_typing": ["dataset=text_types_like", "dataset.corpus.examples=200", "model=bag_of_embeddings"],
    "translation": [
        "dataset=multi30k_like",
        "dataset.corpus.train=60",
        "dataset.corpus.valid=6",
        "dataset.corpus.test=6",
        "dataset.min_count=1",
        "dataset.beam=2",
        "model=transformer",
        "model.d_model=8",
        "model.heads=2",
        "model.d_inner=8",
    ],
}
#: Task of the small problem that a scheme is tried on; others are tried on text typing.
TASK_OF_SCHEME = {"block_diagonal": "tagging", "blocks_and_tiers": "tagging", "random_fan_in": "language_modelling"}
ALWAYS = ["trainer.epochs=1", "trainer.steps=1", "threads=1", "logger=none", "progress=false", "device=cpu"]
#: Weights of the big models made small where their own files are tried.
NARROW = {
    "awd_lstm": ["model.hidden=8", "model.embedding_dim=4"],
    "diet": ["model.transformer_size=8"],
    "lstm_lm": ["model.hidden=9", "model.embedding_dim=4"],
    "transformer": ["model.d_model=8", "model.heads=2", "model.d_inner=8"],
}


def problems() -> dict[str, tuple[list[str], str]]:
    """Name → (overrides, the part of the configuration whose leaves are tried)."""
    from sparse_bench.config import choices

    found: dict[str, tuple[list[str], str]] = {"run": (SMALL["text_typing"], "")}
    for name in choices("model"):
        task = task_of("model", name)
        found[f"model/{name}"] = (
            [*(o for o in SMALL[task] if "model" not in o), f"model={name}", *NARROW.get(name, [])],
            "model",
        )
    for name in choices("dataset"):
        small = SMALL[task_of("dataset", name)]
        models = [override for override in small if override.startswith("model")]
        own = [o for o in small if o.startswith("dataset")] if f"dataset={name}" in small else [f"dataset={name}"]
        found[f"dataset/{name}"] = ([*own, *models], "dataset")
    for name in choices("sparsity"):
        small = SMALL[TASK_OF_SCHEME.get(name, "text_typing")]
        found[f"sparsity/{name}"] = ([*small, f"sparsity={name}"], "sparsity")
    for name in choices("optimizer"):
        found[f"optimizer/{name}"] = ([*SMALL["text_typing"], f"optimizer={name}"], "optimizer")
    for name in choices("logger"):
        found[f"logger/{name}"] = ([*SMALL["text_typing"], f"logger={name}"], "logger")
    found["trainer/default"] = (SMALL["text_typing"], "trainer")
    for part, module, names in (
        ("schedule", "schedules", ("LinearWarmup", "InverseSquareRoot", "ExponentialPerEpoch", "Cosine")),
        ("stop", "stopping", ("ConsecutiveRises", "NonMonotone", "Reached")),
    ):
        for name in names:
            node = "{" + f"_target_:sparse_bench.training.{module}.{name}{defaults_of(module, name)}" + "}"
            found[f"trainer.{part}/{name}"] = ([*SMALL["text_typing"], f"trainer.{part}={node}"], f"trainer.{part}")
    return found


def task_of(group: str, name: str) -> str:
    """The task that a shipped model learns, or that a shipped dataset is for."""
    from omegaconf import OmegaConf

    from sparse_bench.config import CONF, target_of

    target = target_of(OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml")), group)
    return target.tasks[0] if group == "model" else target.name


def defaults_of(module: str, name: str) -> str:
    """The settings of a schedule or a stopping rule as an override writes them."""
    import inspect

    from hydra.utils import get_object

    parameters = inspect.signature(get_object(f"sparse_bench.training.{module}.{name}")).parameters
    given = {key: "null" if p.default is None else p.default for key, p in parameters.items()}
    if name == "Reached":
        given["metric"] = "valid/accuracy"
    return "".join(f",{key}:{value}" for key, value in given.items())


def leaves(node: Any, path: str) -> Iterator[str]:
    """Paths of everything below a node of a configuration, inner nodes that have a target included."""
    for key, value in node.items():
        inner = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict):
            if "_target_" in value or not value:
                yield inner
            yield from leaves(value, inner)
        else:
            yield inner


def leaves_of(part: str, plain: dict[str, Any]) -> list[str]:
    """The leaves that are tried of a composed problem; of a run itself, what belongs to no group."""
    if not part:
        return [key for key, value in plain.items() if not isinstance(value, dict)]
    node = plain
    for key in part.split("."):
        node = node[key]
    return list(leaves(node, part))


class Worker:
    """What a worker process does: answer one case after the other."""

    def __init__(self) -> None:
        import logging
        import resource

        import torch

        from sparse_bench import environment
        from sparse_bench.config import register

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        logging.disable(logging.CRITICAL)
        register()
        torch.set_num_threads(1)
        environment.git = dict  # asking takes longer than a step
        self.problems = problems()
        self.composed: dict[str, Any] = {}
        #: By configuration: what differs only in how it is written is tried once.
        self.answers: dict[str, tuple[str, str]] = {}

    def compose(self, name: str) -> Any:
        """A problem's configuration, composed once."""
        from hydra import compose, initialize_config_dir

        from sparse_bench.config import CONF

        if name not in self.composed:
            with initialize_config_dir(str(CONF), version_base="1.3"):
                # What the problem says comes last: it may be about what is always said.
                self.composed[name] = compose("config", overrides=[*ALWAYS, *self.problems[name][0]])
        return self.composed[name]

    def cases(self, only: str) -> list[tuple[str, str, str]]:
        """All (problem, leaf, name of the value) whose problem matches ``only``."""
        from omegaconf import OmegaConf

        found = []
        for name, (_, part) in self.problems.items():
            if re.search(only, name):
                plain: Any = OmegaConf.to_container(self.compose(name))
                found += list(itertools.product([name], leaves_of(part, plain), VALUES))
        return found

    def answer(self, name: str, leaf: str, value: str) -> tuple[str, str]:
        """How a case ends, and what is said then."""
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        from sparse_bench.config import check
        from sparse_bench.errors import SparseBenchError

        config = self.compose(name).copy()
        OmegaConf.set_struct(config, False)
        try:
            OmegaConf.update(config, leaf, VALUES[value], merge=False)
        except OmegaConfBaseException as error:
            return "refused by Hydra", str(error).partition("\n")[0]
        key = OmegaConf.to_yaml(config)
        if key not in self.answers:
            try:
                check(config)
                self.answers[key] = self.carry_out(name, leaf, config)
            except SparseBenchError as error:
                self.answers[key] = "refused before any work", str(error)
            except Exception as error:
                self.answers[key] = "traceback", f"{type(error).__name__}: {error}"
        return self.answers[key]

    def carry_out(self, name: str, leaf: str, config: Any) -> tuple[str, str]:
        """What comes of a configuration that the checks have taken."""
        from omegaconf import OmegaConf

        from sparse_bench.errors import SparseBenchError
        from sparse_bench.run import run
        from sparse_bench.tracking.base import Trackers

        if name.startswith("logger/"):
            Trackers.from_config(OmegaConf.to_container(config.logger))
            return "accepted", "the logger was made, and opened nothing"
        runnable = self.runnable(name, leaf, config)
        if runnable is None:
            return "accepted", "checked alone: the corpus would have to be downloaded"
        with tempfile.TemporaryDirectory(prefix="fuzz_") as folder:
            if not name.startswith(("run", "trainer")):
                try:
                    one_step(OmegaConf.to_container(runnable, resolve=True), Path(folder))
                except SparseBenchError as error:
                    return "refused by the run", str(error)
                return "accepted", ""
            if leaf != "output":
                runnable.output = folder
            os.chdir(folder)
            try:
                result = run(runnable)
            finally:
                os.chdir("/")
        assert result is not None
        if result.error is None:
            return "accepted", ""
        ours = f"sparse_bench.errors.{result.error['type']}: " in result.error["traceback"]
        return "refused by the run" if ours else "traceback", f"{result.error['type']}: {result.error['message']}"

    def runnable(self, name: str, leaf: str, config: Any) -> Any:
        """The configuration, with generated data in place of what would have to be downloaded; None if that is what the
        case is about."""
        from omegaconf import OmegaConf

        if not name.startswith("dataset/"):
            return config
        task = task_of("dataset", name.partition("/")[2])
        small = next(o.partition("=")[2] for o in SMALL[task] if o.startswith("dataset="))
        if name == f"dataset/{small}":
            return config
        if leaf.startswith("dataset.corpus"):
            return None
        generated = self.compose(f"dataset/{small}").dataset
        config = config.copy()
        OmegaConf.update(config, "dataset.corpus", generated.corpus, merge=False)
        return config


def one_step(plain: dict[str, Any], folder: Path) -> None:
    """What a run does: read, build, rehearse the evaluation and take a step."""
    import torch

    from sparse_bench.record import RunFolder
    from sparse_bench.run import assemble, task_of
    from sparse_bench.training.rehearsal import rehearse

    task = task_of(plain)
    trainer = assemble(plain, task, torch.device("cpu"), RunFolder(folder))
    rehearse(trainer)
    trainer.fit()


def work() -> None:
    """A worker: cases come in as lines of JSON, answers go out so."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        answer = worker.cases(request["only"]) if "only" in request else worker.answer(*request["case"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Process:
    """A worker process, begun anew when it has died or has hung."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin a process."""
        command = [sys.executable, __file__, "--work"]
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.lines: queue.Queue[str] = queue.Queue()
        child, lines = self.child, self.lines
        threading.Thread(
            target=lambda: [lines.put(line) for line in child.stdout] + [lines.put("")], daemon=True
        ).start()

    def ask(self, request: dict[str, Any], timeout: float) -> Any:
        """The answer to a request, or how the process ended instead."""
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(request) + "\n")
        self.child.stdin.flush()
        try:
            line = self.lines.get(timeout=timeout)
        except queue.Empty:
            self.child.kill()
            self.child.wait()
            self.start()
            return "hang", f"no answer in {timeout:g} s"
        if line:
            return json.loads(line)
        code = self.child.wait()
        self.start()
        return "aborted", f"exit code {code}"

    def end(self) -> None:
        """No more requests."""
        self.child.stdin.close()
        self.child.wait()


def is_sensible(leaf: str, value: str) -> bool:
    """Whether a value makes sense for a setting."""
    return any(value in values and re.fullmatch(pattern, leaf) for pattern, values in SENSIBLE)


def report(ended: list[tuple[tuple[str, str, str], tuple[str, str]]], seconds: float) -> str:
    """A page about all cases."""
    counts = Counter(end for _, (end, _) in ended)
    senseless = sorted(
        {(leaf, value) for (_, leaf, value), (end, _) in ended if end == "accepted" and not is_sensible(leaf, value)}
    )
    bad = [(case, end) for case, end in ended if end[0] in ("traceback", "aborted", "hang")]
    return "\n".join(map(str, [counts, *senseless, *bad, seconds]))


def main() -> None:
    """Try all cases and write what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="a pattern of the problems that are tried")
    parser.add_argument("--output", type=Path, help="where the page goes; none: to the terminal alone")
    parser.add_argument("--log", type=Path, help="a file to add every case to, with its answer and seconds")
    arguments = parser.parse_args()
    if arguments.work:
        work()
        return
    started = time.monotonic()
    processes = [Process() for _ in range(arguments.workers)]
    cases: queue.Queue[Any] = queue.Queue()
    for case in processes[0].ask({"only": arguments.only}, 600):
        cases.put(tuple(case))
    ended: list[Any] = []

    def serve(process: Process) -> None:
        while True:
            try:
                case = cases.get_nowait()
            except queue.Empty:
                return process.end()
            begun = time.monotonic()
            # The first case of a process waits for torch, too.
            answer = tuple(process.ask({"case": case}, TIMEOUT))
            ended.append((case, answer))
            if arguments.log:
                with arguments.log.open("a") as log:
                    log.write(json.dumps([*case, *answer, time.monotonic() - begun]) + "\n")

    threads = [threading.Thread(target=serve, args=[process]) for process in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    page = report(ended, time.monotonic() - started)
    print(page)


if __name__ == "__main__":
    main()
