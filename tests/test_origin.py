"""What settings do not name: data, a user's own code, and the run that another one starts from."""

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from sparse_bench import origin
from sparse_bench import run as run_module
from sparse_bench.config import own_code, run_id
from sparse_bench.errors import ConfigError
from sparse_bench.record import Result, RunFolder
from sparse_bench.run import run
from sparse_bench.source import find_source
from sparse_bench.training.trainer import Trainer

Make = Callable[..., DictConfig]

#: A user's own corpus, in a file of words, and a scheme of their own.
OWN = """
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from sparse_bench.data.text import numbered_corpus, read_lines
from sparse_bench.sparsity.scheme import MaskScheme


def words(path: str, named: bool = True):
    content = Path(path).read_bytes()
    lines = read_lines(content.decode())
    sums = {Path(path).name: hashlib.sha256(content).hexdigest()} if named else {}
    return numbered_corpus(lines, lines[:9], lines[:9], checksums=sums)


@dataclass
class Striped(MaskScheme):
    def first_topology(self, shapes, streams):
        return {name: (torch.arange(a)[:, None] + torch.arange(b)) % 2 == 0 for name, (a, b) in shapes.items()}
"""


class Killed(BaseException):
    pass


def new_process() -> None:
    """What a process remembers of data and modules is forgotten."""
    run_module._cached_task.cache_clear()
    origin._cached_checksums.cache_clear()
    sys.modules["sparse_bench.config.own_code"]._read.cache_clear()


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    new_process()
    yield
    new_process()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's module."""
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.delitem(sys.modules, "own_words", raising=False)
    module = tmp_path / "code" / "own_words.py"
    module.parent.mkdir()
    module.write_text(OWN)
    importlib.invalidate_caches()
    return module


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("a b c d e f g h a b c\n" * 30)
    return path


@pytest.fixture
def language(toy_config: Make, own: Path, corpus: Path) -> Make:
    """Makes the configuration of a small language model over the user's own corpus."""

    def make(**settings: Any) -> DictConfig:
        model = {"_target_": "sparse_bench.models.lstm_lm.LSTMLM", "_partial_": True, "label": "lstm_lm"}
        dataset = {
            "label": "own",
            "_target_": "sparse_bench.tasks.language_modelling.LanguageModellingTask",
            "_partial_": True,
            "corpus": {"_target_": "own_words.words", "path": str(corpus)},
            "batch_size": 4,
            "bptt": 10,
            "valid_batch_size": 2,
        }
        config = {
            "model": model | {"embedding_dim": 4, "hidden": 6, "layers": 1},
            "dataset": dataset,
            "sparsity": {"label": "own", "_target_": "own_words.Striped", "density": 0.5, "layers": ["recurrent"]},
            "trainer__checkpoint_seconds": 0.0,
        }
        return toy_config(**(config | settings))

    return make


def folder_of(config: DictConfig) -> RunFolder:
    source = find_source(config)
    return RunFolder(Path(config.output) / config.experiment_name / run_id(config, source.name if source else None))


def finished(config: DictConfig) -> Result:
    result = run(config)
    assert result is not None
    assert result.status == "finished", result.error
    return result


def killed(config: DictConfig, step: int = 12) -> None:
    update = Trainer.update

    def until_killed(self: Trainer) -> None:
        if self.progress.step == step:
            raise Killed
        update(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "update", until_killed)
        with pytest.raises(Killed):
            run(config)
    new_process()


def refusal(config: DictConfig) -> str:
    """Why the run ended as failed."""
    result = run(config)
    assert result is not None
    assert result.error is not None
    assert result.error["type"] == "CheckpointError"
    return str(result.error["message"])


def test_a_run_begun_with_other_data_does_not_go_on(language: Make, corpus: Path) -> None:
    config = language()
    killed(config)
    kept = corpus.read_text()
    corpus.write_text(kept.replace("a b", "b a", 1))
    said = refusal(config)
    assert "the data 'words.txt' (changed)" in said
    assert "force=true" in said
    corpus.write_text(kept)  # the first of the choices that it names: the run goes on as if nothing had been
    new_process()
    whole = finished(language(output=f"{config.output}_whole"))
    assert finished(config).metrics == whole.metrics


def test_a_grown_vocabulary_is_told_as_changed_data(language: Make, corpus: Path) -> None:
    config = language()
    killed(config)
    corpus.write_text(corpus.read_text() + "one more word\n")
    assert "the data 'words.txt' (changed)" in refusal(config)


