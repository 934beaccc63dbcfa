import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file

import sparse_bench as sb
from sparse_bench import saved
from sparse_bench.errors import CheckpointError, ConfigError, DataError
from sparse_bench.record import Result
from sparse_bench.run import run

Compose = Callable[..., DictConfig]
EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples" / "data"
KEPT = ["trainer.keep=weights", "trainer.steps=12", "threads=1", "logger=none", "progress=false", "device=cpu"]
TAGGER = [
    "dataset=conll",
    "dataset.train=tagged.conll",
    "model=bilstm_tagger",
    "model.hidden=16",
    "dataset.batch_size=8",
]
DIET = ["dataset=text_intents", "dataset.train=messages.tsv", "model=diet", "model.transformer_size=16"]
CLASSES = ["dataset=text_classes", "dataset.train=messages.tsv", "model=bag_of_embeddings"]


def trained(compose_config: Compose, folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Path:
    """Train on a copy of the example data in ``folder``; returns the run's folder. Ends in another folder."""
    shutil.copytree(EXAMPLES, folder / "here", dirs_exist_ok=True)
    monkeypatch.chdir(folder / "here")
    result = run(compose_config(*overrides, *KEPT))
    assert isinstance(result, Result)
    assert result.status == "finished", result.error
    monkeypatch.chdir(folder)
    return folder / "here" / "runs" / "ad_hoc" / result.id


@pytest.mark.parametrize(
    "overrides",
    [
        [*DIET, "sparsity=rigl", "sparsity.density=0.2", "sparsity.interval=3"],
        [*DIET, "sparsity=random", "sparsity.density=0.1", "sparsity.execution=kernel"],
        [*TAGGER, "sparsity=blocks_and_tiers", "sparsity.parts.recurrent.mode=sparse_all"],
        [*DIET, "sparsity=random", "sparsity.execution=csr", "sparsity.density=0.3"],
        [*CLASSES, "optimizer=adagrad"],
    ],
    ids=["masked", "kernel", "structured", "csr", "dense"],
)
def test_a_run_is_loaded_elsewhere_with_its_metrics(
    overrides: list[str], compose_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trained(compose_config, tmp_path, monkeypatch, *overrides)
    before = torch.get_rng_state()
    loaded = sb.load_run(path.relative_to(tmp_path))
    assert torch.equal(torch.get_rng_state(), before)
    metrics = {name: value for split in loaded.task.splits for name, value in loaded.evaluate(split).items()}
    assert metrics == {name: loaded.result.metrics[name] for name in metrics}
    assert not loaded.model.training
    assert set(loaded.densities()) == set(loaded.scheme.weights)

    # The exported model is the same function, in plain modules.
    assert saved.main(["export-is-no-argument"]) == 1
    assert saved.main([str(path)]) == 0
    tensors = load_file(path / "model.safetensors")
    plain = loaded.export()
    assert set(tensors) == set(plain.state_dict())
    assert not [name for name in tensors if name.endswith(("_mask", "row_start"))]
    for name, weight in loaded.scheme.weights.items():
        assert torch.equal(tensors[name] != 0, weight.mask & (weight.dense() != 0))
    described = json.loads((path / "model.json").read_text())
    assert described["layers"] == loaded.densities()
    split = loaded.task.splits[-1]
    with torch.no_grad():
        for name, value in loaded.task.evaluate(plain, split).items():
            assert value == pytest.approx(loaded.result.metrics[f"{split}/{name}"], abs=0.03), name


def test_what_cannot_be_loaded(compose_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained(compose_config, tmp_path, monkeypatch, *CLASSES)
    with pytest.raises(CheckpointError, match="there is no folder"):
        sb.load_run(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="there is no result"):
        sb.load_run(path.parent)

    # Data that have moved are found where the caller says; data that have changed are refused.
    (tmp_path / "here").rename(tmp_path / "there")
    path = tmp_path / "there" / "runs" / "ad_hoc" / path.name
    with pytest.raises(DataError, match="data=FOLDER"):
        sb.load_run(path)
    assert sb.load_run(path, data=tmp_path / "there").evaluate("test")
    with (tmp_path / "there" / "messages.tsv").open("a") as file:
        file.write("one more\tfaq\n")
    with pytest.raises(DataError, match=r"other data: the data 'train: messages\.tsv' \(changed\)"):
        sb.load_run(path, data=tmp_path / "there")

    # Other weights, none at all, and code of strangers.
    shutil.copy(EXAMPLES / "messages.tsv", tmp_path / "there")
    state = saved.checkpoint.load(path / "weights.pt")
    next(iter(state["model"].values())).add_(1)
    saved.checkpoint.save(path / "weights.pt", state)
    with pytest.raises(CheckpointError, match="are not those of its result"):
        sb.load_run(path, data=tmp_path / "there")
    (path / "weights.pt").unlink()
    with pytest.raises(CheckpointError, match=r"trainer\.keep=weights force=true"):
        sb.load_run(path, data=tmp_path / "there")
    (path / "weights.pt").touch()
    result = json.loads((path / "result.json").read_text())
    result["config"]["sparsity"]["_target_"] = "os.system"
    del result["checksum"]
    (path / "result.json").write_text(json.dumps(result))
    with pytest.raises(ConfigError, match=r"os\.system.*trust_code=True"):
        sb.load_run(path, data=tmp_path / "there")
