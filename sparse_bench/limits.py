"""Ranges of settings: declared once, in the annotations of the signature or field that takes the setting.

The configuration's checks read them there before any work. :func:`checked` and :func:`check_fields` hold callers from
Python to them too.
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


#: Numbers of things that are made one by one (layers, blocks, beams); of units in a layer; of examples that are made;
#: and whatever else counts.
Few = Annotated[int, Field(ge=1, le=1000)]
Width = Annotated[int, Field(ge=1, le=65536)]
Many = Annotated[int, Field(ge=1, le=1_000_000)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Pair = Annotated[Sequence[Count], Field(min_length=2, max_length=2)]
#: From 0 to 1; the rate of a dropout is less than 1; a fraction is not nothing; a part is not the whole either.
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Part = Annotated[float, Field(gt=0, lt=1)]
#: Factors and strengths. What is larger than a million is a slip.
Positive = Annotated[float, Field(gt=0, le=1e6)]
NotNegative = Annotated[float, Field(ge=0, le=1e6)]
Finite = Annotated[float, Field(ge=-1e6, le=1e6)]
Name = Annotated[str, Field(min_length=1)]
#: true or false. OmegaConf takes any number for one of them where a field is declared as ``bool``.
Switch = Annotated[Any, AfterValidator(_true_or_false)]


def one_of(*valid: str) -> AfterValidator:
    """For an annotation: one of these texts."""

    def choose(value: str) -> str:
        if value not in valid:
            told = {"told": unknown_choice("choice", value, valid)}  # it may hold braces, which a template must not
            raise PydanticCustomError("unknown_choice", "{told}", told)
        return value

    return AfterValidator(choose)


@cache
def hints_of(target: Any) -> Mapping[str, Any]:
    """The annotations of what a class or function takes, with their ranges.

    One that cannot be resolved (of a name that only type checkers import, say) is left out: it says nothing about a
    value.
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
    """The type that a range is of."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


@cache
def _adapter(target: Any, name: str) -> TypeAdapter[Any] | None:
    """None for a hint that pydantic cannot turn into a validator (torch's own unions, say): the target checks it."""
    try:
        config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
        return TypeAdapter(hints_of(target)[name], config=config)
    except (PydanticUserError, SchemaError):
        return None


def check_setting(target: Any, name: str, value: Any, path: str) -> None:
    """Refuse a value from a configuration that ``target`` does not take as its argument ``name``.

    Raises:
        ConfigError: the value is of another type, or out of range. No number may be infinite.
    """
    adapter = _adapter(target, name) if name in hints_of(target) else None
    if adapter is not None:
        # As JSON: a list fits a tuple, '16' is no number.
        _refuse(lambda: adapter.validate_json(json.dumps(value), strict=True), value, path)


#: What pydantic says of a bound, in fewer words.
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
        # Of a union, the part that no JSON can be (a tensor, say) is no advice.
        problems = [problem for problem in error.errors() if problem["type"] != "needs_python_object"]
        said = set()
        for problem in problems or error.errors():
            bounds = {name: str(bound).removesuffix(".0") for name, bound in problem.get("ctx", {}).items()}
            said.add(_BOUNDS.get(problem["type"], "{said}").format(said=problem["msg"].rstrip("."), **bounds))
        reasons = "; ".join(sorted(said))
        raise ConfigError(f"'{path}' = {value!r} does not fit: {reasons}.") from error


@cache
def _with_ranges(target: Any) -> tuple[str, ...]:
    """Arguments whose annotation holds a range; of others Python callers know what they do."""

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
    """Decorates a function or ``__init__``: arguments out of the range that their annotation declares are refused with
    a :class:`ConfigError`."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        _check_values(function, signature.bind(*args, **kwargs).arguments)
        return function(*args, **kwargs)

    return wrapper


def check_fields(instance: Any) -> None:
    """The same for the fields of a dataclass; called by its ``__post_init__``."""
    _check_values(type(instance), {field.name: getattr(instance, field.name) for field in fields(instance)})
