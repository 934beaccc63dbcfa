"""Check a whole configuration before any data are read."""

import inspect
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Annotated, Any

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from sparse_bench.config.catalog import SCALES
from sparse_bench.config.nodes import LABEL, build, corpus_only_settings, parameters_of, target_of, targets
from sparse_bench.config.schema import CONF, Config, TrainerConfig, choices
from sparse_bench.errors import ConfigError, unknown_choice
from sparse_bench.limits import (
    Name,
    NotNegative,
    Positive,
    Rate,
    Share,
    Switch,
    check_setting,
    hints_of,
    one_of,
)

_TARGETS = ("schedule", "stop")
#: Largest plausible value of any setting of an optimizer.
_LARGEST = 1e6
#: Attributes that a run needs of the classes of its model and its task, and of the objects that it builds.
_NEEDED_OF_CLASSES = {
    "model": ("tasks", "groups", "layer_groups"),
    "dataset": ("name", "splits", "metrics", "monitor", "epoch_batches", "loss", "evaluate", "checksums"),
}
_NEEDED_OF_OBJECTS = {
    "sparsity": ("build", "attach", "before_training", "after_step", "at_epoch_end"),
    "optimizer": ("param_groups", "step", "zero_grad"),
    "trainer.schedule": ("factor",),
    "trainer.stop": ("metric", "stops"),
}


def _any_node(
    _target_: Name,
    label: Name,
    _partial_: Switch,
    _recursive_: Switch,
    _convert_: Annotated[str, one_of("none", "partial", "object", "all")],
) -> None:
    """Settings that every node with a target may have in addition to the target's arguments: Hydra's, and its label."""


def _of_torch(
    lr: Positive,
    momentum: Rate,
    dampening: Share,
    betas: tuple[Rate, Rate],
    alpha: Rate,
    rho: Rate,
    eps: Positive | tuple[Positive | None, Positive],
    weight_decay: NotNegative,
    lr_decay: NotNegative,
    lambd: NotNegative,
    initial_accumulator_value: NotNegative,
    momentum_decay: NotNegative,
) -> None:
    """Settings of torch's optimizers, whose constructors accept values with which nothing is learned.

    Without ``eps``, a weight whose gradients were all 0 would become NaN, and masked weights have such gradients.
    """


def check(config: DictConfig) -> None:
    """Check that a configuration can be run.

    Raises:
        ConfigError: it cannot; the message gives the problem and the valid choices.
    """
    try:
        plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    except Exception as error:
        if missing := " ".join(f"{key}=…" for key in _missing("", OmegaConf.to_container(config))):
            raise ConfigError(f"The command line has to give: {missing}") from error
        raise ConfigError(f"The configuration cannot be resolved: {error}") from error
    # First the keys and types of all nodes, from the outside in.
    _check_keys("", plain, Config)
    _check_keys("trainer", plain["trainer"], TrainerConfig)
    for path, names in _NEEDED_OF_CLASSES.items():
        _check_offers(target_of(plain[path], path), names, path, plain[path])
    if not isinstance(plain["logger"], Mapping | None):
        raise ConfigError(f"'logger' must name loggers, not be {plain['logger']!r}: {', '.join(choices('logger'))}.")
    for name, node in (plain["logger"] or {}).items():
        _check_offers(target_of(node, f"logger.{name}"), ("start", "log", "finish"), f"logger.{name}", node)
    for path, node in targets(plain):
        _check_arguments(target_of(node, path), node, path)
    # Then combinations of settings.
    _check_shared(plain)
    _check_trainer(plain["trainer"])
    _check_combination(plain)
    _check_optimizer(plain["optimizer"])
    # Schemes and schedules check their own settings when they are built, which is fast.
    trainer = plain["trainer"]
    for path, node in {"sparsity": plain["sparsity"], **{f"trainer.{key}": trainer[key] for key in _TARGETS}}.items():
        if node is not None:
            _check_offers(_made(node, path), _NEEDED_OF_OBJECTS[path], path, node)


