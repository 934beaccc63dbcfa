import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from sparse_bench.tracking.base import Trackers

LOGGERS = Path(__file__).resolve().parents[2] / "conf" / "logger"


@pytest.fixture
def loggers(tmp_path):
    """A function: command-line overrides → names of the loggers that a configuration with a default list then has."""
    shutil.copytree(LOGGERS, tmp_path / "logger")
    (tmp_path / "config.yaml").write_text("defaults:\n  - logger: [console]\n  - _self_\n")

    def chosen(*overrides):
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            return compose("config", overrides=list(overrides)).logger

    return chosen


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ([], ["console"]),
        (["logger=wandb"], ["wandb"]),
        (["logger=[wandb]"], ["wandb"]),
        (["logger=[console,wandb]"], ["console", "wandb"]),
        (["logger=[console,wandb,tensorboard]"], ["console", "wandb", "tensorboard"]),
        (["logger=none"], []),
    ],
)
def test_single_and_list_overrides(loggers, overrides, names):
    assert list(loggers(*overrides)) == names


def test_settings_of_a_chosen_logger_can_be_overridden(loggers):
    config = loggers("logger=[console,wandb]", "logger.wandb.mode=online", "logger.console.quiet=true")
    assert (config.wandb.mode, config.console.quiet) == ("online", True)


@pytest.mark.parametrize("name", sorted(path.stem for path in LOGGERS.glob("*.yaml")))
def test_every_logger_can_be_built(loggers, name):
    trackers = Trackers.from_config(loggers(f"logger={name}"))
    assert list(trackers.active) == ([] if name == "none" else list(dict.fromkeys(["console", name])))
