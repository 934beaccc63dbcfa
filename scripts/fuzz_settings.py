"""Give every setting that the shipped configuration files hold values that it should not have, and see what happens.

    python scripts/fuzz_settings.py --workers 2 --output results/robustness/fuzz.md

Every leaf of every file of every group, every setting of a run itself and every schedule and stopping rule gets every
value of ``fuzz_cases.VALUES``, one at a time, in an otherwise small run, which takes one step on generated data if
nothing refuses it. A good end is a refusal by Hydra's schema or by an error of the project. A traceback, an aborted
process and a hang are bad ones. A value that is taken, and not named in ``fuzz_cases.SENSIBLE``, counts as senseless.

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
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from fuzz_cases import ALWAYS, SMALL, VALUES, is_sensible, leaves_of, problems, task_of

#: Problem, setting, name of the value.
Case = tuple[str, str, str]
#: Ends that no case should have.
BAD = ("traceback", "aborted", "hang")
#: Seconds without an answer, after which a worker hangs.
TIMEOUT = 90
MOST_SENSELESS = 10
#: Address space of a worker, in bytes: a model for which a machine is too small must not take this one with it.
MEMORY = 12 << 30


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


def report(ended: list[tuple[Case, tuple[str, str]]], seconds: float) -> tuple[str, bool]:
    """A page about all cases, and whether it says what it should."""
    ends = ("refused by Hydra", "refused before any work", "refused by the run", "accepted", *BAD)
    by_group: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (name, _, _), (end, _) in ended:
        by_group[name.partition("/")[0]][end] += 1
        by_group["all"][end] += 1
    rows = [
        f"| {group} | {counts.total():,} | " + " | ".join(f"{counts[end]:,}" for end in ends) + " |"
        for group, counts in sorted(by_group.items(), key=lambda entry: (entry[0] == "all", entry[0]))
    ]
    accepted = {(leaf, value) for (_, leaf, value), (end, _) in ended if end == "accepted"}
    senseless = sorted(case for case in accepted if not is_sensible(*case))
    bad = sorted((name, leaf, value, *end) for (name, leaf, value), end in ended if end[0] in BAD)
    page = [
        "# Values that settings should not have",
        "",
        f"Every setting of the shipped files with each of {len(VALUES)} values ({', '.join(VALUES)}), one at a time: "
        f"{len(ended):,} cases, {len({leaf for (_, leaf, _), _ in ended})} settings. What nothing refused took a step "
        "on generated data and was evaluated. Loggers were made, and opened nothing. Corpora that have to be "
        "downloaded were checked and not read. `refused by the run` means by an error of the project, where only "
        "a corpus or a built model can judge.",
        "",
        "| group | cases | " + " | ".join(ends) + " |",
        "| --- " + "| ---: " * (len(ends) + 1) + "|",
        *rows,
        "",
        f"## Taken, and senseless: {len(senseless)} of the {len(accepted)} pairs of setting and value that are taken",
        "",
        *([f"- `{leaf}`: {value}" for leaf, value in senseless] or ["None."]),
        "",
        f"## Tracebacks, aborted processes, hangs: {len(bad)}",
        "",
        *([f"- `{leaf}` of {name}: {value}: {end}, {said[:200]}" for name, leaf, value, end, said in bad] or ["None."]),
        "",
    ]
    print(f"{seconds:.0f} s")
    return "\n".join(page), not bad and len(senseless) <= MOST_SENSELESS


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
    page, good = report(ended, time.monotonic() - started)
    print(page)
    if arguments.output is not None:
        arguments.output.write_text(page, encoding="utf-8")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
