"""Give every setting that the shipped configuration files hold values that it should not have, and see what happens.

    python scripts/fuzz_settings.py --workers 2 --output results/robustness/fuzz.md

Every leaf of every file of every group, every setting of a run itself and every schedule and stopping rule gets every
value of :data:`VALUES`, one at a time, in an otherwise small run, which takes one step on generated data if nothing
refuses it. A good end is a refusal by Hydra's schema or by an error of the project. A traceback, an aborted process and
a hang are bad ones. A value that is taken, and not named in :data:`SENSIBLE`, counts as senseless.

Exits with 1 if there is a traceback, an abort, a hang, or more senseless values than :data:`MOST_SENSELESS`.
"""

import importlib
import inspect
import itertools
import logging
import os
import re
import resource
import signal
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from interleaved import run, table_of, write
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sparse_bench import environment
from sparse_bench import run as runs
from sparse_bench.config import CONF, check, choices, register, target_of
from sparse_bench.errors import SparseBenchError
from sparse_bench.tracking.base import Trackers
from sparse_bench.workers import carry_out

#: Problem, setting, name of the value.
Case = tuple[str, str, str]
#: Ends that no case should have.
BAD = ("traceback", "aborted", "hang")
#: Seconds without an end, after which a case hangs.
TIMEOUT = 90
MOST_SENSELESS = 10
#: Address space of a worker, in bytes: a model for which a machine is too small must not take this one with it.
MEMORY = 12 << 30

VALUES: dict[str, Any] = {
    "empty text": "",
    "text": "abc",
    "number as text": "16",
    "unicode": "ключ 🙂",
    "path": "../../x",
    "long text": "x" * 300,
    "true": True,
    "null": None,
    "zero": 0,
    "minus one": -1,
    "one and a half": 1.5,
    "10^12": 10**12,
    "nan": float("nan"),
    "inf": float("inf"),
    "list of numbers": [3, 2, 1],
    "dict": {"a": 1},
}

TEXTS = {"text", "number as text", "unicode", "path", "long text"}
NUMBERS = {"true", "zero", "minus one", "one and a half", "10^12", "nan", "inf"}
_ZERO = (
    r"model\.(\w*dropout\w*|weight_drop|\w+_penalty|regularization)|dataset\.(label_smoothing|length_penalty|"
    r"replace_singletons)|sparsity\.(density|begin|end|stop|fraction|final_fraction|zeta|final_zeta|decay|gamma|softness)|"
    r"sparsity\.(gradient_weight|regularization|rewind)|sparsity\.parts\.\w+\.density|"
    r"optimizer\.(weight_decay|momentum|dampening|lr_decay|initial_accumulator_value|alpha)|"
    r"trainer\.(evaluate_every|checkpoint_seconds|schedule\.(floor|constant_epochs)|stop\.target)|.*seed"
)
_NULL = (
    r"point|threads|start_from|dataset\.(bpe|pool|oov_token)|"
    r"dataset\.(corpus\.)?(vocabulary|train|languages|comment|domain|validation_fraction)|"
    r"sparsity\.(pattern|parts\.\w+\.(blocks|delta))|"
    r"sparsity\.(epsilon|final_zeta|combined_with|fraction|blocks|delta)|optimizer\.(fused|foreach|window|force_after)|"
    r"trainer\.(steps|gradient_clip|schedule|stop|monitor|monitor_mode|early_stopping|schedule\.epoch_steps|"
    r"stop\.(metric|mode))|logger\.wandb\.(entity|tags|settings)"
)
_FACTORS = (
    r"model\.(\w+_penalty|regularization)|dataset\.length_penalty|sparsity\.(gain|epsilon|alpha|decay)|"
    r"sparsity\.(gradient_weight|input|regularization|softness|steepness|temperature)|optimizer\.(lr|eps|weight_decay|"
    r"initial_accumulator_value|lr_decay)|trainer\.(gradient_clip|checkpoint_seconds|schedule\.epoch_steps|"
    r"stop\.(target|within))|logger\.wandb\.(finish_)?timeout"
)
#: Patterns of settings, and the values that make sense for them.
SENSIBLE: list[tuple[str, set[str]]] = [
    (r".+\.label|experiment_name|output|dataset\.oov_token|dataset\.corpus\.train", TEXTS),
    (r"dataset\.(corpus\.)?comment", TEXTS),  # the beginning of lines to leave out
    (r"logger\.(wandb\.(project|entity)|tensorboard\.subfolder)", TEXTS),
    (r"experiment_name|output", NUMBERS),  # Hydra makes a text of a number where a text is wanted
    (r"seed|threads|trainer\.\w+", {"number as text"}),  # and a number of a text
    (r"point", set(VALUES)),  # means what a sweep's file makes of it
    (r".*\._partial_|progress|force|stop_on_failure|wait_for_others", {"true"}),
    (r"dataset\.\w+|dataset\.corpus\.\w+|model\.\w+|trainer\.\w+", {"true"}),
    (r"optimizer\.\w+|sparsity\.(parts\.\w+\.)?\w+|logger\.\w+\.\w+", {"true"}),  # what is no switch refuses it
    (_ZERO, {"zero"}),
    (_NULL, {"null"}),
    (_FACTORS, {"one and a half"}),
    (r"dataset\.vocabulary", {"10^12"}),  # all words
    (r"trainer\.stop\.target", {"minus one"}),  # a metric may be negative
    (r"dataset\.char_ngrams|logger\.wandb\.settings", {"dict"}),
]

