"""Only a model of the density that was asked for is chosen, stopped at or averaged, and the result counts that one."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from omegaconf import DictConfig

from sparse_bench.run import run
from sparse_bench.training import checkpoint
from sparse_bench.training.trainer import Trainer
from tests.training.test_stages import NT_ASGD, finished, folder_of, lines, stop

Make = Callable[..., DictConfig]

#: 36 steps in six epochs; the density is reached at step 28, in the fifth.
GMP = {
    "sparsity": {
        "label": "gmp",
        "_target_": "sparse_bench.sparsity.schemes.gmp.GMP",
        "density": 0.1,
        "interval": 3,
        "layers": ["default"],
    },
    "trainer__epochs": 6,
    "trainer__keep": "weights",
}
SET = {"sparsity": {"label": "set", "_target_": "sparse_bench.sparsity.schemes.set.SET", "density": 0.3}}


@pytest.fixture
def falling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The accuracy falls from one evaluation to the next: the earlier a model, the better it seems."""
    values: Iterator[float] = iter(range(1000, 0, -1))
    monkeypatch.setattr("tests.toy.ToyTask.evaluate", lambda *_: {"accuracy": next(values) / 1000})


def kept(config: DictConfig) -> int:
    """Weights of the sparse layers that ``weights.pt`` holds."""
    state: dict[str, Any] = checkpoint.load(folder_of(config).weights)["model"]
    layers = ("first.weight", "second.weight")
    return sum(int(state[f"{n}_mask"].sum()) if f"{n}_mask" in state else state[n].numel() for n in layers)


@pytest.mark.usefixtures("falling")
@pytest.mark.parametrize("first", [False, True])
def test_the_best_model_is_one_that_has_been_pruned(toy_config: Make, first: bool) -> None:
    config = toy_config(**GMP, trainer__select="best", trainer__evaluate_first=first)
    result = finished(config)
    assert result.counts["sparse_layers"] == kept(config) == round(0.1 * 384)
    assert result.warnings == []
    densities = [line["topology/density"] for line in lines(config) if line["epoch"]]
    assert densities[0] > densities[3] > densities[4] == densities[5] == result.counts["density"]


@pytest.mark.usefixtures("falling")
@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({"trainer__early_stopping": 1}, 6),  # the fifth is the first that counts
        (stop("ConsecutiveRises", window=1), 6),
        (stop("Reached", metric="train/cross_entropy", target=-1e6), 5),  # at once, were it not for the density
        (stop("Reached", metric="valid/accuracy", target=0.0), 5),
    ],
    ids=["early stopping", "the watched metric", "a metric of training", "another metric"],
)
def test_training_does_not_stop_before(toy_config: Make, settings: dict[str, Any], epochs: int) -> None:
    result = finished(toy_config(**GMP, **settings))
    assert result.epochs == epochs
    assert result.counts["sparse_layers"] == round(0.1 * 384)