def _missing(path: str, node: Any) -> Iterator[str]:
    """The settings that have no value yet (``???``)."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _missing(f"{path}.{key}" if path else str(key), value)
    elif node == "???":
        yield path


def _made(node: Any, path: str, *arguments: Any, **settings: Any) -> Any:
    """The object that a node describes.

    Raises:
        ConfigError: it cannot be built.
    """
    try:
        made = build(node, **settings)
        return made(*arguments) if arguments else made
    except (InstantiationException, TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"'{path}' cannot be built: {error.__cause__ or error}") from error


def _check_offers(thing: Any, names: Sequence[str], path: str, node: Mapping[str, Any]) -> None:
    """Check that a class or an object has the attributes that a run needs."""
    if lacking := [name for name in names if not hasattr(thing, name)]:
        shipped = f" Valid choices: {', '.join(choices(path))}." if choices(path) else ""
        raise ConfigError(
            f"'{path}._target_' names {node['_target_']}, which cannot be used there: it has no "
            f"{' and no '.join(lacking)}.{shipped}"
        )


def _check_keys(path: str, node: Mapping[str, Any], schema: type) -> None:
    """Check the keys and values of a node; on the command line, + and ~ can add and remove keys against the schema."""
    where, known = f"In '{path}': " if path else "", [field.name for field in fields(schema)]
    for key in node:
        if key not in known:
            raise ConfigError(where + unknown_choice("setting", key, known))
    if missing := [key for key in known if key not in node]:
        raise ConfigError(f"{where}The configuration lacks {', '.join(missing)}.")
    for key, value in node.items():
        if not is_dataclass(hints_of(schema)[key]):
            check_setting(schema, key, value, f"{path}.{key}" if path else key)


def _check_shared(plain: Mapping[str, Any]) -> None:
    if plain["scale"] not in SCALES:
        raise ConfigError(unknown_choice("scale", plain["scale"], SCALES))
    for key in ("experiment_name", "start_from"):
        if key == "start_from" and plain[key] is None:
            continue
        name = PurePath(plain[key] or "")
        # Reports do not search hidden folders.
        if not name.parts or name.is_absolute() or any(part.startswith(".") for part in name.parts):
            raise ConfigError(
                f"{key} must be a path below the output folder; no part of it may begin with a dot: '{plain[key]}'."
            )


def _check_optimizer(node: Mapping[str, Any]) -> None:
    """Check an optimizer's settings by building it for a dummy weight."""
    import torch  # a slow import that --help and --cfg do not need

    target = target_of(node, "optimizer")
    for key in hints_of(_of_torch).keys() & node.keys() if target.__module__.startswith("torch.") else ():
        check_setting(_of_torch, key, node[key], f"optimizer.{key}")
    step = getattr(target, "step", None)
    closure = inspect.signature(step).parameters.get("closure") if step is not None else None
    if closure is not None and closure.default is closure.empty:
        raise ConfigError(
            f"{node['_target_']} evaluates the loss several times per step, which the trainer does not support. "
            f"Valid choices: {', '.join(choices('optimizer'))}."
        )
    made = _made(node, "optimizer", [torch.nn.Parameter(torch.zeros(1))], _partial_=True)
    _check_offers(made, _NEEDED_OF_OBJECTS["optimizer"], "optimizer", node)
    for name, value in made.defaults.items():  # torch accepts any number
        if isinstance(value, int | float) and value > _LARGEST:
            raise ConfigError(f"'optimizer.{name}' = {value!r} does not fit: it has to be at most {_LARGEST:g}.")


def _check_arguments(target: Any, node: Mapping[str, Any], path: str) -> None:
    parameters = parameters_of(target)
    of_corpus = corpus_only_settings(node, parameters)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for key, value in node.items():
        if key in hints_of(_any_node):
            check_setting(_any_node, key, value, f"{path}.{key}")
            continue
        if key not in parameters:
            if takes_any or key in of_corpus:
                continue
            raise ConfigError(f"In '{path}': {unknown_choice('setting', key, [*parameters, *of_corpus])}")
        hint = hints_of(target).get(key)
        if isinstance(value, Mapping) and "_target_" in value:
            _check_result(target_of(value, f"{path}.{key}"), hint, value, f"{path}.{key}")
        elif isinstance(value, Mapping) and any(map(is_dataclass, (hint, *_parts(hint)))):
            raise ConfigError(f"'{path}.{key}' needs a _target_.")
        else:
            check_setting(target, key, value, f"{path}.{key}")
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty and name not in node
    ]
    if missing:
        raise ConfigError(f"'{path}' lacks the settings {', '.join(missing)}.")


def _check_result(target: Any, hint: Any, node: Mapping[str, Any], path: str) -> None:
    """Check that an inner node builds an object of the annotated type, as far as annotations exist."""
    made = target if inspect.isclass(target) else hints_of(target).get("return")
    wanted = {part for part in (hint, *_parts(hint)) if inspect.isclass(part) and part is not type(None)}
    if inspect.isclass(made) and wanted and not issubclass(made, tuple(wanted)):
        names = " or ".join(sorted(part.__name__ for part in wanted))
        raise ConfigError(f"'{path}._target_' names {node['_target_']}, which builds {made.__name__} and not {names}.")


def _parts(hint: Any) -> Iterator[Any]:
    """The types that an annotation contains."""
    for part in typing.get_args(hint):
        yield from _parts(part) if typing.get_args(part) else (part,)


