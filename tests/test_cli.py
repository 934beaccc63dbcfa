"""The command line, as a user meets it: from any directory, in processes of its own."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from sparse_bench.config import CONF, run_id
from sparse_bench.record import RunFolder

ROOT = Path(__file__).resolve().parents[1]
KEPT = ("label", "_target_", "_partial_")
#: A run of seconds that needs no corpus: the toy model in place of the shipped one.
TOY = [
    "model._target_=tests.toy.ToyModel",
    "~model.transformer_size",
    "~model.layers",
    "~model.heads",
    "dataset._target_=tests.toy.ToyTask",
    *(f"~dataset.{key}" for key in OmegaConf.load(CONF / "dataset/sara_like.yaml") if key not in KEPT),
    "trainer.epochs=3",
    "sparsity=random",
    "logger=none",
]


def start(*arguments: str, cwd: Path, program: tuple[str, ...] = ("-m", "sparse_bench")) -> "subprocess.Popen[str]":
    environment = {key: value for key, value in os.environ.items() if key != "SPARSE_BENCH_RUNS"}
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=cwd,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def sparse_bench(
    *arguments: str, cwd: Path, program: tuple[str, ...] = ("-m", "sparse_bench")
) -> "subprocess.CompletedProcess[str]":
    process = start(*arguments, cwd=cwd, program=program)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def forked(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """The same command in a copy of this process, which has imported already what takes a new one seconds.

    It cannot train: torch computes no gradients in such a copy if this process has computed some before.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.stdout, sys.stderr, sys.argv = out, err, ["sparse_bench", *arguments]
                os.chdir(cwd)
                os.environ.pop("SPARSE_BENCH_RUNS", None)
                from sparse_bench.__main__ import main

                main()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
                print(end.code, file=err)
            except BaseException:
                traceback.print_exc(file=err)
            finally:
                out.flush()
                err.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(arguments, code, out.read(), err.read())


def metrics(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in folder.glob("runs/ad_hoc/*/metrics.jsonl")}


def test_a_sweep_goes_on_past_a_bad_job_and_exits_with_1(tmp_path: Path) -> None:
    task = "dataset._target_=tests.toy.GuessedTask"
    done = sparse_bench(*TOY, task, "sparsity.density=0.5,1.5,0.25", "-m", cwd=tmp_path)
    assert done.returncode == 1
    assert "'sparsity.density' = 1.5 does not fit: it has to be at most 1" in done.stderr
    assert "2 finished, 1 failed; 2 have warnings" in done.stdout + done.stderr
    assert len(list(tmp_path.glob("runs/ad_hoc/*/result.json"))) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


