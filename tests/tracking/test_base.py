import logging
import subprocess
import sys

import pytest

from sparse_bench.errors import ConfigError
from sparse_bench.tracking.base import Tracker, Trackers


class Recorder(Tracker):
    """Notes its calls; raises in the methods named."""

    def __init__(self, *failing):
        self.failing = failing
        self.calls = []

    def _note(self, method, *arguments):
        self.calls.append((method, *arguments))
        if method in self.failing:
            raise ConnectionError("no route")

    def start(self, info):
        self._note("start", info)

    def log(self, metrics, step, epoch):
        self._note("log", metrics, step, epoch)

    def finish(self, status, summary):
        self._note("finish", status, summary)


def follow(trackers, info):
    trackers.start(info)
    trackers.log({"train/loss": 1.0}, step=5, epoch=0)
    trackers.log({"train/loss": 0.5}, step=10, epoch=1)
    trackers.finish("finished", {"test/intent_f1": 0.8})


def test_names_of_a_run(info):
    assert (info.job_type, info.name) == ("random_connected", "diet/0.2/3")


def test_every_tracker_sees_everything(info):
    one, two = Recorder(), Recorder()
    follow(Trackers({"one": one, "two": two}), info)
    assert one.calls == two.calls
    assert one.calls == [
        ("start", info),
        ("log", {"train/loss": 1.0}, 5, 0),
        ("log", {"train/loss": 0.5}, 10, 1),
        ("finish", "finished", {"test/intent_f1": 0.8}),
    ]


@pytest.mark.parametrize("method", ["start", "log", "finish"])
def test_a_failing_tracker_is_reported_once_and_dropped(info, caplog, method):
    bad, good = Recorder(method), Recorder()
    trackers = Trackers({"bad": bad, "good": good})
    with caplog.at_level(logging.WARNING):
        follow(trackers, info)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "'bad'" in caplog.text
    assert f"in {method}" in caplog.text
    assert "ConnectionError: no route" in caplog.text
    assert [call[0] for call in good.calls] == ["start", "log", "log", "finish"]
    assert list(trackers.active) == ["good"]
    assert [call[0] for call in bad.calls].count(method) == 1


def test_a_dropped_tracker_is_closed_as_failed(info):
    bad = Recorder("log", "finish")
    follow(Trackers({"bad": bad}), info)
    assert bad.calls[-1] == ("finish", "failed", {})


def test_an_interrupt_is_not_swallowed(info):
    class Interrupted(Recorder):
        def log(self, metrics, step, epoch):
            raise KeyboardInterrupt

    trackers = Trackers({"interrupted": Interrupted()})
    trackers.start(info)
    with pytest.raises(KeyboardInterrupt):
        trackers.log({}, step=0, epoch=0)


def test_from_config_builds_by_name():
    console = {"_target_": "sparse_bench.tracking.console.ConsoleTracker", "quiet": True}
    trackers = Trackers.from_config({"console": console})
    assert trackers.active["console"].quiet is True
    assert Trackers.from_config({}).active == {}


def test_from_config_gives_the_projects_own_error():
    config = {"wandb": {"_target_": "sparse_bench.tracking.wandb.WandbTracker", "mode": "ofline"}}
    with pytest.raises(ConfigError, match="should be 'online', 'offline' or 'disabled'"):
        Trackers.from_config(config)


def test_heavy_packages_are_imported_only_when_used():
    code = """
import sys
import sparse_bench.tracking.console, sparse_bench.tracking.tensorboard, sparse_bench.tracking.wandb
sparse_bench.tracking.wandb.WandbTracker(mode="disabled")
print(sorted({"torch", "hydra", "wandb", "tensorboard", "requests"} & set(sys.modules)))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
