"""What scripts/fuzz_settings.py tries: problems, settings, values, and which of the values make sense."""

import re
from collections.abc import Iterator
from typing import Any

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
    r"replace_singletons)|sparsity\.(density|begin|stop|fraction|zeta|final_zeta)|sparsity\.parts\.\w+\.density|"
    r"optimizer\.(weight_decay|momentum|dampening|lr_decay|initial_accumulator_value|eps|alpha)|"
    r"trainer\.(evaluate_every|checkpoint_seconds|schedule\.(floor|constant_epochs)|stop\.target)|.*seed"
)
_NULL = (
    r"point|threads|start_from|dataset\.(bpe|pool|vocabulary|oov_token)|dataset\.corpus\.(vocabulary|train)|"
    r"sparsity\.(epsilon|final_zeta|combined_with|fraction|blocks|delta)|optimizer\.(fused|foreach|window|force_after)|"
    r"trainer\.(steps|gradient_clip|schedule|stop|monitor|monitor_mode|early_stopping|schedule\.epoch_steps|"
    r"stop\.(metric|mode))|logger\.wandb\.(entity|tags|settings)"
)
_FACTORS = (
    r"model\.(\w+_penalty|regularization)|dataset\.length_penalty|sparsity\.(gain|epsilon)|optimizer\.(lr|eps|weight_decay|"
    r"initial_accumulator_value|lr_decay)|trainer\.(gradient_clip|checkpoint_seconds|schedule\.epoch_steps|"
    r"stop\.(target|within))|logger\.wandb\.(finish_)?timeout"
)
#: Patterns of settings, and the values that make sense for them.
SENSIBLE: list[tuple[str, set[str]]] = [
    (r".+\.label|experiment_name|output|dataset\.oov_token|dataset\.corpus\.train", TEXTS),
    (r"logger\.(wandb\.(project|entity)|tensorboard\.subfolder)", TEXTS),
    (r"experiment_name|output", NUMBERS),  # Hydra makes a text of a number where a text is wanted
    (r"seed|threads|trainer\.\w+", {"number as text"}),  # and a number of a text
    (r"point", set(VALUES)),  # means what a sweep's file makes of it
    (r".*\._partial_|progress|force|dataset\.\w+|dataset\.corpus\.\w+|model\.\w+|trainer\.\w+", {"true"}),
    (r"optimizer\.\w+|sparsity\.(parts\.\w+\.)?\w+|logger\.\w+\.\w+", {"true"}),  # what is no switch refuses it
    (_ZERO, {"zero"}),
    (_NULL, {"null"}),
    (_FACTORS, {"one and a half"}),
    (r"dataset\.vocabulary", {"10^12"}),  # all words
    (r"trainer\.stop\.target", {"minus one"}),  # a metric may be negative
    (r"dataset\.char_ngrams|logger\.wandb\.settings", {"dict"}),
]

#: Small problems by task, and the model that learns it fastest.
SMALL = {
    "intent": ["dataset=sara_like", "dataset.corpus.examples=150", "model=diet", "model.transformer_size=8"],
    "dialogue": ["dataset=booking_like", "dataset.corpus.stories=10", "dataset.corpus.test_stories=4", "model=ted"],
    "language_modelling": [
        "dataset=ptb_like",
        "dataset.corpus.sentences=60",
        "dataset.batch_size=4",
        "dataset.bptt=8",
        "dataset.valid_batch_size=4",
        "dataset.test_batch_size=4",
        "model=lstm_lm",
        "model.hidden=9",
        "model.embedding_dim=4",
    ],
    "tagging": [
        "dataset=pos_like",
        "dataset.corpus.sentences=100",
        "dataset.corpus.vocabulary=100",
        "model=bilstm_tagger",
    ],
    "text_typing": ["dataset=text_types_like", "dataset.corpus.examples=200", "model=bag_of_embeddings"],
    "translation": [
        "dataset=multi30k_like",
        "dataset.corpus.train=60",
        "dataset.corpus.valid=6",
        "dataset.corpus.test=6",
        "dataset.min_count=1",
        "dataset.beam=2",
        "model=transformer",
        "model.d_model=8",
        "model.heads=2",
        "model.d_inner=8",
    ],
}
#: Task of the small problem that a scheme is tried on; others are tried on text typing.
TASK_OF_SCHEME = {"block_diagonal": "tagging", "blocks_and_tiers": "tagging", "random_fan_in": "language_modelling"}
ALWAYS = ["trainer.epochs=1", "trainer.steps=1", "threads=1", "logger=none", "progress=false", "device=cpu"]
#: Weights of the big models made small where their own files are tried.
NARROW = {
    "awd_lstm": ["model.hidden=8", "model.embedding_dim=4"],
    "diet": ["model.transformer_size=8"],
    "lstm_lm": ["model.hidden=9", "model.embedding_dim=4"],
    "transformer": ["model.d_model=8", "model.heads=2", "model.d_inner=8"],
}


def problems() -> dict[str, tuple[list[str], str]]:
    """Name → (overrides, the part of the configuration whose leaves are tried)."""
    from sparse_bench.config import choices

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
        found[f"dataset/{name}"] = ([*own, *models], "dataset")
    for name in choices("sparsity"):
        small = SMALL[TASK_OF_SCHEME.get(name, "text_typing")]
        found[f"sparsity/{name}"] = ([*small, f"sparsity={name}"], "sparsity")
    for name in choices("optimizer"):
        found[f"optimizer/{name}"] = ([*SMALL["text_typing"], f"optimizer={name}"], "optimizer")
    for name in choices("logger"):
        found[f"logger/{name}"] = ([*SMALL["text_typing"], f"logger={name}"], "logger")
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
    from omegaconf import OmegaConf

    from sparse_bench.config import CONF, target_of

    target = target_of(OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml")), group)
    return target.tasks[0] if group == "model" else target.name


def defaults_of(module: str, name: str) -> str:
    """The settings of a schedule or a stopping rule as an override writes them."""
    import inspect

    from hydra.utils import get_object

    parameters = inspect.signature(get_object(f"sparse_bench.training.{module}.{name}")).parameters
    given = {key: "null" if p.default is None else p.default for key, p in parameters.items()}
    if name == "Reached":
        given["metric"] = "valid/accuracy"
    return "".join(f",{key}:{value}" for key, value in given.items())


def leaves(node: Any, path: str) -> Iterator[str]:
    """Paths of everything below a node of a configuration, inner nodes that have a target included."""
    for key, value in node.items():
        inner = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict):
            if "_target_" in value or not value:
                yield inner
            yield from leaves(value, inner)
        else:
            yield inner


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
