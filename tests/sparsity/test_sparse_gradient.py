"""The scheme of sparse gradients on the project's models: what it selects, what it refuses, what goes with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from sparse_bench.batch.text import TextSizes
from sparse_bench.config import TrainerConfig, build, check
from sparse_bench.errors import ConfigError
from sparse_bench.model_factory import ModelFactory
from sparse_bench.models.bag_of_embeddings import BagOfEmbeddings
from sparse_bench.record import RunFolder
from sparse_bench.row_sparse import RowSparseLayer, RowSparseUpdates
from sparse_bench.run import run
from sparse_bench.sparsity.counting import count
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.sparsity.schemes.embedding_tiers import EmbeddingTiers
from sparse_bench.sparsity.schemes.random import Random
from sparse_bench.sparsity.schemes.set import SET
from sparse_bench.sparsity.schemes.sparse_gradient import SparseGradient
from sparse_bench.streams import Streams
from sparse_bench.training.precision import Precision
from sparse_bench.training.trainer import Trainer
from tests.test_shipped_configs import EMBEDDED

SIZES = TextSizes(vocabulary=20, frequencies=tuple(range(20, 0, -1)), types=3)
Compose = Callable[..., DictConfig]
LAZY = "sparsity.form=lazy"


def attached(scheme: Scheme) -> BagOfEmbeddings:
    torch.manual_seed(0)
    model = BagOfEmbeddings(SIZES, embedding_dim=4)
    scheme.attach(model, Streams(0))
    return model


@pytest.mark.parametrize("form", ["exact", "lazy"])
def test_all_weights_exist_and_the_tables_have_row_sparse_gradients(form: str) -> None:
    scheme = SparseGradient(form=form)
    model = attached(scheme)
    assert scheme.selected == ["embedding.weight", "mask.weight"]
    counts = count(model, scheme)
    assert counts.density == 1.0
    assert counts.sparse_layers == 2 * 20 * 4
    layers = [module for module in model.modules() if isinstance(module, RowSparseLayer)]
    assert [layer.exact for layer in layers] == [form == "exact"] * 2


def test_a_pattern_selects_one_of_two_tables() -> None:
    model = attached(SparseGradient(layers=["mask.*"]))
    assert type(model.embedding) is nn.Embedding
    assert isinstance(model.mask, RowSparseLayer)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'exact'"):
        SparseGradient(form="exakt")
    with pytest.raises(ConfigError, match=r"its density is 1, not 0\.5"):
        SparseGradient(density=0.5)
    with pytest.raises(ConfigError, match="SET, which changes its topology during training"):
        SparseGradient(combined_with=SET(density=0.5))
    with pytest.raises(ConfigError, match=r"hold none\. Embedding tables of this model: embedding.weight, mask.weight"):
        attached(SparseGradient(layers=["classifier"]))


def test_optimizers_that_cannot_step_on_rows_are_refused_before_any_work(compose_config: Compose) -> None:
    overrides = ["model=bag_of_embeddings", *EMBEDDED["text_typing"], "sparsity=sparse_gradient"]
    check(compose_config(*overrides, "optimizer=rmsprop"))
    with pytest.raises(ConfigError, match=r"In 'sparsity': Unknown optimizer for it 'NonMonotoneASGD'.* AdamW"):
        check(compose_config(*overrides, "optimizer=nt_asgd"))


def text_run(compose: Compose, tmp_path: Path, *overrides: str) -> Any:
    config = compose(
        "model=bag_of_embeddings",
        *EMBEDDED["text_typing"],
        "model.embedding_dim=8",
        "optimizer.lr=0.01",
        "dataset.batch_size=8",
        "trainer.epochs=4",
        "trainer.evaluate_every=2",
        "threads=1",
        "logger=none",
        f"output={tmp_path}",
        *overrides,
    )
    check(config)
    result = run(config)
    assert result is not None
    assert result.status == "finished", result.error
    return result


@pytest.mark.parametrize("pooling", ["masked_sum", "mean"])
def test_the_exact_form_ends_with_the_metrics_of_the_dense_run(
    pooling: str, compose_config: Compose, tmp_path: Path
) -> None:
    dense, exact, lazy = (
        text_run(
            compose_config, tmp_path, f"model.pooling={pooling}", "optimizer=adamw", "optimizer.weight_decay=1.0", *more
        )
        for more in (
            ["sparsity=dense"],
            ["sparsity=sparse_gradient"],
            ["sparsity=sparse_gradient", "sparsity.form=lazy"],
        )
    )
    assert exact.steps > 110, "else all steps have been dense"
    assert exact.metrics == pytest.approx(dense.metrics, abs=0.02)
    assert exact.counts == dense.counts
    assert lazy.metrics != dense.metrics


@pytest.mark.parametrize("name", ["tiers", "random"])
def test_together_with_a_topology(name: str, compose_config: Compose, tmp_path: Path) -> None:
    scheme = {"tiers": "embedding_tiers", "random": "random"}[name]
    layers = [f"{path}=[embedding]" for path in ("sparsity.layers", "sparsity.combined_with.layers")]
    alone = text_run(compose_config, tmp_path, f"sparsity={scheme}", layers[0], "sparsity.density=0.4")
    together = text_run(
        compose_config,
        tmp_path,
        "sparsity=sparse_gradient",
        f"+sparsity@sparsity.combined_with={scheme}",
        layers[1],
        "sparsity.combined_with.density=0.4",
    )
    assert together.counts == alone.counts
    assert together.counts["density"] == pytest.approx(0.4, abs=0.05)
    assert together.metrics == pytest.approx(alone.metrics, abs=0.02)


@pytest.mark.parametrize("inner", [EmbeddingTiers(density=0.5, blocks=2), Random(density=0.5, layers=["embedding"])])
def test_what_does_not_exist_stays_zero(inner: Scheme) -> None:
    scheme = SparseGradient(combined_with=inner)
    model = attached(scheme)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    words = torch.arange(20)
    for _ in range(3):
        (model.embedding(words) * model.mask(words)).sum().backward()
        scheme.after_backward()
        optimizer_step(optimizer, model)
        scheme.after_step(1, optimizer, Streams(0))
    for weight in scheme.weights.values():
        assert not weight.dense()[~weight.mask].any()
        assert weight.dense()[weight.mask].all()
    assert count(model, scheme).density == pytest.approx(0.5, abs=0.1)


def optimizer_step(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    if not hasattr(model, "updates"):
        object.__setattr__(model, "updates", RowSparseUpdates(optimizer, model))
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("model", ["bilstm_tagger", "lstm_lm"])
def test_taggers_and_language_models_take_the_same_steps(model: str, compose_config: Compose, tmp_path: Path) -> None:
    """Two steps of two runs that differ in the gradients' form alone."""
    task = {"bilstm_tagger": "tagging", "lstm_lm": "language_modelling"}[model]
    weights = []
    for scheme in ("dense", "sparse_gradient"):
        small = ("model.embedding_dim=8", "model.hidden=8")
        trainer = steps(compose_config, tmp_path / scheme, f"model={model}", f"sparsity={scheme}", *small, task=task)
        weights.append(trainer.model.embedding.weight.detach())
    torch.testing.assert_close(*weights, atol=1e-6, rtol=1e-5)