def test_a_density_that_is_never_reached_is_told(toy_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparse_bench.sparsity.schemes.gmp.GMP.missing_in_the_end", lambda self: 385)
    last, best = finished(toy_config(**GMP)), run(toy_config(**GMP, trainer__select="best"))
    assert last.warnings == [
        "Training ended before the nominal sparsity was reached (density 0.1 requested, density 0.09896 realised)."
    ]
    assert best is not None
    assert best.error is not None
    assert best.error["message"].startswith("trainer.select=best has nothing to select: at no evaluation had the")


def test_averaging_is_not_triggered_before(toy_config: Make) -> None:
    config = toy_config(**GMP, **NT_ASGD, optimizer__force_after=1)
    result = finished(config)
    assert [line["optimizer/averaging"] for line in lines(config)] == [0.0] * 4 + [1.0] * 2
    assert result.counts["sparse_layers"] == kept(config) == round(0.1 * 384)


@pytest.mark.usefixtures("falling")
def test_a_model_that_is_sparse_from_the_first_counts_from_the_first(toy_config: Make) -> None:
    assert finished(toy_config(trainer__early_stopping=1, trainer__epochs=9)).epochs == 2


@pytest.mark.usefixtures("falling")
@pytest.mark.parametrize("execution", ["masked", "csr"])
def test_the_counts_are_those_of_the_weights_that_were_chosen(toy_config: Make, execution: str) -> None:
    """SET removes weights after the last epoch; the best ones are those of the first, which are more."""
    counts = {}
    for select in ("last", "best"):
        config = toy_config(**SET, sparsity__execution=execution, trainer__select=select, trainer__keep="weights")
        counts[select] = finished(config).counts
        assert counts[select]["sparse_layers"] == kept(config)
    assert counts["best"]["sparse_layers"] > counts["last"]["sparse_layers"]
    assert (counts["best"]["rewirings"], counts["last"]["rewirings"]) == (0, 3)


def test_without_its_last_removal_a_scheme_ends_with_as_many_weights_as_it_began(toy_config: Make) -> None:
    removing, keeping = (toy_config(**SET, sparsity__last_removal=last, trainer__epochs=4) for last in (True, False))
    fewer, as_many = finished(removing), finished(keeping)
    densities = [[line["topology/density"] for line in lines(config)] for config in (removing, keeping)]
    assert len(set(densities[1])) == 1
    assert densities[0][:3] == densities[1][:3]
    assert fewer.counts["density"] == densities[0][3] < as_many.counts["density"] == densities[1][3]
    assert (fewer.counts["rewirings"], as_many.counts["rewirings"]) == (4, 3)


def test_both_densities_are_told(toy_config: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    config = toy_config(**SET, trainer__epochs=2)
    result = finished(config)
    real = result.counts["density"]
    assert real < 0.27
    assert result.densities() == f"density 0.3 requested, density {real:.4g} realised"
    assert f"density 0.3 requested, density {lines(config)[0]['topology/density']:.4g} realised" in caplog.text
    narrow = finished(
        toy_config(
            sparsity={"_target_": "sparse_bench.sparsity.schemes.small_dense.SmallDense", "density": 0.5},
        )
    )
    assert narrow.counts["density"] == 1.0  # of the narrower model
    assert narrow.densities() == "density 0.5 requested, density 0.4688 realised"  # 180 of the full model's 384
    er = {"_target_": "sparse_bench.sparsity.schemes.static_er.StaticER", "density": None, "epsilon": 2}
    assert finished(toy_config(sparsity=er)).densities().startswith("epsilon 2 requested, density 0.")
    dense = {"_target_": "sparse_bench.sparsity.schemes.dense.Dense", "density": 1.0}
    assert finished(toy_config(sparsity=dense)).densities() == "density 1"


def test_a_topology_that_can_never_change_is_told_before_training(
    toy_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    rigl = {"_target_": "sparse_bench.sparsity.schemes.rigl.RigL", "density": 0.3}
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "fit", broken)
        result = run(toy_config(sparsity={**rigl, "interval": 14}))
    assert result is not None
    assert result.status == "failed"
    assert result.warnings == [
        "RigL never rewires in this run, so its topology is fixed: it rewires every sparsity.interval = 14 steps "
        "before step 13.5 (sparsity.stop = 0.75 of 18)."
    ]
    tiny = finished(toy_config(sparsity={**rigl, "interval": 13}))  # α is all but zero by then
    assert tiny.counts["rewirings"] == 0
    assert tiny.warnings == ["No rewiring changed the topology, so the evaluated topology is the first one."]
    several = finished(toy_config(sparsity={**rigl, "interval": 4}))
    assert (several.counts["rewirings"], several.warnings) == (3, [])
    assert "rewirings" not in finished(toy_config()).counts


def broken(self: Trainer) -> None:
    raise RuntimeError("broken on purpose")
