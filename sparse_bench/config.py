"""The configuration's schema, its checks, and the identity of a run.

Hydra composes the YAML files under ``conf/``. Shared fields have a dataclass schema here; a node with ``_target_`` has
the signature of its target as its schema: unknown settings, values of the wrong type and combinations that cannot work
are refused before any data is read.
"""

import hashlib
import inspect
import json
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, TypeAdapter, ValidationError

from sparse_bench.errors import ConfigError, SparseBenchError, unknown_choice

#: Name that a group's file gives itself for tables and figures; no argument of any target.
LABEL = "label"
PRECISIONS = ("fp32", "bf16", "fp16")
#: Settings of hydra's ``instantiate`` that are no arguments of the target.
_HYDRA_KEYS = ("_target_", "_partial_", "_recursive_", "_convert_", LABEL)

_PACKAGE = Path(__file__).resolve().parent
#: The configuration tree: inside an installed package, else beside it in the repository.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"


@dataclass
class TrainerConfig:
    """How long and how a run trains; see ``conf/trainer/default.yaml`` for what each setting means."""

    epochs: int = 100
    steps: int | None = None
    precision: str = "fp32"
    gradient_clip: float | None = None
    accumulate: int = 1
    schedule: Any = None
    stop: Any = None
    evaluate_every: int = 1
    evaluate_first: bool = False
    select: str = "last"
    monitor: str | None = None
    monitor_mode: str | None = None
    early_stopping: int | None = None
    reset_optimizer: bool = False
    checkpoint_seconds: float = 60.0
    keep: str = "weights"
    deterministic: bool = True


@dataclass
class Config:
    """One run."""

    experiment_name: str = "ad_hoc"
    seed: int = 0
    model: Any = None
    dataset: Any = None
    sparsity: Any = None
    optimizer: Any = None
    start_from: str | None = None
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: Any = None
    point: Any = None
    device: str = "auto"
    threads: int | None = None
    output: str = "runs"
    progress: bool = True


#: Settings that say how and where a run is carried out, not what it measures.
_NOT_IDENTITY = ("experiment_name", "logger", "point", "device", "threads", "output", "progress", "start_from")
_NOT_IDENTITY_TRAINER = ("checkpoint_seconds", "keep")


def register() -> None:
    """Make the schema known to Hydra. Call once, before composing."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)


def choices(group: str) -> list[str]:
    """Names of the shipped files of a config group."""
    root = CONF / group
    return sorted(str(path.relative_to(root).with_suffix("")) for path in root.rglob("*.yaml"))


def target_of(node: Any, path: str) -> Any:
    """The class or function that a node's ``_target_`` names.

    Raises:
        ConfigError: there is no node, no ``_target_``, or nothing of that name can be imported.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"'{path}' needs a _target_. Choose one of the files in conf/: {', '.join(choices(path))}.")
    try:
        return get_object(node["_target_"])
    except Exception as error:
        raise ConfigError(f"'{path}._target_' names {node['_target_']}, which cannot be imported: {error}") from error


def build(node: Any, **overrides: Any) -> Any:
    """Instantiate a config node (None stays None), with errors of the project as they were raised."""
    if node is None:
        return None
    try:
        return instantiate(_unlabelled(node) | overrides)
    except InstantiationException as error:
        if isinstance(error.__cause__, SparseBenchError):
            raise error.__cause__ from None
        raise


def _unlabelled(node: Any) -> Any:
    if not isinstance(node, Mapping):
        return node
    return {key: _unlabelled(value) for key, value in node.items() if key != LABEL}


def check(config: DictConfig) -> None:
    """Refuse a configuration that cannot be run, naming the problem and the valid choices.

    Raises:
        ConfigError: see above.
    """
    try:
        plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    except Exception as error:
        raise ConfigError(f"The configuration cannot be resolved: {error}") from error
    for path, node in _targets(plain):
        _check_arguments(target_of(node, path), node, path)
    _check_trainer(plain["trainer"])
    _check_combination(plain)
    # Schemes and schedules check their own settings when they are made, which takes no time.
    trainer = plain["trainer"]
    made = {"sparsity": plain["sparsity"], **{f"trainer.{key}": trainer[key] for key in ("schedule", "stop")}}
    for path, node in made.items():
        try:
            build(node)
        except InstantiationException as error:
            raise ConfigError(f"'{path}' cannot be made: {error.__cause__ or error}") from error