def test_a_tied_decoder_is_refused_when_its_gradient_is_seen(compose_config: Compose, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'embedding.weight' has a gradient for all of its rows"):
        steps(compose_config, tmp_path, "model=awd_lstm", "sparsity=sparse_gradient", task="language_modelling")


def steps(compose: Compose, folder: Path, *overrides: str, task: str) -> Trainer:
    torch.manual_seed(0)
    config = compose(*overrides, *EMBEDDED[task], "optimizer=sgd")
    plain: Any = OmegaConf.to_container(config, resolve=True)
    corpus, scheme, streams = build(plain["dataset"], _partial_=False), build(plain["sparsity"]), Streams(0)
    model = scheme.build(ModelFactory(plain["model"], corpus.sizes))
    scheme.attach(model, streams)
    trainer = Trainer(
        corpus,
        model,
        scheme,
        build(plain["optimizer"], _partial_=True)(model.parameters()),
        TrainerConfig(epochs=1, gradient_clip=1.0),
        streams,
        Precision("fp32", torch.device("cpu")),
        torch.device("cpu"),
        RunFolder(folder),
    )
    torch.manual_seed(0)
    for _, batch in zip(range(2), corpus.epoch_batches(0, streams), strict=False):
        trainer.forward_backward(batch)
        trainer.update()
    return trainer
