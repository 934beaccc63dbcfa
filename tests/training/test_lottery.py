"""Lottery tickets: a chain of runs that prunes and rewinds, counted and compared weight by weight."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from sparse_bench.origin import origin_of
from sparse_bench.record import RunFolder
from sparse_bench.run import assemble, run, task_of
from sparse_bench.source import find_source
from sparse_bench.training import checkpoint

LAYERS = ("first.weight", "second.weight")


def weights_of(result: Any) -> dict[str, Any]:
    return checkpoint.load(Path(result.config["output"]) / result.experiment / result.id / "weights.pt")


@pytest.mark.parametrize("execution", ["masked", pytest.param("csr", marks=pytest.mark.slow)])
def test_a_chain_prunes_and_goes_back_until_the_density_is_reached(
    toy_config: Callable[..., DictConfig], tmp_path: Path, execution: str
) -> None:
    """384 weights: a fifth off is 307, then 246; density .55 is 211, before a fourth round's 197."""

    def config(number: int) -> Any:
        return toy_config(
            sparsity={
                "_target_": "sparse_bench.sparsity.schemes.lottery.LotteryTicket",
                "density": 0.55,
                "rewind": 4,
                "execution": execution,
            },
            trainer__keep="weights",
            experiment_name=f"toy/round_{number}",
            start_from=f"toy/round_{number - 1}" if number else None,
        )

    results: list[Any] = [run(config(number)) for number in range(4)]
    assert [result.error for result in results] == [None] * 4
    assert [result.counts["sparse_layers"] for result in results] == [384, 307, 246, 211]
    assert [result.notes.get("asked") for result in results[:2]] == [None, "round 1, density 0.7995"]
    assert not any("density" in warning for result in results for warning in result.warnings)
    # The early weights are those of step 4 of the first round, which a run of 4 steps ends with.
    early: Any = run(
        toy_config(
            sparsity={"_target_": "sparse_bench.sparsity.schemes.dense.Dense", "density": 1.0},
            trainer__steps=4,
            trainer__keep="weights",
            experiment_name="early",
        )
    )
    stepped = weights_of(early)["model"]
    for result in results:
        kept = weights_of(result)["scheme"]["early"]
        equal = torch.equal if execution == "masked" else torch.allclose
        assert all(equal(kept[name], stepped[name]) for name in stepped)
    # The third round begins with these, where the largest of the second round's final weights are.
    plain, source = results[2].config, find_source(config(2))
    task, folder = task_of(plain), RunFolder(tmp_path / "new")
    origin = origin_of(plain, task.checksums(), source)
    begun = assemble(plain, task, torch.device("cpu"), folder, source=source, origin=origin)
    final, scheme = weights_of(results[1]), begun.scheme
    if execution == "masked":
        magnitudes = torch.cat([final["model"][name].abs().flatten() for name in LAYERS])
        bound = magnitudes.sort(descending=True).values[245]
        for name in LAYERS:
            assert torch.equal(scheme.weights[name].mask, final["model"][name].abs() >= bound)
    for name in LAYERS:
        assert equal(scheme.weights[name].dense(), stepped[name] * scheme.weights[name].mask)
    assert equal(begun.model.output.weight, stepped["output.weight"])
    ended: Any = run(config(4))
    assert "The chain has reached sparsity.density = 0.55" in ended.error["message"]


def test_a_round_too_short_to_rewind_is_told(toy_config: Callable[..., DictConfig]) -> None:
    sparsity = {"_target_": "sparse_bench.sparsity.schemes.lottery.LotteryTicket", "density": 0.5, "rewind": 40}
    settings = {"sparsity": sparsity, "trainer__keep": "weights"}
    run(toy_config(experiment_name="toy/a", **settings))
    ended: Any = run(toy_config(experiment_name="toy/b", start_from="toy/a", **settings))
    assert "The first round ended before step 40 (sparsity.rewind)" in ended.error["message"]
