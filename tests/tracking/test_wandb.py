import dataclasses
import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from sparse_bench.errors import ConfigError
from sparse_bench.tracking.base import Trackers
from sparse_bench.tracking.wandb import WandbTracker, fitting
from tests.tracking.wandb_file import items, of_kind, read_records


@pytest.fixture(autouse=True)
def session(tmp_path, monkeypatch):
    """A W&B session of its own: no settings of this machine's user, no report to W&B, a server that does not exist."""
    import wandb

    wandb.teardown()
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_DIR", "WANDB_RUN_ID", "WANDB_SERVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    wandb.teardown()


class Refusal(BaseHTTPRequestHandler):
    """A server that is there, but takes nobody's key."""

    def do_GET(self):
        self.reply(200)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.reply(401)

    def reply(self, code):
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def refusing_server(monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Refusal)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def records_of(info, name="rasa-diet"):
    import wandb

    wandb.teardown()  # finish() returns while W&B's service may still be writing; this waits until it has ended
    (path,) = info.folder.glob("wandb/offline-run-*/run-*.wandb")
    assert path.name == f"run-{name}-{info.id}.wandb"
    return read_records(path)


#: As a run's summary has it.
SPARSITY = {"sparsity/density_asked": 0.2, "sparsity/density": 0.21, "sparsity/weights": 226}


def follow(tracker, info, status="finished"):
    tracker.start(info)
    tracker.log({"train/loss": 3.0}, step=10, epoch=0)
    tracker.log({"train/loss": 4.0}, step=20, epoch=1)
    tracker.log({"train/loss": 2.0, "test/intent_f1": 0.5}, step=30, epoch=2)
    summary = {"test/intent_f1": 0.75, "valid/loss": 0.5, **SPARSITY}
    summary["seconds/total"] = 1.5
    tracker.finish(status, summary)


def test_offline_record_reads_back(info):
    follow(WandbTracker(tags=["night"], entity="team"), info)
    records = records_of(info)

    (run,) = of_kind(records, "run")
    assert (run.run_id, run.project, run.entity) == (f"rasa-diet-{info.id}", "sparse_bench", "team")
    assert (run.run_group, run.job_type, run.display_name) == ("rasa/diet", "random_connected", "diet/0.2/3")
    assert set(run.tags) == {"diet", "sara", "random_connected", "night"}
    config = items(run.config.update)
    assert {name: config[name] for name in info.config} == info.config
    assert config["labels"] == info.labels

    rows = [items(row.item) for row in of_kind(records, "history")]
    rows = [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]
    assert rows == [
        {"train/loss": 3.0, "step": 10, "epoch": 0},
        {"train/loss": 4.0, "step": 20, "epoch": 1},
        {"train/loss": 2.0, "test/intent_f1": 0.5, "step": 30, "epoch": 2},
        {"final/test/intent_f1": 0.75, "final/valid/loss": 0.5, **SPARSITY},
    ]

    summary = {}
    for record in of_kind(records, "summary"):
        summary |= items(record.update)
    assert summary["train/loss"] == {"min": 2, "max": 4, "last": 2}
    assert summary["final/test/intent_f1"] == 0.75
    assert {name: summary[name] for name in SPARSITY} == SPARSITY
    assert (summary["seconds/total"], summary["status"]) == (1.5, "finished")
    axes = {metric.name or metric.glob_name: metric.step_metric for metric in of_kind(records, "metric")}
    assert axes["train/loss"] == "step"
    assert axes["test/intent_f1"] == "epoch"
    assert axes["final/*"] == "sparsity/density"
    assert of_kind(records, "exit")[0].exit_code == 0


def digest(text):
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:8]


def test_names_that_wandb_refuses_are_recorded_as_others(info, caplog):
    """A comma or a colon in the experiment's name has cost the whole record."""
    labels = {**info.labels, "scheme": "s" * 70, "model": "m" * 140}
    info = dataclasses.replace(info, name=f"{'m' * 140}/0.2/3", experiment="night: a, b", labels=labels)
    with caplog.at_level(logging.WARNING):
        follow(WandbTracker(tags=["t" * 65], project="mine: 1/2"), info)
    path = next(info.folder.glob("wandb/offline-run-*/run-*.wandb"))
    assert path.name == f"run-night- a- b-{info.id}-{digest(f'night: a, b-{info.id}')}.wandb"
    import wandb

    wandb.teardown()
    (run,) = of_kind(read_records(path), "run")
    assert run.run_group == "night: a, b"
    assert run.job_type == "s" * 55 + "-" + digest("s" * 70)
    assert run.display_name == "m" * 119 + "-" + digest(info.name)
    assert run.project == f"mine- 1-2-{digest('mine: 1/2')}"
    long = {"m": 140, "s": 70, "t": 65}
    assert set(run.tags) == {f"{letter * 55}-{digest(letter * number)}" for letter, number in long.items()} | {"sara"}
    assert "does not accept the id 'night: a, b-" in caplog.text
    assert "does not accept the job type 'sss" in caplog.text
    assert len(of_kind(read_records(path), "history")) == 4