#: Weights of the big models made small where their own files are tried.
NARROW = {
    "awd_lstm": ["model.hidden=8", "model.embedding_dim=4"],
    "diet": ["model.transformer_size=8"],
    "lstm_lm": ["model.hidden=9", "model.embedding_dim=4"],
    "transformer": ["model.d_model=8", "model.heads=2", "model.d_inner=8"],
}
#: Training files for the datasets that read a user's own.
EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples" / "data"
OWN = {
    "conll": "{0}/tagged.conll",
    "parallel": "[{0}/captions.en,{0}/captions.de]",
    "rasa_nlu": "{0}/assistant",
    "rasa_stories": "{0}/assistant",
    "text_classes": "{0}/messages.tsv",
    "text_intents": "{0}/messages.tsv",
    "text_lm": "{0}/text.txt",
}
#: Small problems by task, and the model that learns it fastest.
SMALL = {
    "intent": ["dataset=sara_like", "dataset.corpus.examples=150", "model=diet", "model.transformer_size=8"],
    "dialogue": ["dataset=booking_like", "dataset.corpus.stories=10", "dataset.corpus.test_stories=4", "model=ted"],
    "language_modelling": [
        *("dataset=ptb_like", "dataset.corpus.sentences=60", "dataset.batch_size=4", "dataset.bptt=8"),
        *("dataset.valid_batch_size=4", "dataset.test_batch_size=4", "model=lstm_lm", *NARROW["lstm_lm"]),
    ],
    "tagging": [
        "dataset=pos_like",
        "dataset.corpus.sentences=100",
        "dataset.corpus.vocabulary=100",
        "model=bilstm_tagger",
    ],
    "text_typing": ["dataset=text_types_like", "dataset.corpus.examples=200", "model=bag_of_embeddings"],
    "translation": [
        *("dataset=multi30k_like", "dataset.corpus.train=60", "dataset.corpus.valid=6", "dataset.corpus.test=6"),
        *("dataset.min_count=1", "dataset.beam=2", "model=transformer", *NARROW["transformer"]),
    ],
}
#: Task of the small problem that a scheme is tried on; others are tried on text typing.
TASK_OF_SCHEME = dict.fromkeys(("block_diagonal", "blocks_and_tiers", "random_fan_in"), "language_modelling")
ALWAYS = ["trainer.epochs=1", "trainer.steps=1", "threads=1", "logger=none", "progress=false", "device=cpu"]