def _targets(node: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All nodes that have a ``_target_``, inner ones first."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _targets(value, f"{path}.{key}" if path else str(key))
        if "_target_" in node:
            yield path, node


def _parameters(target: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(target).parameters)


def _check_arguments(target: Any, node: Mapping[str, Any], path: str) -> None:
    parameters = _parameters(target)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    for key, value in node.items():
        if key in _HYDRA_KEYS:
            continue
        if key not in parameters:
            if takes_any:
                continue
            raise ConfigError(f"In '{path}': {unknown_choice('setting', key, parameters)}")
        if key in hints and not (isinstance(value, Mapping) and "_target_" in value):
            _check_type(hints[key], value, f"{path}.{key}")
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty and name not in node
    ]
    if missing:
        raise ConfigError(f"'{path}' lacks the settings {', '.join(missing)}.")


def _check_type(hint: Any, value: Any, path: str) -> None:
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        adapter.validate_json(json.dumps(value), strict=True)  # as JSON: a list fits a tuple, '16' is no number
    except ValidationError as error:
        reasons = "; ".join(sorted({problem["msg"] for problem in error.errors()}))
        raise ConfigError(f"'{path}' = {value!r} does not fit: {reasons}.") from error
    except Exception:
        # A hint that pydantic cannot turn into a validator (torch's own unions, say) says nothing about the value;
        # the target checks it itself when it is called.
        return


def _check_trainer(trainer: Mapping[str, Any]) -> None:
    def at_least(key: str, least: float) -> None:
        if trainer[key] is not None and trainer[key] < least:
            raise ConfigError(f"trainer.{key} must be at least {least}, not {trainer[key]}.")

    for key, least in {"epochs": 1, "steps": 1, "accumulate": 1, "evaluate_every": 0, "early_stopping": 1}.items():
        at_least(key, least)
    at_least("checkpoint_seconds", 0.0)
    for key in ("schedule", "stop"):
        if trainer[key] is not None and not (isinstance(trainer[key], Mapping) and "_target_" in trainer[key]):
            raise ConfigError(f"trainer.{key} must be null or have a _target_, not be {trainer[key]!r}.")
    if trainer["gradient_clip"] is not None and trainer["gradient_clip"] <= 0:
        raise ConfigError(f"trainer.gradient_clip must be positive or null, not {trainer['gradient_clip']}.")
    for key, valid in {
        "precision": PRECISIONS,
        "select": ("last", "best"),
        "keep": ("nothing", "weights", "checkpoint"),
        "monitor_mode": (None, "min", "max"),
    }.items():
        if trainer[key] not in valid:
            raise ConfigError(unknown_choice(f"trainer.{key}", trainer[key], map(str, valid)))
    if (trainer["monitor"] is None) != (trainer["monitor_mode"] is None):
        raise ConfigError("trainer.monitor and trainer.monitor_mode (min or max) go together; give both or neither.")
    if trainer["evaluate_every"] == 0 and (trainer["select"] == "best" or trainer["early_stopping"]):
        raise ConfigError("trainer.select=best and trainer.early_stopping need trainer.evaluate_every of at least 1.")