def test_what_wandb_refuses_is_what_is_replaced():
    """The package's own checks, so that a new version with others is found out."""
    import wandb

    for field, setting in (("id", "run_id"), ("project", "project")):
        for code in range(32, 127):
            value = f"a{chr(code)}b"
            wandb.Settings(**{setting: fitting(field, value)})
            try:
                wandb.Settings(**{setting: value})
            except Exception:
                assert fitting(field, value) != value
    assert fitting("id", "rasa/diet-0123") == "rasa-diet-0123"
    assert fitting("project", "it's, mine") == "it's, mine"
    for field, setting, most in (("project", "project", 128), ("tag", "run_tags", 64)):
        assert fitting(field, "x" * most) == "x" * most
        assert len(fitting(field, "x" * (most + 1))) == most
        with pytest.raises(Exception, match=str(most)):
            wandb.Settings(**{setting: "x" * (most + 1)})
    assert fitting("job type", "x" * 65) != fitting("job type", "x" * 66)


def test_wandb_and_tensorboard_at_once(info):
    config = {"wandb": {"_target_": "sparse_bench.tracking.wandb.WandbTracker"}}
    config["tensorboard"] = {"_target_": "sparse_bench.tracking.tensorboard.TensorBoardTracker"}
    trackers = Trackers.from_config(config)
    follow(trackers, info)
    assert set(trackers.active) == {"console", *config}  # none failed and was dropped
    assert len(of_kind(records_of(info), "history")) == 4
    assert list(info.folder.glob("tensorboard/events.out.tfevents.*"))


def test_a_failed_run_is_marked_failed(info):
    follow(WandbTracker(), info, status="failed")
    assert of_kind(records_of(info), "exit")[0].exit_code == 1


def test_unreachable_server_neither_fails_nor_holds_up_the_run(info, caplog):
    trackers = Trackers({"wandb": WandbTracker(mode="online", timeout=5)})
    begin = time.monotonic()
    with caplog.at_level(logging.WARNING):
        follow(trackers, info)
    assert time.monotonic() - begin < 15
    (warning,) = [record.message for record in caplog.records if record.name.startswith("sparse_bench")]
    assert "recorded offline (no answer from http://127.0.0.1:1" in warning
    assert len(of_kind(records_of(info), "history")) == 4  # nothing is lost


def test_rejected_key_falls_back_to_offline(info, caplog, refusing_server):
    with caplog.at_level(logging.WARNING):
        follow(WandbTracker(mode="online", timeout=5), info)
    assert "recorded offline (login at" in caplog.text
    assert len(of_kind(records_of(info), "history")) == 4


def test_no_key_falls_back_to_offline(info, caplog, refusing_server, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY")
    with caplog.at_level(logging.WARNING):
        follow(WandbTracker(mode="online", timeout=5), info)
    assert "no API key" in caplog.text
    assert len(of_kind(records_of(info), "history")) == 4


class Opened:
    """What the tracker does with a run that W&B opens."""

    offline, url = False, "http://wandb.invalid/run"

    def __init__(self):
        self.rows = []
        self.summary = {}

    def define_metric(self, *_, **__):
        pass

    def log(self, row):
        self.rows.append(row)

    def finish(self, exit_code):
        self.exit_code = exit_code


def test_an_online_run_that_was_interrupted_is_taken_up_again(info, monkeypatch):
    """The same run, for W&B: opened again by its id. An offline record has no run to go on with."""
    import wandb

    calls, runs = [], []

    def init(**arguments):
        calls.append(arguments)
        runs.append(Opened())
        runs[-1].offline = arguments["mode"] == "offline"
        runs[-1].settings = wandb.Settings()
        return runs[-1]

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(WandbTracker, "_obstacle", lambda self: None)
    interrupted = WandbTracker(mode="online")
    interrupted.start(info)
    interrupted.log({"train/loss": 3.0}, step=10, epoch=0)
    follow(WandbTracker(mode="online"), info)
    follow(WandbTracker(mode="offline"), info)
    assert [call["mode"] for call in calls] == ["online", "online", "offline"]
    assert [call["resume"] for call in calls] == ["allow", "allow", None]
    assert len({call["id"] for call in calls}) == 1
    assert info.id in calls[0]["id"]
    # A step that is repeated is a row like any other: W&B's own step is left alone, for it must not go back.
    assert [row["step"] for row in runs[1].rows[:3]] == [10, 20, 30]
    assert (runs[0].rows[-1]["step"], runs[1].exit_code) == (10, 0)


def test_disabled_writes_nothing(info):
    follow(WandbTracker(mode="disabled"), info)
    assert not info.folder.exists()


def test_finish_without_start_is_harmless():
    WandbTracker().finish("failed", {})


def test_unknown_mode():
    with pytest.raises(ConfigError, match="should be 'online', 'offline' or 'disabled'"):
        WandbTracker(mode="ofline")