@pytest.mark.slow
def test_one_process_a_core_gives_the_same_bytes(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, arguments in ((one, ["threads=1"]), (other, ["hydra/launcher=joblib"])):
        folder.mkdir()
        done = sparse_bench(*TOY, "seed=0,1", *arguments, "-m", cwd=folder)
        assert done.returncode == 0, done.stderr
    assert metrics(one) == metrics(other)
    threads = {json.loads(path.read_text())["machine"]["threads"] for path in other.rglob("result.json")}
    assert threads == {1}


@pytest.mark.slow
def test_two_sweeps_over_one_folder_share_the_work(tmp_path: Path) -> None:
    first = start(*TOY, "seed=0,1,2", "wait_for_others=true", "-m", cwd=tmp_path)
    second = start(*TOY, "seed=2,1,0", "wait_for_others=true", "-m", cwd=tmp_path)
    errors = [process.communicate(timeout=300)[1] for process in (first, second)]
    assert first.returncode == second.returncode == 0, errors
    assert len(metrics(tmp_path)) == 3
    again = sparse_bench(*TOY, "seed=0,1,2", "-m", cwd=tmp_path)
    assert again.stderr.count("already finished, skipped") == 3


@pytest.mark.slow
def test_a_run_elsewhere_is_said_to_be_there_and_can_be_waited_for(tmp_path: Path) -> None:
    done = sparse_bench(*TOY, "seed=0,1", "-m", cwd=tmp_path)
    assert done.returncode == 0
    taken = min(tmp_path.rglob("result.json")).parent
    for path in taken.iterdir():
        path.unlink()
    with RunFolder(taken).lock() as held:  # as a process does that works on it
        assert held
        done = sparse_bench(*TOY, "seed=0,1", "-m", cwd=tmp_path)
        assert done.returncode == 1
        assert "2 runs: 1 finished, 1 running elsewhere" in done.stdout
        assert "with wait_for_others=true, this command waits" in done.stdout
        waiting = start(*TOY, "seed=0,1", "wait_for_others=true", "-m", cwd=tmp_path)
        assert waiting.stdout is not None
        seen = iter(waiting.stdout.readline, "")
        assert any("Waiting for 1 run" in line for line in seen)
    # That process has ended without a result, so the one that waited takes the run.
    out, errors = waiting.communicate(timeout=300)
    assert waiting.returncode == 0, errors
    assert "2 runs: 2 finished" in out
    assert json.loads((taken / "result.json").read_text())["status"] == "finished"


DEADLY = """
import os, signal
from tests.toy import ToyTask

class Deadly(ToyTask):
    def __init__(self, *, deadly: bool = False) -> None:
        super().__init__()
        self.deadly = deadly

    def epoch_batches(self, epoch, streams):
        if self.deadly and epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().epoch_batches(epoch, streams)
"""


@pytest.mark.slow
def test_a_run_whose_process_is_killed_fails_alone(tmp_path: Path) -> None:
    """As the system does when memory runs out; that run is told from the others, which all end well."""
    (tmp_path / "deadly.py").write_text(DEADLY)
    settings = [*TOY, "dataset._target_=deadly.Deadly", "+dataset.deadly=true,false"]
    done = sparse_bench(*settings, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "-m", cwd=tmp_path)
    assert done.returncode == 1
    assert "2 runs: 1 finished, 1 failed" in done.stdout
    results = [json.loads(path.read_text()) for path in tmp_path.rglob("result.json")]
    assert {(one["status"], one["config"]["dataset"]["deadly"]) for one in results} == {
        ("failed", True),
        ("finished", False),
    }
    (error,) = (one["error"] for one in results if one["error"])
    assert error["type"] == "KilledError"
    assert "killed by SIGKILL" in error["message"]
    assert not re.search("Traceback|leaked", done.stderr)


NO_ROOM = """
import errno, tempfile
def full(*arguments, **settings):
    raise OSError(errno.ENOSPC, "No space left on device")
tempfile.mkdtemp = tempfile.mkstemp = tempfile._mkstemp_inner = full
from sparse_bench.__main__ import main
main()
"""


def test_a_sweep_needs_no_temporary_files_and_leaves_none(tmp_path: Path) -> None:
    """Where there is no room for them it ended with 1 after good results, and each kill left a folder."""
    done = sparse_bench(*TOY, "seed=0,1", "-m", cwd=tmp_path, program=("-c", NO_ROOM))
    assert done.returncode == 0, done.stderr
    assert "2 runs: 2 finished" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


@pytest.mark.parametrize(("folder", "launcher"), [("file", "basic"), ("/proc/1/runs", "joblib")])
def test_a_sweep_into_a_folder_that_cannot_be_written_says_so(folder: str, launcher: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = forked(*TOY, f"output={folder}", f"hydra/launcher={launcher}", "-m", cwd=tmp_path)
    assert done.returncode == 1
    assert f"output='{folder}' cannot be written to" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_sweep_of_no_processes_is_refused(tmp_path: Path) -> None:
    done = forked(*TOY, "hydra/launcher=joblib", "hydra.launcher.n_jobs=0", "-m", cwd=tmp_path)
    assert done.returncode == 1
    assert "hydra.launcher.n_jobs must be a number of processes" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_killed_sweep_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    settings = [*TOY, "seed=0,1", "trainer.epochs=40", "trainer.checkpoint_seconds=0", "threads=1", "-m"]
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    undisturbed.mkdir()
    disturbed.mkdir()
    assert sparse_bench(*settings, cwd=undisturbed).returncode == 0
    process = start(*settings, cwd=disturbed)
    deadline = time.monotonic() + 120
    while not list(disturbed.glob("runs/ad_hoc/*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert list(disturbed.glob("runs/ad_hoc/*/checkpoint.pt"))
    assert len(list(disturbed.glob("runs/ad_hoc/*/result.json"))) < 2
    assert sparse_bench(*settings, cwd=disturbed).returncode == 0
    assert metrics(disturbed) == metrics(undisturbed)
    for path in undisturbed.rglob("result.json"):
        twin = disturbed / path.relative_to(undisturbed)
        assert json.loads(twin.read_text())["metrics"] == json.loads(path.read_text())["metrics"]


def children(process: "subprocess.Popen[str]") -> list[int]:
    """Processes of the command's session that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
            if int(session) == process.pid and state != "Z":
                found.append(int(path.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_stopped_sweep_leaves_no_process_behind(number: signal.Signals, code: int, tmp_path: Path) -> None:
    settings = ["trainer.epochs=100000", "trainer.checkpoint_seconds=0", "hydra/launcher=joblib", "seed=0,1", "-m"]
    process = start(*TOY, *settings, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/ad_hoc/*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, number)
    try:
        out, errors = process.communicate(timeout=60)
        assert process.returncode == code
        assert "Traceback" not in errors
        assert ("The same command resumes" in out + errors) == (number == signal.SIGTERM)
        while children(process) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not children(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("launcher", [pytest.param("basic", marks=pytest.mark.slow), "joblib"])
def test_a_run_that_is_told_to_stop_saves_a_checkpoint_first(launcher: str, tmp_path: Path) -> None:
    endless = [
        "trainer.epochs=100000",
        "trainer.checkpoint_seconds=100000",
        f"hydra/launcher={launcher}",
        "seed=0",
        "-m",
    ]
    process = start(*TOY, *endless, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/ad_hoc/*/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.terminate()
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "The same command resumes" in out + errors
    assert list(tmp_path.glob("runs/ad_hoc/*/checkpoint.pt"))


def test_a_sweep_may_end_with_its_first_failure(tmp_path: Path) -> None:
    bad = ["+dataset.bad_step=2,99", "seed=0,1", "stop_on_failure=true", "-m"]
    done = sparse_bench(*TOY, *bad, cwd=tmp_path)
    assert done.returncode == 1
    assert "4 runs: 0 finished, 1 failed, 3 left" in done.stdout
    assert len(list(tmp_path.glob("runs/ad_hoc/*/result.json"))) == 1


def test_a_result_that_cannot_be_read_stops_its_own_run_alone(
    tmp_path: Path, compose_config: Callable[..., DictConfig]
) -> None:
    identifier = run_id(compose_config(*TOY, "seed=0"))
    broken = tmp_path / "runs" / "ad_hoc" / identifier / "result.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{half a res")
    done = sparse_bench(*TOY, "seed=0,1", "-m", cwd=tmp_path)
    assert done.returncode == 1
    assert "Delete it to repeat the run" in done.stderr
    assert "1 finished, 1 failed" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert broken.read_text() == "{half a res"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sparsity=rand"], "random_connected"),
        (["sparsity.layers=[atention]"], "Did you mean 'attention'?"),
        (["trainer.epochs=many"], "trainer.epochs"),
        (["model.transformer_sizes=8"], "transformer_sizes"),
        (["device=tpu"], "Use auto, cpu, cuda"),
        (["+sede=1"], "Did you mean 'seed'?"),
        (["output=/dev/null/runs"], "cannot be written to"),
        (["logger=null"], "Valid choices: console"),
        (["experiment=rasa/diett"], "Did you mean 'rasa/diet'?"),
        (["device=mps"], "Use auto, cpu, cuda"),
    ],
)
def test_mistakes_are_named_without_a_traceback(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = forked(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_help_config_and_completion(tmp_path: Path) -> None:
    config = forked("experiment=rasa/diet", "--cfg", "job", cwd=tmp_path)
    assert config.returncode == 0
    assert "transformer_size: 256" in config.stdout
    assert "density: 0.2" in config.stdout
    assert forked("--info", "defaults-tree", cwd=tmp_path).returncode == 0
    completion = forked("completion", "bash", cwd=tmp_path)
    assert "complete -o nospace" in completion.stdout
