"""What is no model, no task, no scheme, or does not fit where it goes, is named before any work."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from omegaconf import DictConfig

from sparse_bench import environment
from sparse_bench.config import check
from sparse_bench.errors import ConfigError
from sparse_bench.run import run
from tests.toy import ToyModel

if TYPE_CHECKING:
    from tests.toy import Sizes

Make = Callable[..., DictConfig]


#: What torch's optimizers accept, and nothing is learned with.
SENSELESS: list[tuple[str, str, Any]] = [
    ("Adam", "lr", 0),
    ("Adam", "lr", -1e-3),
    ("Adam", "betas", [0.9, 1.0]),
    ("Adam", "betas", [-0.1, 0.9]),
    ("Adam", "betas", [0.9]),
    ("AdamW", "eps", 0.0),
    ("AdamW", "eps", -1e-8),
    ("AdamW", "weight_decay", -0.1),
    ("SGD", "momentum", 1.5),
    ("SGD", "momentum", 1.0),
    ("SGD", "dampening", -0.5),
    ("RMSprop", "alpha", 1.5),
    ("RMSprop", "alpha", 1.0),
    ("Adagrad", "lr_decay", -1.0),
    ("Adadelta", "rho", 1.0),
    ("Adafactor", "eps", [None, 0.0]),
]


@pytest.mark.parametrize(("optimizer", "key", "value"), SENSELESS)
def test_settings_with_which_nothing_is_learned(optimizer: str, key: str, value: Any, toy_config: Make) -> None:
    node = {"label": "x", "_target_": f"torch.optim.{optimizer}", "_partial_": True, "lr": 0.01, key: value}
    with pytest.raises(ConfigError, match=rf"'optimizer\.{key}' = .* does not fit"):
        check(toy_config(optimizer=node))


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        ("Adam", {"betas": [0.0, 0.999], "eps": 1e-7}),
        ("SGD", {"momentum": 0.0, "dampening": 1.0}),
        ("Adafactor", {"eps": [None, 1e-3]}),
        ("NAdam", {"momentum_decay": 0.0}),
        ("Adagrad", {"initial_accumulator_value": 0.1}),
    ],
)
def test_settings_at_the_ends_of_their_ranges(optimizer: str, settings: dict[str, Any], toy_config: Make) -> None:
    check(toy_config(optimizer={"_target_": f"torch.optim.{optimizer}", "_partial_": True, "lr": 0.01, **settings}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model___target_": "abc"}, r"'model\._target_' names abc, which is neither a class nor a function"),
        ({"model___target_": "abc.ABC"}, r"has no tasks and no groups and no layer_groups\. Valid choices: awd_lstm"),
        ({"model___target_": "builtins.dict"}, "has no tasks"),
        ({"model___target_": "tests.toy.ToyTask"}, "has no tasks"),
        ({"model": None}, "'model' needs a _target_"),
        ({"dataset___target_": "tests.toy.ToyModel"}, "has no name and no splits"),
        (
            {"sparsity": {"_target_": "sparse_bench.sparsity.scheme.MaskScheme"}},
            "'sparsity' cannot be built: .*abstract",
        ),
        ({"sparsity___partial_": True}, "'sparsity._target_' names .* has no build"),
        ({"optimizer": {"_target_": "builtins.dict", "_partial_": True}}, "'optimizer"),
        ({"trainer__stop": {"_target_": "builtins.dict"}}, "has no metric and no stops"),
        ({"trainer__schedule": {"_target_": "builtins.dict"}}, "has no factor"),
        ({"trainer__deterministic": 7}, "'trainer.deterministic' = 7 does not fit: it has to be true or false"),
        ({"logger": {"console": "abc"}}, "'logger.console' needs a _target_"),
        ({"logger": {"console": None}}, "'logger.console' needs a _target_"),
        ({"logger": {"mine": {"_target_": "builtins.dict"}}}, "has no start and no log and no finish"),
        ({"logger": "console"}, "'logger' must name loggers, not be 'console': console, none"),
        ({"optimizer__lr": 1e12}, "'optimizer.lr' = 1000000000000.0 does not fit: it has to be at most 1000000"),
        ({"model__label": ""}, "'model.label' = '' does not fit"),
        ({"model___partial_": 7}, "'model._partial_' = 7 does not fit: it has to be true or false"),
        ({"threads": 10**9}, "'threads' = 1000000000 does not fit: it has to be at most 1000"),
        ({"seed": -1}, "'seed' = -1 does not fit: it has to be at least 0"),
        ({"trainer__gradient_clip": float("nan")}, "'trainer.gradient_clip' = nan does not fit"),
    ],
)
def test_what_cannot_be_a_part_of_a_run(settings: dict[str, Any], message: str, toy_config: Make) -> None:
    config = toy_config(**settings)
    with pytest.raises(ConfigError, match=message):
        check(config)


def test_a_corpus_of_another_task_is_refused(compose_config: Make) -> None:
    config = compose_config("dataset=sara_like", "dataset.corpus={_target_: sparse_bench.data.ted.ted}")
    del config.dataset.corpus.seed, config.dataset.corpus.examples
    with pytest.raises(ConfigError, match="builds DialogueCorpus and not NluCorpus"):
        check(config)


def test_an_object_has_to_be_made_by_a_target(compose_config: Make) -> None:
    """Nothing is made of a dictionary's entries, as pydantic would of those of a dataclass."""
    config = compose_config("sparsity=sparse_gradient", "model=bag_of_embeddings", "dataset=text_types_like")
    config.sparsity.combined_with = {"density": 0.5}
    with pytest.raises(ConfigError, match=r"'sparsity\.combined_with' needs a _target_"):
        check(config)


def test_a_model_larger_than_the_machine_is_refused_before_it_is_made(
    toy_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cpu")
    there = environment.memory_bytes(device)
    assert there is None or there > 10**8
    monkeypatch.setattr(environment, "memory_bytes", lambda device: 10**6)
    small = run(toy_config())
    assert small is not None
    assert small.status == "finished"
    # 4 bytes · (8 · 600 + 600 · 600 + …) = 1.5 MB
    large = run(toy_config(model__width=600))
    assert large is not None
    assert large.error is not None
    assert large.error["message"].startswith("The model's weights alone take 0.0 GB, and this cpu has")


def test_annotations_for_type_checkers_alone_do_not_matter(toy_config: Make, tmp_path: Path) -> None:
    result = run(toy_config(model___target_="tests.config.test_checks.Annotated"))
    assert result is not None
    assert result.status == "finished"


class Annotated(ToyModel):
    """A model whose author imports a type for annotations alone."""

    def __init__(self, sizes: "Sizes", *, width: int = 16, dropout: float = 0.1) -> None:
        super().__init__(sizes, width=width, dropout=dropout)