def problems() -> dict[str, tuple[list[str], str]]:
    """Name → (overrides, the part of the configuration whose leaves are tried)."""
    found: dict[str, tuple[list[str], str]] = {"run": (SMALL["text_typing"], "")}
    for name in choices("model"):
        task = task_of("model", name)
        found[f"model/{name}"] = (
            [*(o for o in SMALL[task] if "model" not in o), f"model={name}", *NARROW.get(name, [])],
            "model",
        )
    for name in choices("dataset"):
        small = SMALL[task_of("dataset", name)]
        models = [override for override in small if override.startswith("model")]
        own = [o for o in small if o.startswith("dataset")] if f"dataset={name}" in small else [f"dataset={name}"]
        if name in OWN:
            own.append(f"dataset.train={OWN[name].format(EXAMPLES)}")
        found[f"dataset/{name}"] = ([*own, *models], "dataset")
    for group in ("sparsity", "optimizer", "logger"):
        for name in choices(group):
            small = SMALL[TASK_OF_SCHEME.get(name, "text_typing")]
            found[f"{group}/{name}"] = ([*small, f"{group}={name}"], group)
    found["trainer/default"] = (SMALL["text_typing"], "trainer")
    for part, module, names in (
        ("schedule", "schedules", ("LinearWarmup", "InverseSquareRoot", "ExponentialPerEpoch", "Cosine")),
        ("stop", "stopping", ("ConsecutiveRises", "NonMonotone", "Reached")),
    ):
        for name in names:
            node = "{" + f"_target_:sparse_bench.training.{module}.{name}{defaults_of(module, name)}" + "}"
            found[f"trainer.{part}/{name}"] = ([*SMALL["text_typing"], f"trainer.{part}={node}"], f"trainer.{part}")
    return found


def task_of(group: str, name: str) -> str:
    """The task that a shipped model learns, or that a shipped dataset is for."""
    target = target_of(OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml")), group)
    return target.tasks[0] if group == "model" else target.name


def defaults_of(module: str, name: str) -> str:
    """The settings of a schedule or a stopping rule as an override writes them."""
    parameters = inspect.signature(get_object(f"sparse_bench.training.{module}.{name}")).parameters
    given = {key: "null" if p.default is None else p.default for key, p in parameters.items()}
    if name == "Reached":
        given["metric"] = "valid/accuracy"
    return "".join(f",{key}:{value}" for key, value in given.items())


def leaves(node: Any, path: str) -> Iterator[str]:
    """Paths of everything below a node of a configuration, inner nodes that have a target included."""
    for key, value in node.items():
        inner = f"{path}.{key}"
        if not isinstance(value, dict) or "_target_" in value or not value:
            yield inner
        if isinstance(value, dict):
            yield from leaves(value, inner)


def leaves_of(part: str, plain: dict[str, Any]) -> list[str]:
    """The leaves that are tried of a composed problem; of a run itself, what belongs to no group."""
    if not part:
        return [key for key, value in plain.items() if not isinstance(value, dict)]
    node = plain
    for key in part.split("."):
        node = node[key]
    return list(leaves(node, part))


def is_sensible(leaf: str, value: str) -> bool:
    """Whether a value makes sense for a setting."""
    return any(value in values and re.fullmatch(pattern, leaf) for pattern, values in SENSIBLE)


# ---- one case, in a process that may die ----


@cache
def _problems() -> dict[str, tuple[list[str], str]]:
    """Known once for each process."""
    register()
    return problems()


@cache
def _alone() -> None:
    """Make this process one that tries cases: silent, with one thread and limited memory."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    environment.git = dict  # asking takes longer than a step


@cache
def composed(name: str) -> Any:
    """A problem's configuration, of which callers change copies alone."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        # What the problem says comes last: it may be about what is always said.
        return compose("config", overrides=[*ALWAYS, *_problems()[name][0]])


def answer(name: str, leaf: str, value: str) -> tuple[str, str]:
    """How a case ends, and what is said then; a hang ends the process."""
    _alone()
    signal.alarm(TIMEOUT)
    config = composed(name).copy()
    OmegaConf.set_struct(config, False)
    try:
        try:
            OmegaConf.update(config, leaf, VALUES[value], merge=False)
        except OmegaConfBaseException as error:
            return "refused by Hydra", str(error).partition("\n")[0]
        check(config)
        return carried_out(name, leaf, config)
    except SparseBenchError as error:
        return "refused before any work", str(error)
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)


