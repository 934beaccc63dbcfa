"""The identity of a run: the settings that define it, and its name."""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sparse_bench.config.nodes import LABEL, corpus_only_settings, parameters_of, recorded_parameters, target_of
from sparse_bench.config.schema import TrainerConfig

#: Settings that determine how and where a run is carried out, but not what it measures.
NOT_IDENTITY = (
    *("experiment_name", "scale", "logger", "point", "device", "threads", "output", "progress", "start_from", "force"),
    *("wait_for_others", "stop_on_failure", "locks"),
)
NOT_IDENTITY_TRAINER = ("checkpoint_seconds", "keep")


def defines_an_arm(path: str) -> bool:
    """Whether the setting at a dotted path defines an arm: all settings that define a run, except the seed."""
    first, *rest = path.split(".")
    if first in (*NOT_IDENTITY, "seed") or (first == "trainer" and rest[:1] and rest[0] in NOT_IDENTITY_TRAINER):
        return False
    return path.rsplit(".", 1)[-1] not in (LABEL, "_partial_")


def identity(config: DictConfig, source: str | None = None) -> dict[str, Any]:
    """The resolved settings that define a run: those that differ from the defaults in the code.

    Defaults are those of the targets' signatures and of :class:`TrainerConfig`. So a new setting whose default keeps
    the old behaviour renames no old run. For the same reason a default in the code never changes its meaning; a changed
    choice goes into the YAML.

    Args:
        config: the configuration.
        source: name of the run whose weights the run starts from, as ``experiment/id``, if any.
    """
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return _identity(plain, source, lambda target: parameters_of(target_of({"_target_": target}, "configuration")))


def recorded_identity(plain: Mapping[str, Any]) -> dict[str, Any]:
    """:func:`identity` of the resolved configuration in a result, computed without running code that it names."""
    return _identity(plain, None, recorded_parameters)


#: Name of a target → its arguments, by name.
_Parameters = Callable[[str], dict[str, inspect.Parameter]]


def _identity(plain: Mapping[str, Any], source: str | None, parameters: _Parameters) -> dict[str, Any]:
    kept = {key: value for key, value in plain.items() if key not in NOT_IDENTITY}
    if source is not None:
        kept["start_from"] = source
    defaults = {f.name: f.default for f in fields(TrainerConfig) if f.default is not MISSING}
    kept["trainer"] = {
        key: _reduced(value, parameters)
        for key, value in plain["trainer"].items()
        if key not in NOT_IDENTITY_TRAINER and value != defaults.get(key)
    }
    return {key: _reduced(value, parameters) for key, value in kept.items()}


def _reduced(node: Any, parameters: _Parameters) -> Any:
    if isinstance(node, list):
        return [_reduced(value, parameters) for value in node]
    if not isinstance(node, dict):
        return node
    known = parameters(node["_target_"]) if "_target_" in node else {}
    left_out = {LABEL, "_partial_", *corpus_only_settings(node, known)}
    normal = {key: _as_annotated(known.get(key), value) for key, value in node.items() if key not in left_out}
    return {key: _reduced(value, parameters) for key, value in normal.items() if not _is_default(known.get(key), value)}


def _as_annotated(parameter: inspect.Parameter | None, value: Any) -> Any:
    """Convert 1 to 1.0 for an argument annotated as float, because both define the same run."""
    wants_float = parameter is not None and (
        parameter.annotation in (float, "float") or isinstance(parameter.default, float)
    )
    return float(value) if wants_float and type(value) is int else value


def _is_default(parameter: inspect.Parameter | None, value: Any) -> bool:
    if parameter is None or parameter.default is parameter.empty:
        return False
    default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
    default = _as_annotated(parameter, default)  # torch writes "weight_decay: float = 0"
    return bool(type(default) is type(value) and default == value)


def run_id(config: DictConfig, source: str | None = None) -> str:
    """Twelve hexadecimal digits: a hash of :func:`identity`."""
    canonical = json.dumps(identity(config, source), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
