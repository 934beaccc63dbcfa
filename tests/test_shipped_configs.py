"""Every shipped configuration is composed, checked, instantiated and trained for a few steps."""

import inspect
import json
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from sparse_bench import sweeps
from sparse_bench.config import CONF, TrainerConfig, build, check, choices, target_of
from sparse_bench.errors import ConfigError
from sparse_bench.model_factory import ModelFactory
from sparse_bench.record import RunFolder
from sparse_bench.run import run
from sparse_bench.streams import Streams
from sparse_bench.training.precision import Precision
from sparse_bench.training.trainer import Trainer

Compose = Callable[..., DictConfig]

#: Datasets that need no download, by the task that they are for, cut down to what a few steps need.
EMBEDDED = {
    "intent": ["dataset=sara_like", "dataset.corpus.examples=400"],
    "language_modelling": [
        "dataset=ptb_like",
        "dataset.corpus.sentences=60",
        "dataset.corpus.types=100",  # so few sentences hold most of them, if a part of a corpus is not a part of these
        "dataset.corpus.fraction=1.0",
        "dataset.batch_size=4",
        "dataset.bptt=8",
        "dataset.test_batch_size=4",
    ],
    "dialogue": ["dataset=booking_like", "dataset.corpus.stories=20", "dataset.corpus.test_stories=5"],
    "tagging": ["dataset=pos_like", "dataset.corpus.sentences=200"],
    "text_typing": ["dataset=text_types_like", "dataset.corpus.examples=400"],
    "translation": [
        "dataset=multi30k_like",
        "dataset.corpus.train=200",
        "dataset.corpus.valid=20",
        "dataset.corpus.test=20",
        "dataset.beam=2",
    ],
}

#: Training files for the datasets that read a user's own, in docs/examples/data.
OWN = {
    "conll": "tagged.conll",
    "parallel": "[captions.en,captions.de]",
    "rasa_nlu": "assistant",
    "rasa_stories": "assistant",
    "text_classes": "messages.tsv",
    "text_intents": "messages.tsv",
    "text_lm": "text.txt",
}

#: What is left out where whole datasets are read, because it takes too long with models of full size.
ABRIDGED = {
    "translation": ["dataset.translate=false"],
    "language_modelling": [
        "model.hidden=16",
        "model.embedding_dim=8",
        "dataset.corpus.vocabulary=100",
        "dataset.valid_batch_size=100",
        "dataset.test_batch_size=100",
    ],
}
#: Widths for models that take long at full size.
NARROW = {
    "awd_lstm": ["model.hidden=64", "model.embedding_dim=24"],
    "lstm_lm": ["model.hidden=576"],  # the sparsest shipped arm still has a weight for each of its units
    "transformer": ["model.d_model=64", "model.d_inner=64"],
}

#: The table of schemes and models, and the row for schemes without a row of their own.
TABLE, OTHERS = CONF.parents[0] / "docs" / "schemes_models.md", "all others"


