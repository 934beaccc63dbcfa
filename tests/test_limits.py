"""Ranges are read from annotations: by the configuration's checks, and by whoever calls from Python."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from sparse_bench.config import CONF
from sparse_bench.errors import ConfigError
from sparse_bench.limits import Few, Name, Pair, Share, check_fields, check_setting, checked, hints_of, one_of

if TYPE_CHECKING:
    from fractions import Fraction


class Thing:
    @checked
    def __init__(
        self,
        sizes: Any,
        *,
        layers: Few = 2,
        rate: "Share | None" = None,
        head: Annotated[str, one_of("linear", "factored")] = "linear",
        pair: Pair = (1, 2),
        exact: "Fraction | None" = None,
    ) -> None:
        self.layers = layers


@dataclass
class Settings:
    share: Share = 0.5
    layers: Sequence[Name] = ("default",)

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 0}, "layers' = 0 does not fit: it has to be at least 1."),
        ({"layers": 10**12}, "it has to be at most 1000."),
        ({"rate": 1.01}, "it has to be at most 1."),
        ({"rate": float("nan")}, "finite"),
        ({"head": "linera"}, "Unknown choice 'linera'. Did you mean 'linear'? Valid choices: factored, linear."),
        ({"head": "{}"}, "Unknown choice '{}'."),
        ({"pair": (1, 2, 3)}, "at most 2 items"),
        ({"pair": (0, 2)}, "it has to be at least 1."),
    ],
)
def test_a_value_out_of_range_is_refused_wherever_it_comes_from(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Thing(None, **settings)
    assert message in str(refused.value)
    ((name, value),) = settings.items()
    with pytest.raises(ConfigError) as refused:
        check_setting(Thing, name, value, f"model.{name}")
    assert message in str(refused.value)
    assert f"'model.{name}'" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"), [("layers", "2"), ("layers", True), ("layers", 1.5), ("rate", [0.1]), ("head", None)]
)
def test_a_value_from_a_configuration_has_to_be_of_the_type(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"'model.{name}'"):
        check_setting(Thing, name, value, f"model.{name}")


def test_what_fits_is_taken() -> None:
    assert Thing(None, layers=1000, rate=0, head="factored", pair=[3, 4]).layers == 1000
    for name, value in {"layers": 1, "rate": 1, "head": "linear", "pair": [3, 4]}.items():
        check_setting(Thing, name, value, name)
    assert list(inspect.signature(Thing).parameters) == ["sizes", "layers", "rate", "head", "pair", "exact"]


def test_an_annotation_that_only_type_checkers_know_says_nothing() -> None:
    assert "exact" not in hints_of(Thing)
    assert {"layers", "rate", "head"} <= hints_of(Thing).keys()
    check_setting(Thing, "exact", "anything", "exact")


def test_fields_of_a_dataclass() -> None:
    with pytest.raises(ConfigError, match="'share' = -1 does not fit: it has to be at least 0"):
        Settings(share=-1)
    with pytest.raises(ConfigError, match=r"'layers' = \[''\] does not fit"):
        Settings(layers=[""])
    assert Settings(share=1, layers=OmegaConf.create(["a"])).share == 1


def test_every_annotation_of_what_the_shipped_files_name_is_understood() -> None:
    """One that cannot be resolved would leave a setting without its check."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(CONF.rglob("*.yaml"))]
    names = {
        line.split("_target_:")[1].split()[0] for text in texts for line in text.splitlines() if "_target_: " in line
    }
    ours = [get_object(name) for name in names if name.startswith("sparse_bench.")]
    assert len(ours) > 40
    for target in ours:
        parameters = inspect.signature(target).parameters
        assert set(parameters) - {"sizes"} <= hints_of(target).keys(), target
