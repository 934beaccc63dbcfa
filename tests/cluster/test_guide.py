"""The commands of docs/cluster.md, run as they are written there, with fewer and shorter runs."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml
from local_slurm import cluster, lacking

from tests.test_cli import ROOT

pytestmark = pytest.mark.slow

GUIDE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
#: The indented lines of the guide that are commands; a comment or prose is not indented.
COMMANDS = re.findall(r"^    ((?:python|sparse-bench|pip) .*)$", GUIDE, re.MULTILINE)
SHORT = ["seed=0", "trainer.epochs=1", "dataset.corpus.examples=300", "point={density: 0.2, width: 8}"]
TRIALS = ["trainer.epochs=1", "dataset.corpus.examples=300", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2"]
FINISHED = "1 runs: 1 finished"


def test_the_guide_names_no_command_that_is_not_tried_here() -> None:
    assert len(COMMANDS) == 10
    assert sum("hydra/launcher=" in one for one in COMMANDS) == 7
    assert sum(one.startswith("sparse-bench status") for one in COMMANDS) == 2
    assert sum(one.startswith("pip install") for one in COMMANDS) == 1


@contextmanager
def ray_cluster(environment: dict[str, str]) -> Iterator[None]:
    """A Ray cluster that was started elsewhere. `ray stop` would end those of others too."""
    start = ["ray", "start", "--head", "--num-cpus=2", "--block"]
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(start, env=environment, cwd="/", stdout=pipe, stderr=both, text=True) as head:
        try:
            assert head.stdout is not None
            assert any("Ray runtime started" in line for line in head.stdout), "Ray does not start"
            yield
        finally:
            head.terminate()


@contextmanager
def ready(command: str) -> Iterator[dict[str, str]]:
    """The environment that a command needs: a Slurm or a Ray cluster that runs, or neither."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with ExitStack() as stack:
        if "slurm" in command and (reason := lacking()):
            pytest.skip(f"Slurm: {reason}")
        if "launcher=submitit" in command:
            pytest.importorskip("submitit", reason="pip install 'sparse_bench[slurm]'")
        if "slurm" in command and "local_slurm" not in command:
            environment |= stack.enter_context(cluster(cpus=2))
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        if "ray" in command:
            pytest.importorskip("ray", reason="pip install 'sparse_bench[ray]'")
        if "address=auto" in command:
            stack.enter_context(ray_cluster(environment))
        yield environment


@pytest.mark.parametrize("command", [one for one in COMMANDS if "hydra/launcher=" in one])
def test_a_command_of_the_guide_runs_a_sweep(command: str, tmp_path: Path) -> None:
    if "search=" in command:
        pytest.importorskip("optuna", reason="pip install 'sparse_bench[optuna]'")
    words = shlex.split(command.replace("scripts/", f"{ROOT}/scripts/"))
    short = [*TRIALS, "logger=none"] if "search=" in command else SHORT
    with ready(command) as environment:
        found = subprocess.run(
            [*words, *short], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500, check=False
        )
        assert found.returncode == 0, found.stdout + found.stderr
        results = list(tmp_path.glob("runs/*/*/*/result.json"))
        assert len(results) == (2 if "search=" in command else 1)
        if "search=" not in command:
            for status in (one for one in COMMANDS if one.startswith("sparse-bench status")):
                shown = subprocess.run(
                    shlex.split(status.removesuffix(" --watch")),
                    cwd=tmp_path,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=200,
                    check=False,
                )
                # The latest sweep has one run. The sweep as shipped has 24, none of which was started.
                assert ("1 finished" in shown.stdout) if status == "sparse-bench status" else ("24" in shown.stdout)


def test_the_command_of_a_sweep_of_weights_and_biases_runs(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    (line,) = re.findall(r"^    (command: \[.*)$", GUIDE, re.MULTILINE)
    words = yaml.safe_load(line)["command"]
    assert words[-1] == "${args_no_hyphens}"
    # The agent would insert the settings that it draws. It needs a server, so the record is kept on this machine here.
    drawn = ["optimizer.lr=0.002", "sparsity.density=0.3"]
    offline = ["logger.wandb.mode=offline" if word == "logger.wandb.mode=online" else word for word in words[:-1]]
    assert offline != words[:-1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    short = ["trainer.epochs=1", "dataset.corpus.examples=300"]
    command = [sys.executable if word == "python" else word for word in offline] + drawn + short
    found = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert len(list(tmp_path.glob("runs/rasa/diet/*/result.json"))) == 1
