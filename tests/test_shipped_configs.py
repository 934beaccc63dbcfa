"""Every shipped configuration is composed, checked, instantiated and trained for a few steps."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from sparse_bench.config import CONF, build, check, choices, target_of
from sparse_bench.record import RunFolder
from sparse_bench.run import ModelFactory, run
from sparse_bench.streams import Streams
from sparse_bench.training.precision import Precision
from sparse_bench.training.trainer import Settings, Trainer

Compose = Callable[..., DictConfig]

#: Datasets that need no download, by the task that they are for, cut down to what a few steps need.
EMBEDDED = {"intent": ["dataset=sara_like", "dataset.corpus.examples=400"]}


def shipped(group: str, name: str) -> Any:
    return target_of(OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml")), group)


def embedded_for(model: str) -> list[str]:
    return EMBEDDED[shipped("model", model).tasks[0]]


def with_embedded_data(overrides: list[str], config: DictConfig) -> list[str]:
    return [*overrides, *EMBEDDED[target_of(OmegaConf.to_container(config.dataset), "dataset").name]]


def jobs(sweep: str) -> list[list[str]]:
    """The overrides of every job of a sweep file's first seed, as Hydra's own sweeper expands them."""
    node = OmegaConf.load(CONF / "sweep" / f"{sweep}.yaml")
    assert isinstance(node, DictConfig)
    axes = {**node.hydra.sweeper.params, "seed": str(node.hydra.sweeper.params.seed).split(",")[0]}
    parameters = [f"{key}={value}" for key, value in axes.items()]
    batches = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(parameters), None)
    return [[f"sweep={sweep}", *job] for job in batches[0]]


@pytest.mark.parametrize("model", choices("model"))
def test_declared_groups_match_and_cover_the_default(model: str, compose_config: Compose) -> None:
    config = compose_config(f"model={model}", *embedded_for(model))
    check(config)
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    task = build(plain["dataset"], _partial_=False)
    with torch.device("meta"):
        built = ModelFactory(plain["model"], task.sizes)()
    groups = built.layer_groups()
    assert set(groups) == set(type(built).groups)
    assert groups["default"]
    matrices = {name for name, parameter in built.named_parameters() if parameter.dim() == 2}
    for group, names in groups.items():
        assert set(names) <= matrices, group


@pytest.mark.parametrize("scheme", choices("sparsity"))
@pytest.mark.parametrize("model", choices("model"))
def test_every_pair_takes_a_full_step_on_the_meta_device(
    model: str, scheme: str, compose_config: Compose, tmp_path: Path
) -> None:
    """A tensor made on the wrong device and a hidden wait for the device both fail here, without a GPU."""
    config = compose_config(f"model={model}", f"sparsity={scheme}", *embedded_for(model))
    check(config)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    streams, device = Streams(0), torch.device("meta")
    task, attached = build(plain["dataset"], _partial_=False), build(plain["sparsity"])
    factory = ModelFactory(plain["model"], task.sizes)
    with device:
        built = attached.build(factory)
    attached.attach(built, streams)
    plain["optimizer"].pop("fused", None)  # torch has no fused step on this device
    optimizer = build(plain["optimizer"], _partial_=True)(built.parameters())
    settings = Settings(epochs=1, gradient_clip=1.0, progress=False)
    trainer = Trainer(
        task, built, attached, optimizer, settings, streams, Precision("fp32", device), device, RunFolder(tmp_path)
    )
    batch = next(task.epoch_batches(0, streams)).to(device)
    trainer.forward_backward(batch)
    trainer.update()
    assert trainer.progress.step == 1
    assert all(parameter.device == device for parameter in built.parameters())


@pytest.mark.parametrize("scheme", choices("sparsity"))
def test_a_scheme_file_names_all_settings_of_its_class(scheme: str) -> None:
    node = OmegaConf.load(CONF / "sparsity" / f"{scheme}.yaml")
    parameters = set(inspect.signature(shipped("sparsity", scheme)).parameters)
    assert set(node) - {"label", "_target_"} <= parameters


@pytest.mark.parametrize("optimizer", choices("optimizer"))
def test_optimizers(optimizer: str, compose_config: Compose, tmp_path: Path) -> None:
    trained = run(
        compose_config(
            f"optimizer={optimizer}",
            "dataset.corpus.examples=400",
            "model.transformer_size=8",
            "trainer.steps=2",
            "threads=1",
            f"output={tmp_path}",
        )
    )
    assert trained is not None
    assert trained.status == "finished", trained.error


@pytest.mark.parametrize("experiment", choices("experiment"))
def test_experiments(experiment: str, compose_config: Compose, tmp_path: Path) -> None:
    overrides = [f"experiment={experiment}"]
    config = compose_config(*overrides)
    check(config)
    small = compose_config(
        *with_embedded_data(overrides, config), "trainer.steps=2", "threads=1", f"output={tmp_path}", "logger=none"
    )
    result = run(small)
    assert result is not None
    assert result.status == "finished", result.error
    assert result.experiment == experiment
    assert result.steps == 2


@pytest.mark.parametrize("sweep", choices("sweep"))
def test_sweeps(sweep: str, compose_config: Compose, tmp_path: Path) -> None:
    """Every arm composes and can be run; the first one is, for two steps."""
    expanded = jobs(sweep)
    assert len({tuple(job) for job in expanded}) == len(expanded) > 1
    for job in expanded:
        check(compose_config(*job))
    config = compose_config(*expanded[0])
    small = compose_config(
        *with_embedded_data(expanded[0], config), "trainer.steps=2", "threads=1", f"output={tmp_path}", "logger=none"
    )
    result = run(small)
    assert result is not None
    assert result.status == "finished", result.error


@pytest.mark.parametrize("dataset", choices("dataset"))
def test_datasets_with_every_fitting_model(
    dataset: str,
    compose_config: Compose,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not dataset.endswith("_like"):
        monkeypatch.setenv("SPARSE_BENCH_MIRROR", str(request.getfixturevalue("shared_data")))
        monkeypatch.setenv("SPARSE_BENCH_DATA", str(tmp_path / "data"))
    task = shipped("dataset", dataset)
    for model in choices("model"):
        if task.name in shipped("model", model).tasks:
            config = compose_config(
                f"dataset={dataset}", f"model={model}", "trainer.steps=2", "threads=1", f"output={tmp_path}"
            )
            result = run(config)
            assert result is not None
            assert result.status == "finished", result.error
