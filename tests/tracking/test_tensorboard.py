import importlib.util

import pytest

from sparse_bench.errors import ConfigError
from sparse_bench.tracking.tensorboard import TensorBoardTracker, flatten


def test_flatten():
    nested = {"a": {"b": 1, "c": [1, "x"]}, "d": None, "e": True, "f": "text", "g": {}}
    assert flatten(nested) == {"a/b": 1, "a/c": "[1, 'x']", "d": "None", "e": True, "f": "text"}


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'sparse_bench\[tensorboard\]'"):
        TensorBoardTracker()


@pytest.mark.parametrize("subfolder", ["../x", "a/../../x", "/tmp/x"])
def test_files_outside_the_run_s_folder_are_refused(subfolder):
    with pytest.raises(ConfigError, match="must be below the run's own folder"):
        TensorBoardTracker(subfolder)


def test_finish_without_start_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    TensorBoardTracker().finish("failed", {})
    assert list(tmp_path.iterdir()) == []


def test_event_files_read_back_after_a_resumed_run(info):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    broken = TensorBoardTracker()
    broken.start(info)
    for epoch in range(3):
        broken.log({"train/loss": 100.0 + epoch}, step=10 * (epoch + 1), epoch=epoch)

    resumed = TensorBoardTracker()
    resumed.start(info)
    resumed.log({"train/loss": 0.5, "test/intent_f1": 0.75}, step=20, epoch=1)
    resumed.finish("finished", {"test/intent_f1": 0.75, "sparsity/density": 0.25})

    folder = info.folder / "tensorboard"
    assert all(path.is_file() for path in folder.iterdir())  # no folders of runs within the run
    events = EventAccumulator(str(folder)).Reload()

    def scalars(name):
        return [(event.step, event.value) for event in events.Scalars(name)]

    assert scalars("train/loss") == [(10, 100.0), (20, 0.5)]
    assert scalars("epoch") == [(10, 0.0), (20, 1.0)]
    assert scalars("test/intent_f1") == [(20, 0.75)]
    assert scalars("final/test/intent_f1") == [(20, 0.75)]
    assert scalars("final/sparsity/density") == [(20, 0.25)]

    start = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    values = HParamsPluginData.FromString(start).session_start_info.hparams
    assert values["model/layers"].number_value == 2
    assert values["model/sizes"].string_value == "[256, 128]"
    assert values["labels/scheme"].string_value == "random_connected"
    assert values["id"].string_value == info.id
