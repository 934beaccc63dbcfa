"""Ranges of settings, declared once: in the annotation of the argument or field that takes the setting.

The checks of a configuration read the annotations before any work. :func:`checked` and :func:`check_fields` apply
them to calls from Python too.
"""

import functools
import inspect
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from types import SimpleNamespace
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError, SchemaError

from sparse_bench.errors import ConfigError, unknown_choice

P = ParamSpec("P")
R = TypeVar("R")


def _true_or_false(value: Any) -> bool:
    if not isinstance(value, bool):
        raise PydanticCustomError("switch", "it has to be true or false")
    return value


#: Whole numbers. Few: layers, blocks, beams. Width: units in a layer. Many: generated examples. Step: from 0.
#: Count: all others.
Few = Annotated[int, Field(ge=1, le=1000)]
Width = Annotated[int, Field(ge=1, le=65536)]
Many = Annotated[int, Field(ge=1, le=1_000_000)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Step = Annotated[int, Field(ge=0, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Pair = Annotated[Sequence[Count], Field(min_length=2, max_length=2)]
#: Numbers from 0 to 1. Share includes both ends; Rate (as of dropout) excludes 1; Fraction excludes 0; Part both.
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Part = Annotated[float, Field(gt=0, lt=1)]
#: Factors and strengths. A value above a million is taken for a mistake.
Positive = Annotated[float, Field(gt=0, le=1e6)]
NotNegative = Annotated[float, Field(ge=0, le=1e6)]
Finite = Annotated[float, Field(ge=-1e6, le=1e6)]
Name = Annotated[str, Field(min_length=1)]
#: true or false. For a field declared as ``bool`` OmegaConf would accept any number.
Switch = Annotated[Any, AfterValidator(_true_or_false)]


def one_of(*valid: str) -> AfterValidator:
    """For an annotation: the value must be one of these strings."""

    def choose(value: str) -> str:
        if value not in valid:
            problem = unknown_choice("choice", value, valid)  # not the template itself, as it may contain braces
            raise PydanticCustomError("unknown_choice", "{problem}", {"problem": problem})
        return value

    return AfterValidator(choose)


@cache
def hints_of(target: Any) -> Mapping[str, Any]:
    """The annotations of a class's or function's arguments, with their ranges.

    Annotations that cannot be resolved are left out, for example names that only type checkers import.
    """
    function = inspect.unwrap(target.__init__ if inspect.isclass(target) else target)
    names = getattr(function, "__globals__", {})
    found: dict[str, Any] = {}
    for name, hint in getattr(function, "__annotations__", {}).items():
        try:
            one = SimpleNamespace(__annotations__={name: hint})
            found |= typing.get_type_hints(one, globalns=names, include_extras=True)
        except (NameError, AttributeError, TypeError, SyntaxError):
            continue
    return found


def without_range(hint: Any) -> Any:
    """The type in an annotation, without its range."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


@cache
def _adapter(target: Any, name: str) -> TypeAdapter[Any] | None:
    """Pydantic's validator of one argument; None if pydantic cannot make one, as for some of torch's unions."""
    try:
        config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
        return TypeAdapter(hints_of(target)[name], config=config)
    except (PydanticUserError, SchemaError):
        return None


def check_setting(target: Any, name: str, value: Any, path: str) -> None:
    """Check a value from a configuration against the annotation of ``target``'s argument ``name``.

    Raises:
        ConfigError: the value has another type, is out of range, or is an infinite number.
    """
    adapter = _adapter(target, name) if name in hints_of(target) else None
    if adapter is not None:
        # Validated as JSON, so that a list fits a tuple and the text '16' is not a number.
        _refuse(lambda: adapter.validate_json(json.dumps(value), strict=True), value, path)


#: Shorter messages for pydantic's errors about bounds.
_BOUNDS = {
    "greater_than_equal": "it has to be at least {ge}",
    "less_than_equal": "it has to be at most {le}",
    "greater_than": "it has to be more than {gt}",
    "less_than": "it has to be less than {lt}",
}


def _refuse(validate: Callable[[], Any], value: Any, path: str) -> None:
    try:
        validate()
    except ValidationError as error:
        # Leave out members of a union that no configuration can hold, for example a tensor.
        problems = [problem for problem in error.errors() if problem["type"] != "needs_python_object"]
        messages = set()
        for problem in problems or error.errors():
            bounds = {name: str(bound).removesuffix(".0") for name, bound in problem.get("ctx", {}).items()}
            message = problem["msg"].rstrip(".")
            messages.add(_BOUNDS.get(problem["type"], "{message}").format(message=message, **bounds))
        reasons = "; ".join(sorted(messages))
        raise ConfigError(f"'{path}' = {value!r} does not fit: {reasons}.") from error


@cache
def _with_ranges(target: Any) -> tuple[str, ...]:
    """Names of the arguments whose annotation contains a range. Only these are checked in calls from Python."""

    def holds(hint: Any) -> bool:
        return typing.get_origin(hint) in (Annotated, Literal) or any(map(holds, typing.get_args(hint)))

    return tuple(name for name, hint in hints_of(target).items() if holds(hint))


def _check_values(target: Any, values: Mapping[str, Any]) -> None:
    for name in _with_ranges(target):
        if name in values and (adapter := _adapter(target, name)) is not None:
            value = values[name]
            if isinstance(value, Sequence) and not isinstance(value, str):
                value = list(value)
            _refuse(functools.partial(adapter.validate_python, value), value, name)


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator for a function or ``__init__`` that checks arguments against the ranges in their annotations.

    Raises:
        ConfigError: on a call with an argument out of its range.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        _check_values(function, signature.bind(*args, **kwargs).arguments)
        return function(*args, **kwargs)

    return wrapper


def check_fields(instance: Any) -> None:
    """Check the fields of a dataclass against the ranges in their annotations; its ``__post_init__`` calls this.

    Raises:
        ConfigError: a field is out of its range.
    """
    _check_values(type(instance), {field.name: getattr(instance, field.name) for field in fields(instance)})