def carried_out(name: str, leaf: str, config: Any) -> tuple[str, str]:
    """What comes of a configuration that the checks have taken."""
    if name.startswith("logger/"):
        Trackers.from_config(OmegaConf.to_container(config.logger))
        return "accepted", "the logger was made, and opened nothing"
    runnable = with_generated_data(name, leaf, config)
    if runnable is None:
        return "accepted", "checked alone: the corpus would have to be downloaded"
    with tempfile.TemporaryDirectory(prefix="fuzz_") as folder:
        if leaf != "output":
            runnable.output = folder
        os.chdir(folder)
        try:
            result = runs.run(runnable)
        finally:
            os.chdir("/")
    assert result is not None
    if result.error is None:
        return "accepted", ""
    ours = f"sparse_bench.errors.{result.error['type']}: " in result.error["traceback"]
    return "refused by the run" if ours else "traceback", f"{result.error['type']}: {result.error['message']}"


def with_generated_data(name: str, leaf: str, config: Any) -> Any:
    """The configuration, with generated data for what would be downloaded; None if that is what the case is about."""
    if not name.startswith("dataset/"):
        return config
    small = SMALL[task_of("dataset", name.partition("/")[2])][0].replace("=", "/")
    if name == small or name.partition("/")[2] in OWN:  # whose data is already here
        return config
    if leaf.startswith("dataset.corpus"):
        return None
    OmegaConf.update(config, "dataset.corpus", composed(small).dataset.corpus, merge=False)
    return config


# ---- all cases ----


def report(ended: list[tuple[Case, tuple[str, str]]]) -> tuple[str, bool]:
    """A page about all cases, and whether it says what it should."""
    ends = ("refused by Hydra", "refused before any work", "refused by the run", "accepted", *BAD)
    by_group: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (name, _, _), (end, _) in ended:
        by_group[name.partition("/")[0]][end] += 1
        by_group["all"][end] += 1
    rows = [
        {"group": group, "cases": f"{counts.total():,}"} | {end: f"{counts[end]:,}" for end in ends}
        for group, counts in sorted(by_group.items(), key=lambda entry: (entry[0] == "all", entry[0]))
    ]
    accepted = {(leaf, value) for (_, leaf, value), (end, _) in ended if end == "accepted"}
    senseless = sorted(case for case in accepted if not is_sensible(*case))
    bad = sorted((name, leaf, value, *end) for (name, leaf, value), end in ended if end[0] in BAD)
    page = [
        "# Values that settings should not have",
        f"Every setting of the shipped files with each of {len(VALUES)} values ({', '.join(VALUES)}), one at a time: "
        f"{len(ended):,} cases, {len({leaf for (_, leaf, _), _ in ended})} settings. What nothing refused took a step "
        "on generated data and was evaluated. Loggers were made, and opened nothing. Corpora that have to be "
        "downloaded were checked and not read. `refused by the run` means by an error of the project, where only "
        "a corpus or a built model can judge.",
        table_of(rows).rstrip(),
        f"## Taken, and senseless: {len(senseless)} of the {len(accepted)} pairs of setting and value that are taken",
        "\n".join(f"- `{leaf}`: {value}" for leaf, value in senseless) or "None.",
        f"## Tracebacks, aborted processes, hangs: {len(bad)}",
        "\n".join(f"- `{leaf}` of {name}: {value}: {end}, {said[:200]}" for name, leaf, value, end, said in bad)
        or "None.",
    ]
    return "\n\n".join(page) + "\n", not bad and len(senseless) <= MOST_SENSELESS


def main(*, workers: int = 2, only: str = "", output: Path | None = None) -> None:
    """Try all cases, or those of the problems that fit a pattern, and write what came of them."""
    cases: list[Case] = []
    for name, (_, part) in _problems().items():
        if re.search(only, name):
            plain: Any = OmegaConf.to_container(composed(name))
            cases += itertools.product([name], leaves_of(part, plain), VALUES)
    here = importlib.import_module("fuzz_settings")  # which processes import, where they would be sent all of this one

    def died(_: int, reason: str) -> Any:
        return partial(tuple, ("hang" if "SIGALRM" in reason else "aborted", reason))

    ends = carry_out([partial(here.answer, *case) for case in cases], workers, died)
    page, good = report(list(zip(cases, ends, strict=True)))
    write(page, output)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    run(main)