def _check_combination(plain: Mapping[str, Any]) -> None:
    model, task = target_of(plain["model"], "model"), target_of(plain["dataset"], "dataset")
    if task.name not in model.tasks:
        fitting = [name for name in choices("model") if task.name in _shipped_target("model", name).tasks]
        corpora = [name for name in choices("dataset") if _shipped_target("dataset", name).name in model.tasks]
        raise ConfigError(
            f"The model '{plain['model'].get(LABEL)}' learns {' or '.join(model.tasks)}, and the dataset "
            f"'{plain['dataset'].get(LABEL)}' is for {task.name}. "
            f"Models for this dataset: {', '.join(fitting) or '(none)'}. "
            f"Datasets for this model: {', '.join(corpora) or '(none)'}."
        )
    watched, trainer = task.splits[0], plain["trainer"]
    if (trainer["select"] == "best" or trainer["early_stopping"]) and len(task.splits) == 1:
        raise ConfigError(
            f"trainer.select=best and trainer.early_stopping would choose by '{watched}', the only split of this "
            "dataset, whose metrics are the result. Use trainer.select=last and trainer.early_stopping=null."
        )
    looks = {
        f"optimizer={plain['optimizer'].get(LABEL)}": getattr(
            target_of(plain["optimizer"], "optimizer"), "observes", False
        ),
        "trainer.stop": trainer["stop"] and not (trainer["stop"].get("metric") or "").startswith("train/"),
    }
    for setting, does in looks.items():
        if does and (len(task.splits) == 1 or trainer["evaluate_every"] == 0):
            raise ConfigError(
                f"{setting} looks at evaluations during training: it needs trainer.evaluate_every of at least 1 and a "
                "dataset with a validation split."
            )
    if trainer["monitor"] and not trainer["monitor"].startswith(f"{watched}/"):
        raise ConfigError(f"trainer.monitor is a metric of the watched split, '{watched}/…', not {trainer['monitor']}.")
    for path, scheme in _targets(plain["sparsity"], "sparsity"):
        _check_layers(model, plain["model"].get(LABEL), target_of(scheme, path), scheme, path)


def _check_layers(model: Any, label: str | None, target: Any, scheme: Mapping[str, Any], path: str) -> None:
    """A scheme on a model: the layers that it needs, and those that it is told to work on."""
    needs = getattr(target, "needs", ())
    if lacking := [group for group in needs if group not in model.groups]:
        fitting = [name for name in choices("model") if set(needs) <= set(_shipped_target("model", name).groups)]
        raise ConfigError(
            f"'{path}' ({target.__name__}) works on {' and '.join(lacking)} layers, and the model '{label}' declares "
            f"none: its groups are {', '.join(model.groups)}. Models for it: {', '.join(fitting) or '(none)'}."
        )
    for selector in scheme.get("layers") or ():
        if not any(character in selector for character in "*?[.") and selector not in model.groups:
            raise ConfigError(f"In '{path}.layers': {unknown_choice('layer group', selector, model.groups)}")


def _shipped_target(group: str, name: str) -> Any:
    return target_of(OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml")), group)


def identity(config: DictConfig, source: str | None = None) -> dict[str, Any]:
    """What defines a run: the resolved settings that differ from the defaults in the code.

    ``source`` is the run whose weights it starts from, if any: that run itself, not the experiment that is asked for.

    Defaults are those of the targets' signatures and of :class:`TrainerConfig`, so a new setting whose default keeps
    the old behaviour renames no old run. By the same token a default in the code never changes its meaning; a changed
    choice goes into the YAML.
    """
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    kept = {key: value for key, value in plain.items() if key not in _NOT_IDENTITY}
    if source is not None:
        kept["start_from"] = source
    defaults = {f.name: f.default for f in fields(TrainerConfig) if f.default is not MISSING}
    kept["trainer"] = {
        key: _reduced(value)
        for key, value in plain["trainer"].items()
        if key not in _NOT_IDENTITY_TRAINER and value != defaults.get(key)
    }
    return {key: _reduced(value) for key, value in kept.items()}


def _reduced(node: Any) -> Any:
    if isinstance(node, list):
        return [_reduced(value) for value in node]
    if not isinstance(node, dict):
        return node
    parameters = _parameters(get_object(node["_target_"])) if "_target_" in node else {}
    normal = {key: _as_annotated(parameters.get(key), value) for key, value in node.items()}
    return {
        key: _reduced(value)
        for key, value in normal.items()
        if key not in (LABEL, "_partial_") and not _is_default(parameters.get(key), value)
    }


def _as_annotated(parameter: inspect.Parameter | None, value: Any) -> Any:
    """1 where a float is wanted is 1.0: the same run, so the same name."""
    wants_float = parameter is not None and (
        parameter.annotation in (float, "float") or isinstance(parameter.default, float)
    )
    return float(value) if wants_float and type(value) is int else value


def _is_default(parameter: inspect.Parameter | None, value: Any) -> bool:
    if parameter is None or parameter.default is parameter.empty:
        return False
    default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
    return bool(type(default) is type(value) and default == value)


def run_id(config: DictConfig, source: str | None = None) -> str:
    """Twelve hexadecimal digits: a hash of :func:`identity`."""
    canonical = json.dumps(identity(config, source), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