def test_sizes_that_do_not_fit_are_told_as_such(language: Make, corpus: Path) -> None:
    """The data name no checksums here, so that the model is what tells."""
    config = language(dataset__corpus__named=False)
    killed(config)
    corpus.write_text(corpus.read_text() + "one more word\n")
    said = refusal(config)
    assert "checkpoint.pt does not fit this run" in said
    assert "force=true" in said


def test_data_without_checksums_are_told(language: Make, caplog: pytest.LogCaptureFixture) -> None:
    warnings = finished(language(dataset__corpus__named=False)).warnings
    assert [warning for warning in warnings if "names no checksums" in warning] == warnings != []
    assert warnings[0] in caplog.text
    assert finished(language()).warnings == []


@pytest.mark.parametrize("begun", ["finished", "interrupted", "damaged"])
def test_forced_a_run_begins_anew_where_it_has_to_and_nothing_is_lost(language: Make, corpus: Path, begun: str) -> None:
    config, forced = language(), language(force=True)
    folder = folder_of(config)
    assert folder_of(forced).path == folder.path
    if begun == "finished":
        finished(config)
    else:
        killed(config)
    names = {path.name for path in folder.path.iterdir() if not path.name.startswith(".")}
    metrics = folder.metrics.path.read_bytes()
    if begun == "damaged":
        content = bytearray(folder.checkpoint.read_bytes())
        content[len(content) // 2] ^= 1
        folder.checkpoint.write_bytes(content)
        assert "it is damaged" in refusal(config)
    else:
        corpus.write_text(corpus.read_text().replace("a b", "b a", 7))
    new_process()
    result = finished(forced)
    assert result.metrics == finished(language(output=f"{config.output}_fresh")).metrics
    assert result.data == finished(config).data
    kept = folder.path / ".earlier" / "1"
    assert {path.name for path in kept.iterdir()} == names
    assert (kept / "metrics.jsonl").read_bytes() == metrics != folder.metrics.path.read_bytes()


def test_forced_an_interrupted_run_goes_on_where_it_can(language: Make) -> None:
    config = language(force=True)
    whole = finished(language(output=f"{config.output}_whole"))
    killed(config)
    result = finished(config)
    assert result.metrics == whole.metrics
    assert not (folder_of(config).path / ".earlier").exists()
    finished(config)
    finished(config)
    earlier = folder_of(config).path / ".earlier"
    assert [json.loads((earlier / n / "result.json").read_text())["metrics"] for n in "12"] == [whole.metrics] * 2


def test_a_finished_run_of_other_data_is_not_taken_for_this_one(
    language: Make, corpus: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = language()
    first = finished(config)
    monkeypatch.setattr(Trainer, "__init__", lambda self, **_: pytest.fail("made a trainer only to skip"))
    task = "sparse_bench.tasks.language_modelling.LanguageModellingTask.__init__"
    monkeypatch.setattr(task, lambda self, **_: pytest.fail("made a task only to skip"))
    kept = corpus.read_text()
    for content, said in [(kept + "x y z\n", "changed"), (kept, None), (kept.replace("a", "b"), "changed")]:
        corpus.write_text(content)
        new_process()
        if said is None:
            assert run(config) == first
        else:
            with pytest.raises(ConfigError, match=rf"has finished.*the data 'words.txt' \({said}\).*force=true"):
                run(config)
    caplog.clear()
    corpus.unlink()
    new_process()
    assert run(config) == first
    assert "its data cannot be read, so any change in them goes unnoticed" in caplog.text


def test_a_corpus_is_read_once_for_all_finished_runs(language: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [language(seed=seed, trainer__epochs=1) for seed in range(3)]
    for config in configs:
        finished(config)
    new_process()
    module, calls = sys.modules["own_words"], []
    words = module.words
    monkeypatch.setattr(module, "words", lambda path: calls.append(path) or words(path))
    for config in configs:
        finished(config)
    assert len(calls) == 1


def test_a_task_that_knows_its_data_itself_is_asked(toy_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(toy_config())
    monkeypatch.setattr("tests.toy.ToyTask.checksums", lambda self: {"points": "another", "more": "new"})
    with pytest.raises(ConfigError, match=r"'more' \(new\) and the data 'points' \(changed\)"):
        run(toy_config())


def test_own_code_is_known_by_its_file(language: Make, own: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = language()
    killed(config)
    own.write_text(OWN + "\n# another comment\n")
    said = refusal(config)
    assert "the module 'own_words' (changed)" in said
    assert "force=true" in said
    own.write_text(OWN)
    new_process()
    result = finished(config)
    assert set(result.code) == {"own_words"}
    own.write_text(OWN + "\n# another comment\n")
    new_process()
    caplog.clear()
    assert run(config) == result  # its numbers are still those of the same data: said, and not refused
    assert "its code has changed since then: the module 'own_words' (changed)" in caplog.text
    assert "force=true" in caplog.text


def test_own_code_is_that_of_a_class_and_of_what_it_inherits_from(toy_config: Make, own: Path, tmp_path: Path) -> None:
    (own.parent / "own_more.py").write_text("from own_words import Striped\nclass More(Striped):\n    pass\n")
    config = toy_config(sparsity={"label": "own", "_target_": "own_more.More", "density": 0.5, "layers": ["first"]})
    # The base class of tests.toy's model is the project's; its optimizer is torch's.
    assert set(finished(config).code) == {"own_more", "own_words", "tests", "tests.toy"}
    assert own_code({"logger": {"own": {"_target_": "own_words.words"}}}) == {}  # it only watches


PLAIN = "from sparse_bench.sparsity.schemes.random import Random\n"
#: A scheme in a package whose other modules it imports, in each way.
PACKAGE = {
    "own_parts/__init__.py": "",
    "own_parts/striped.py": f"{PLAIN}from . import widths\nfrom .deep.rows import every\nclass S(Random): pass\n",
    "own_parts/widths.py": "import own_beside\n",
    "own_parts/deep/rows.py": "def every():\n    from ..late import x\n",
    "own_parts/late.py": "x = 1\n",
    "own_beside.py": "import json, torch, hydra\n",
    "own_parts/unused.py": "",
    "own_stranger.py": "",
}


def test_own_code_is_also_what_it_imports_from_its_package_and_folder(
    toy_config: Make, own: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, content in PACKAGE.items():
        path = own.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    node = {"label": "own", "_target_": "own_parts.striped.S", "density": 0.5, "layers": ["first"]}
    config = toy_config(sparsity=node)
    result = finished(config)
    modules = {"own_parts", "own_parts.striped", "own_parts.widths", "own_parts.deep.rows", "own_parts.late"}
    assert set(result.code) == {*modules, "own_beside", "tests", "tests.toy"}
    for changed in ("own_parts/late.py", "own_beside.py", "own_parts/unused.py"):
        (own.parent / changed).write_text(PACKAGE[changed] + "# another comment\n")
        new_process()
        caplog.clear()
        assert run(config) == result
        module = changed.removesuffix(".py").replace("/", ".")
        assert (f"the module '{module}' (changed)" in caplog.text) == (module in result.code)
    # Installed packages lie beside strangers.
    installed = own.parent / "site-packages"
    installed.mkdir()
    (installed / "own_installed.py").write_text(f"import own_beside\n{PLAIN}class S(Random): pass\n")
    (installed / "own_beside.py").write_text("")
    monkeypatch.syspath_prepend(installed)
    assert set(own_code({"sparsity": {"_target_": "own_installed.S"}})) == {"own_installed"}


def test_a_result_of_a_version_that_knew_no_helpers_is_not_told_from_this_one(
    toy_config: Make, caplog: pytest.LogCaptureFixture
) -> None:
    config = toy_config()
    finished(config)
    path = folder_of(config).result_path
    written = json.loads(path.read_text())
    del written["code"]["tests"], written["checksum"]
    path.write_text(json.dumps(written))
    new_process()
    finished(config)
    assert "has changed since" not in caplog.text


@pytest.mark.parametrize("name", ["metrics.jsonl", "timing.jsonl"])
def test_a_run_does_not_go_on_after_damaged_lines(language: Make, name: str) -> None:
    config = language()
    killed(config)
    path = folder_of(config).path / name
    content = path.read_bytes()
    place = content.index(b".")
    path.write_bytes(content[: place + 1] + bytes([content[place + 1] ^ 1]) + content[place + 2 :])
    assert f"{name} is damaged" in refusal(config)
    path.write_bytes(content)
    new_process()
    finished(config)


def stages(language: Make, force: bool = False) -> tuple[DictConfig, DictConfig]:
    first = language(experiment_name="first", trainer__keep="weights", trainer__epochs=1, force=force)
    return first, language(experiment_name="second", start_from="first", trainer__epochs=2, force=force)


def test_weights_of_another_corpus_are_not_started_from(language: Make, corpus: Path) -> None:
    first, second = stages(language)
    finished(first)
    for content in (corpus.read_text().replace("a b", "b a", 1), corpus.read_text() + "one more word\n"):
        corpus.write_text(content)
        new_process()
        said = refusal(second)
        assert "first" in said
        assert "the data 'words.txt' (changed)" in said


def test_a_second_stage_belongs_to_the_weights_that_it_started_from(language: Make, corpus: Path) -> None:
    first, second = stages(language)
    first_again, second_again = stages(language, force=True)
    earlier = finished(first)
    assert earlier.weights is not None
    result = finished(second)
    assert result.start_from == {f"first/{earlier.id}": earlier.weights}
    assert finished(first_again).weights == earlier.weights  # the same bits again
    assert run(second) == result
    path = folder_of(first).result_path
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": "0" * 64, "checksum": None}))
    with pytest.raises(ConfigError, match=rf"the weights of 'first/{earlier.id}' \(changed\)"):
        run(second)
    assert "are not those of the result in the same folder" in refusal(second_again)


TRAP = """
from pathlib import Path
Path({marker!r}).touch()
class Trap: ...
"""


@pytest.mark.parametrize("group", ["model", "sparsity"])
def test_what_somebody_s_result_names_is_not_imported(
    language: Make, own: Path, tmp_path: Path, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "trap", raising=False)
    marker = tmp_path / "imported"
    (own.parent / "trap.py").write_text(TRAP.format(marker=str(marker)))
    first, second = stages(language)
    result = finished(first)
    path = folder_of(first).result_path
    written = json.loads(path.read_text())
    written["config"][group]["_target_"] = "trap.Trap"
    del written["checksum"]
    path.write_text(json.dumps(written))
    with pytest.raises(ConfigError, match=rf"first/{result.id} \(another {group}\)"):
        run(second)
    from sparse_bench.evidence.store import load

    written["config"][group]["younger"] = 1
    (path.parent.parent / "copy").mkdir()
    (path.parent.parent / "copy" / "result.json").write_text(json.dumps({**written, "id": "copy"}))
    assert len(load([Path(first.output)])[0].runs) == 2
    assert not marker.exists()
    assert "trap" not in sys.modules
    importlib.import_module("trap")
    assert marker.exists()  # it would have been seen


def test_a_setting_of_a_shipped_target_still_has_its_default_in_a_report() -> None:
    from sparse_bench.config.nodes import recorded_parameters

    assert recorded_parameters("sparse_bench.models.lstm_lm.LSTMLM")["layers"].default == 2
    assert recorded_parameters("torch.optim.Adam")["lr"].default == 1e-3
    assert set(recorded_parameters("tests.toy.ToyModel")) >= {"width"}  # imported already, by this test's own modules
    for target in ("os.system.x", "no.such", "antigravity.fly", 3, ""):
        assert recorded_parameters(target) == {}  # type: ignore[arg-type]
    assert "antigravity" not in sys.modules


def test_differences_name_what_changed() -> None:
    from sparse_bench.record import differences

    then = {"data": {"a": "1", "b": "2", "c": "3"}, "code": {}, "start_from": {"x/1": "4"}}
    now = {"data": {"a": "1", "b": "9", "d": "5"}, "code": {"m": "6"}, "start_from": {"x/1": "4"}}
    found = differences(then, now)
    assert re.findall(r"'(\w)' \((\w+)\)", found) == [("b", "changed"), ("c", "gone"), ("d", "new")]
    assert differences(now, now) == ""
    assert differences(then, now, ("code", "start_from")) == ""


def test_damaged_best_weights_are_refused_before_training_goes_on(
    toy_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"trainer__select": "best", "trainer__checkpoint_seconds": 0.0}
    config = toy_config(**settings)
    whole = finished(toy_config(**settings, output=f"{config.output}_whole"))
    killed(config)
    best = folder_of(config).best
    content = bytearray(best.read_bytes())
    content[len(content) // 2] ^= 1
    best.write_bytes(content)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", lambda self: pytest.fail("trained on"))
        assert f"{best} cannot be read (it is damaged" in refusal(config)
    assert finished(toy_config(**settings, force=True)).metrics == whole.metrics


def test_what_another_training_kept_is_not_this_one_s(toy_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy_config(trainer__keep="weights")
    finished(config)
    folder = folder_of(config)
    folder.result_path.unlink()
    folder.weights.rename(folder.best)
    monkeypatch.setattr("tests.toy.ToyTask.evaluate", lambda *_: {"accuracy": float(folder.best.exists())})
    folder.weights.touch()
    assert finished(toy_config(trainer__keep="nothing")).metrics["test/accuracy"] == 0.0
    assert not folder.weights.exists()
