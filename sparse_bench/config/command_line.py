"""Check the names on a command line before Hydra composes the configuration, to list the valid choices in errors.

Hydra's own errors do not list them. For a misspelt experiment it prints its search path, for a group set to null a
traceback, and for an unknown setting the advice to add it.
"""

import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

from sparse_bench.config.schema import CONF, Config, TrainerConfig, choices
from sparse_bench.errors import ConfigError, unknown_choice

#: One or several names of files: ``a,b`` in a sweep, ``[a,b]`` in a list. Hydra handles everything else.
_NAMES = re.compile(r"\[?[\w./-]+(,[\w./-]+)*\]?")
#: The same for texts, which may have a colon or a plus: ``cuda:1``, ``1e+3``.
_TEXTS = re.compile(r"[\w./:+-]+(,[\w./:+-]+)*")
#: Arguments that switch the checks off: users may bring their own files and groups, and arguments for completion in a
#: shell are not overrides.
_NOT_OURS = ("--config-dir", "-cd", "--config-path", "-cp", "hydra.searchpath", "--shell-completion", "-sc")


def check_command_line(arguments: Sequence[str]) -> None:
    """Refuse overrides that name an unknown setting or file.

    Raises:
        ConfigError: an override is refused; the message lists the valid choices.
    """
    groups = [path.name for path in CONF.iterdir() if path.is_dir()]
    foreign = any(argument.startswith(_NOT_OURS) for argument in arguments)
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key[:1].isalpha():  # flags, and overrides with + or ~
            continue
        group = key.partition("@")[0]
        if value == "null" and (group in groups or "/" in group):
            valid = f" Valid choices: {', '.join(choices(group))}." if choices(group) else ""
            raise ConfigError(f"{key}=null: a group needs the name of a file. Omit it to use its default.{valid}")
        if foreign:
            continue
        _check_key(key, groups)
        if key in groups and _NAMES.fullmatch(value):
            _check_files(key, value)


def as_typed(arguments: Sequence[str]) -> list[str]:
    """The arguments, with quotes around the values of text settings, and around paths of a dataset that exist.

    Otherwise Hydra reads the name 2024_01_15 as a whole number, 1e3 as one thousand, and ``true`` as a Boolean. It
    takes a comma in a file's name for a sweep, and refuses parentheses.
    """
    texts = {name for name, kind in get_type_hints(Config).items() if kind in (str, str | None)}
    quoted = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and key.lstrip("+") in texts and _TEXTS.fullmatch(value):
            value = ",".join(one if one == "null" else f"'{one}'" for one in value.split(","))
        elif key.startswith("dataset.") and _is_path(value):
            value = "'" + value.replace("'", "\\'") + "'"
        quoted.append(key + equals + value)
    return quoted


def _is_path(value: str) -> bool:
    """Whether a value is the path of a file or folder, and cannot be a number or a list."""
    try:
        float(value)
        return False
    except ValueError:
        pass
    try:
        return value[:1] not in ("", "[", "'", '"') and (value.startswith("~/") or Path(value).expanduser().exists())
    except (OSError, ValueError, RuntimeError):  # too long for a name, or the home of nobody
        return False


def _check_key(key: str, groups: Sequence[str]) -> None:
    first, *rest = re.split(r"[./@]", key)
    known = {*groups, *(field.name for field in fields(Config)), "hydra"}
    if first not in known:
        raise ConfigError(unknown_choice("setting", first, known))
    settings = [field.name for field in fields(TrainerConfig)]
    if first == "trainer" and rest and rest[0] not in settings:
        raise ConfigError(f"In 'trainer': {unknown_choice('setting', rest[0], settings)}")


def _check_files(group: str, value: str) -> None:
    shipped = choices(group)
    for name in value.strip("[]").split(","):
        if name.removesuffix(".yaml") not in shipped:
            raise ConfigError(unknown_choice(group, name, shipped))