def shipped(group: str, name: str) -> Any:
    return target_of(OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml")), group)


def embedded_for(model: str) -> list[str]:
    return EMBEDDED[shipped("model", model).tasks[0]]


def with_embedded_data(overrides: list[str], config: DictConfig) -> list[str]:
    return [*overrides, *EMBEDDED[target_of(OmegaConf.to_container(config.dataset), "dataset").name]]


@cache
def table() -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Scheme → model → cell of the docs' table; and number of a reason → a phrase of the error message."""
    text = TABLE.read_text(encoding="utf-8")
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    cells = {row[0].strip("`"): dict(zip(header[1:], row[1:], strict=True)) for row in rows}
    reasons = re.findall(r"^(\d+)\. .*?The message\s+says\s+`([^`]+)`\.$", text, re.MULTILINE | re.DOTALL)
    return cells, dict(reasons)


def test_the_table_of_schemes_and_models_names_those_that_exist() -> None:
    cells, reasons = table()
    assert set(cells) <= {*choices("sparsity"), OTHERS}
    assert all([*row] == [*cells[OTHERS]] and set(row) == set(choices("model")) for row in cells.values())
    used = {number for row in cells.values() for cell in row.values() for number in re.findall(r"\b\d\b", cell)}
    assert used == set(reasons)


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


@cache  # a model meets every scheme on the same data
def built_once(dataset: str) -> Any:
    return build(json.loads(dataset), _partial_=False)


def on_meta(plain: Any) -> tuple[Any, Any, Any]:
    """Task, model and attached scheme of a checked configuration, without numbers."""
    check(OmegaConf.create(plain))
    task, scheme = built_once(json.dumps(plain["dataset"])), build(plain["sparsity"])
    with torch.device("meta"):
        model = scheme.build(ModelFactory(plain["model"], task.sizes))
    scheme.attach(model, Streams(0))
    return task, model, scheme


def pairs() -> list[Any]:
    """All pairs of a model and a scheme.

    By default run those that the table does not just call "yes", and for each scheme two models, which take turns. The
    others are slow.
    """
    models, cells = choices("model"), table()[0]
    found = []
    for number, scheme in enumerate(choices("sparsity")):
        row = cells.get(scheme, cells[OTHERS])
        turns = [models[(number + turn) % len(models)] for turn in range(len(models))]
        default = {*[model for model in turns if row[model] == "yes"][:2], *(m for m in models if row[m] != "yes")}
        found += [pytest.param(m, scheme, marks=[] if m in default else pytest.mark.slow) for m in models]
    return found


def test_the_default_pairs_have_every_scheme_and_every_model_twice() -> None:
    default = [pair.values for pair in pairs() if not pair.marks]
    for position, names in enumerate((choices("model"), choices("sparsity"))):
        counts = Counter(pair[position] for pair in default)
        assert min(counts[name] for name in names) >= 2


@pytest.mark.parametrize(("model", "scheme"), pairs())
def test_every_pair_takes_a_full_step_on_the_meta_device(
    model: str, scheme: str, compose_config: Compose, tmp_path: Path
) -> None:
    """Or is refused, as the docs' table says.

    A tensor made on the wrong device and a hidden wait for the device both fail here, without a GPU.
    """

    def composed(*settings: str) -> Any:
        config = compose_config(f"model={model}", *embedded_for(model), *NARROW.get(model, []))
        config.sparsity = compose_config(f"sparsity={scheme}", *settings).sparsity  # for all its models
        return OmegaConf.to_container(config, resolve=True)

    cells, reasons = table()
    cell = cells.get(scheme, cells[OTHERS])[model]
    setting = re.findall("`(.+)`", cell)
    if cell != "yes":
        with pytest.raises(ConfigError, match=re.escape(reasons[re.findall(r"\b\d\b", cell)[-1]])):
            on_meta(composed())
        if not setting:
            return
    plain, device = composed(*setting), torch.device("meta")
    task, built, attached = on_meta(plain)
    plain["optimizer"].pop("fused", None)  # torch has no fused step on this device
    optimizer = build(plain["optimizer"], _partial_=True)(built.parameters())
    settings = TrainerConfig(epochs=100, gradient_clip=1.0)  # so many that no scheme prunes after the first step
    trainer = Trainer(
        task, built, attached, optimizer, settings, Streams(0), Precision("fp32", device), device, RunFolder(tmp_path)
    )
    batch = next(task.epoch_batches(0, Streams(0))).to(device)
    trainer.forward_backward(batch)
    trainer.update()
    assert trainer.progress.step == 1
    assert all(parameter.device == device for parameter in built.parameters())


@pytest.mark.parametrize("scheme", choices("sparsity"))
def test_a_scheme_file_names_all_settings_of_its_class(scheme: str) -> None:
    node = OmegaConf.load(CONF / "sparsity" / f"{scheme}.yaml")
    parameters = set(inspect.signature(shipped("sparsity", scheme)).parameters)
    assert set(node) - {"label", "defaults", "_target_", "_convert_"} <= parameters


@pytest.mark.parametrize("optimizer", choices("optimizer"))
def test_optimizers(optimizer: str, compose_config: Compose, tmp_path: Path) -> None:
    # One that looks at evaluations needs a validation split to look at.
    observes = getattr(shipped("optimizer", optimizer), "observes", False)
    model = ["model=awd_lstm", "model.hidden=8"] if observes else ["model=diet", "model.transformer_size=8"]
    data = EMBEDDED["language_modelling" if observes else "intent"]
    overrides = [f"optimizer={optimizer}", *model, *data, "trainer.steps=2", "threads=1", f"output={tmp_path}"]
    trained = run(compose_config(*overrides))
    assert trained is not None
    assert trained.status == "finished", trained.error


def brief(overrides: list[str], whole: DictConfig, compose_config: Compose, output: Path) -> DictConfig:
    """Two steps on embedded data of what ``overrides`` compose, after as many of what that starts from, if anything."""
    shortened = ["trainer.steps=2", "threads=1", f"output={output}", "logger=none"]
    narrow = NARROW.get(whole.model.label, [])
    config = compose_config(*with_embedded_data(overrides, whole), *narrow, *shortened)
    if config.start_from is not None:
        first = [f"experiment={config.start_from}"]
        run(brief(first, compose_config(*first), compose_config, output))
    return config


@pytest.mark.parametrize("experiment", choices("experiment"))
def test_every_experiment_is_composed_and_checked(experiment: str, compose_config: Compose) -> None:
    config = compose_config(f"experiment={experiment}")
    check(config)
    assert config.experiment_name == experiment


#: One experiment of each model, and one with two stages. The others are trained where all tests run.
TRAINED = {
    *("rasa/diet", "rasa/ted", "brouns/set", "demeester/awd_sparse_finetune", "demeester/pos_sparse"),
    *("embeddings/sparse", "sparselang/sparse"),
}


def test_the_experiments_that_are_trained_by_default_have_all_models(compose_config: Compose) -> None:
    configs = [compose_config(f"experiment={name}") for name in TRAINED]
    assert {config.model.label for config in configs} == set(choices("model"))
    assert any(config.start_from for config in configs)


@pytest.mark.parametrize(
    "experiment",
    [pytest.param(name, marks=[] if name in TRAINED else pytest.mark.slow) for name in choices("experiment")],
)
def test_experiments(experiment: str, compose_config: Compose, tmp_path: Path) -> None:
    overrides = [f"experiment={experiment}"]
    config = compose_config(*overrides)
    result = run(brief(overrides, config, compose_config, tmp_path))
    assert result is not None
    assert result.status == "finished", result.error
    assert result.experiment == experiment
    assert result.steps == 2
    task = target_of(OmegaConf.to_container(config.dataset), "dataset")
    watched = {name.split("/")[1] for name in result.metrics if name.split("/")[0] == task.splits[0]}
    assert task.monitor[0] in watched <= set(task.metrics)


@pytest.mark.parametrize("sweep", choices("sweep"))
def test_sweeps(sweep: str, compose_config: Compose, tmp_path: Path) -> None:
    """Every arm composes and can be run. The first one is, for two steps, where it is no shipped experiment itself."""
    found = sweeps.jobs(sweep, tmp_path)
    first = [job for job in found if job.config.seed == found[0].config.seed]
    assert len({job.arm for job in first}) == len(first)
    # The arm that sparselang/initial is compared with is one of sparselang/fixed_size.
    assert len(first) > 1 or sweep == "sparselang/initial"
    for job in first:
        check(job.config)
    if found[0].experiment in choices("experiment"):
        return  # test_experiments trains it
    overrides = [f"sweep={sweep}", *sweeps.overrides(sweep)[0]]
    result = run(brief(overrides, found[0].config, compose_config, tmp_path))
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
    own = [f"dataset.train={OWN[dataset]}"] if dataset in OWN else []
    if own:
        monkeypatch.chdir(CONF.parent / "docs" / "examples" / "data")
    elif not dataset.endswith("_like"):
        monkeypatch.setenv("SPARSE_BENCH_MIRROR", str(request.getfixturevalue("shared_data")))
        monkeypatch.setenv("SPARSE_BENCH_DATA", str(tmp_path / "data"))
    task = shipped("dataset", dataset)
    for model in choices("model"):
        if task.name in shipped("model", model).tasks:
            abridged = [*NARROW.get(model, []), *ABRIDGED.get(task.name, [])]
            overrides = [f"dataset={dataset}", f"model={model}", *own, *abridged]
            config = compose_config(*overrides, "trainer.steps=2", "threads=1", f"output={tmp_path}")
            result = run(config)
            assert result is not None
            assert result.status == "finished", result.error
