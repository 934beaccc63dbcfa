"""What a command line names is checked before Hydra sees it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from sparse_bench.config import as_typed, check_command_line
from sparse_bench.errors import ConfigError


@pytest.mark.parametrize(
    "argument",
    [
        "experiment=rasa/diet",
        "experiment=rasa/diet,rasa/ted",
        "sweep=sparselang/fixed_size",
        "logger=[wandb,tensorboard]",
        "logger=none",
        "model=diet",
        "hydra/launcher=joblib",
        "hydra.sweep.dir=/tmp/x",
        "trainer.epochs=3",
        "trainer.schedule.gamma=0.5",
        "sparsity.density=0.1",
        "sparsity.layers=[a,b]",
        "dataset=${oc.env:D}",
        "experiment=glob(rasa/*)",
        "point={density: 0.1, width: 64}",
        "+mine=1",
        "~logger",
        "-m",
        "--cfg",
        "output=/a/b",
    ],
)
def test_what_is_left_to_hydra(argument: str) -> None:
    check_command_line([argument])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("experiment=rasa/diett", r"Unknown experiment 'rasa/diett'\. Did you mean 'rasa/diet'\?"),
        ("experiment=rasa/diet,rasa/nope", r"Unknown experiment 'rasa/nope'\..* Valid choices: benchmark/"),
        ("sweep=rasa/diet_densty", "Did you mean 'rasa/diet_density'"),
        ("logger=[wandb,foo]", r"Unknown logger 'foo'\. Valid choices: console, none, tensorboard, wandb"),
        ("logger=null", "logger=null: a group needs the name of a file.* Valid choices: console"),
        ("dataset=null", "Omit it to use its default. Valid choices: booking_like"),
        ("experiment=null", "experiment=null: .* Valid choices: benchmark/"),
        ("sweep=null", "sweep=null"),
        ("hydra/launcher=null", "hydra/launcher=null"),
        ("modle=diet", r"Unknown setting 'modle'\. Did you mean 'model'\?"),
        ("trainer.epoch=3", r"In 'trainer': Unknown setting 'epoch'\. Did you mean 'epochs'\?"),
    ],
)
def test_what_is_refused_with_the_valid_choices(argument: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_command_line(["seed=0", argument])


def test_a_group_set_to_null_is_refused_among_files_of_ones_own_too() -> None:
    with pytest.raises(ConfigError, match="model=null"):
        check_command_line(["--config-dir", "mine", "model=null"])


def test_files_of_ones_own_and_completion_are_no_mistakes() -> None:
    check_command_line(["--config-dir", "mine", "experiment=mine/own"])
    check_command_line(["-sc", "install=bash"])
    check_command_line(["hydra.searchpath=[file://mine]", "model=mine", "mine@dataset=b"])


@pytest.mark.parametrize(
    ("argument", "setting", "expected"),
    [
        ("experiment_name=2024_01_15", "experiment_name", "2024_01_15"),
        ("experiment_name=1e3", "experiment_name", "1e3"),
        ("++experiment_name=1e+3", "experiment_name", "1e+3"),
        ("experiment_name=true", "experiment_name", "true"),
        ("experiment_name=0x10", "experiment_name", "0x10"),
        ("experiment_name='a,b: c'", "experiment_name", "a,b: c"),
        ("output=1_0", "output", "1_0"),
        ("start_from=2024_01_15", "start_from", "2024_01_15"),
        ("start_from=null", "start_from", None),
        ("device=cuda:1", "device", "cuda:1"),
        ("output=${experiment_name}", "output", "ad_hoc"),
        ("seed=1_0", "seed", 10),
    ],
)
def test_text_stays_as_it_was_typed(
    argument: str, setting: str, expected: object, compose_config: Callable[..., DictConfig]
) -> None:
    assert compose_config(*as_typed([argument]))[setting] == expected


def test_text_of_a_sweep_stays_as_it_was_typed() -> None:
    assert as_typed(["experiment_name=1e3,2024_01_15", "-m"]) == ["experiment_name='1e3','2024_01_15'", "-m"]
    assert as_typed(["model=diet", "experiment_name=glob(a*)"]) == ["model=diet", "experiment_name=glob(a*)"]


@pytest.mark.parametrize("name", ["my (1), it's.txt", "a b.txt", "2024", "[x].txt", "plain.txt"])
def test_paths_of_data_stay_as_they_were_typed(
    name: str, compose_config: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    for path in (name, str(tmp_path / name)):
        if path in ("2024", "[x].txt"):  # a number and a list unless they are quoted
            assert as_typed([f"dataset.train={path}"]) == [f"dataset.train={path}"]
        else:
            typed = as_typed(["dataset=text_lm", f"dataset.train={path}", "dataset.valid=0.2"])
            config = compose_config(*typed)
            assert (config.dataset.train, config.dataset.valid) == (path, 0.2)
    assert as_typed(["dataset.train=a.txt,b.txt"]) == ["dataset.train=a.txt,b.txt"]
    assert as_typed([f"dataset.train={'x' * 5000}"])