def _check_trainer(trainer: Mapping[str, Any]) -> None:
    for key in _TARGETS:
        if trainer[key] is not None and not (isinstance(trainer[key], Mapping) and "_target_" in trainer[key]):
            raise ConfigError(f"trainer.{key} must be null or have a _target_; it is {trainer[key]!r}.")
    if (trainer["monitor"] is None) != (trainer["monitor_mode"] is None):
        raise ConfigError("trainer.monitor and trainer.monitor_mode (min or max) go together; give both or neither.")
    if trainer["evaluate_every"] == 0 and (trainer["select"] == "best" or trainer["early_stopping"]):
        raise ConfigError("trainer.select=best and trainer.early_stopping need trainer.evaluate_every of at least 1.")


def _check_combination(plain: Mapping[str, Any]) -> None:
    # The model must be able to learn the task.
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
    # Evaluations may decide something only on a split that is not the result itself.
    watched, trainer = task.splits[0], plain["trainer"]
    if (trainer["select"] == "best" or trainer["early_stopping"]) and len(task.splits) == 1:
        raise ConfigError(
            f"trainer.select=best and trainer.early_stopping would choose by '{watched}', the only split of this "
            "dataset, whose metrics are the result. Use trainer.select=last and trainer.early_stopping=null."
        )
    optimizer = target_of(plain["optimizer"], "optimizer")
    observes = getattr(optimizer, "observes", False)
    if trainer["reset_optimizer"] and observes:
        raise ConfigError(
            f"trainer.reset_optimizer would delete the averages of optimizer={plain['optimizer'].get(LABEL)}. "
            "Use trainer.reset_optimizer=false, or an optimizer that does not average."
        )
    stop_metric = (trainer["stop"] or {}).get("metric") or ""
    looks = {
        f"optimizer={plain['optimizer'].get(LABEL)}": observes,
        "trainer.stop": trainer["stop"] and not stop_metric.startswith("train/"),
    }
    for setting, does in looks.items():
        if does and (len(task.splits) == 1 or trainer["evaluate_every"] == 0):
            raise ConfigError(
                f"{setting} uses evaluations during training: it needs trainer.evaluate_every of at least 1 and a "
                "dataset with a validation split."
            )
    # The metrics must exist; the names of train/… are known only during training.
    metrics = [f"{watched}/{metric}" for metric in task.metrics]
    if stop_metric and not stop_metric.startswith("train/") and stop_metric not in metrics:
        raise ConfigError(unknown_choice("trainer.stop.metric", stop_metric, [*metrics, "train/…"]))
    if trainer["monitor"] and trainer["monitor"] not in metrics:
        raise ConfigError(unknown_choice("trainer.monitor", trainer["monitor"], metrics))
    # The schemes must fit the model and the optimizer.
    for path, scheme in targets(plain["sparsity"], "sparsity"):
        target = target_of(scheme, path)
        _check_layers(model, plain["model"].get(LABEL), target, scheme, path)
        if getattr(target, "holds_hidden", False) and observes:
            raise ConfigError(
                f"'{path}' ({target.__name__}) trains weights that the model does not see, and optimizer="
                f"{plain['optimizer'].get(LABEL)} would average those. Use an optimizer that does not average."
            )
        accepted = getattr(target, "optimizers", ())
        if accepted and optimizer not in accepted:
            names = [known.__name__ for known in accepted]
            raise ConfigError(f"In '{path}': {unknown_choice('optimizer for it', optimizer.__name__, names)}")


def _check_layers(model: Any, label: str | None, target: Any, scheme: Mapping[str, Any], path: str) -> None:
    """Check that a model declares the layers that a scheme needs, and those that the configuration selects."""
    needs = getattr(target, "needs", ())
    if lacking := [group for group in needs if group not in model.groups]:
        fitting = [name for name in choices("model") if set(needs) <= set(_shipped_target("model", name).groups)]
        raise ConfigError(
            f"'{path}' ({target.__name__}) needs {' and '.join(lacking)} layers, and the model '{label}' declares "
            f"none: its groups are {', '.join(model.groups)}. Models for it: {', '.join(fitting) or '(none)'}."
        )
    multiplied: Sequence[str] = getattr(model, "multiplied", ())
    chosen: Sequence[str] = scheme.get("layers", ()) or getattr(target, "layers", ())
    if getattr(target, "looked_up_only", False) and (groups := sorted({*chosen} & {*multiplied})):
        fitting = [
            name
            for name in choices("model")
            if set(needs) <= set(_shipped_target("model", name).groups)
            and not set(groups) & set(_shipped_target("model", name).multiplied)
        ]
        raise ConfigError(
            f"'{path}' ({target.__name__}) needs tables that are used for look-ups only, and the model '{label}' also "
            f"multiplies by its {' and '.join(groups)}. Models for it: {', '.join(fitting)}."
        )
    for selector in scheme.get("layers") or ():
        if not any(character in selector for character in "*?[.") and selector not in model.groups:
            raise ConfigError(f"In '{path}.layers': {unknown_choice('layer group', selector, model.groups)}")


def _shipped_target(group: str, name: str) -> Any:
    return target_of(OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml")), group)
