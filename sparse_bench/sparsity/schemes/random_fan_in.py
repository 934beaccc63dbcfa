"""SparseLang's random sparsity: every unit hears the same small number of randomly chosen inputs, for ever."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Generator, Tensor, nn

from sparse_bench.errors import ConfigError
from sparse_bench.limits import one_of
from sparse_bench.sparsity.large_without_numbers import LARGEST, LargeWithoutNumbers
from sparse_bench.sparsity.scheme import ModelFactory, Scheme, layer_groups
from sparse_bench.sparsity.selection import select
from sparse_bench.sparsity.topology import Shape
from sparse_bench.sparsity.weights import SparseWeight
from sparse_bench.streams import Streams

INITIAL = ("fan_in", "report", "model")
#: At this density and above, the report's code took another way, with another range of initial weights.
_REPORT_WIDE_DENSITY, _REPORT_WIDE_RANGE = 0.01, 0.1

#: Units for which random numbers are drawn together: a full-size matrix of them would be the largest tensor of a run.
_ROWS_AT_ONCE = 1024


@dataclass
class RandomFanIn(Scheme):
    """Each unit draws ⌊density · inputs⌋ of its inputs (Guo and Zhou 2018, "Sparse LSTM Model", and their code).

    The units of a recurrent layer are those of its gates, and their inputs are the layer's input and its hidden state
    together, so the two shares vary from unit to unit. A linear layer's units have the layer's inputs. At density 1
    layers are dense, with the same initialiser: the arm to compare with.

    Attributes:
        with_replacement: draw inputs as the original code does, which may choose one twice; a unit then has fewer
            weights than it drew. Otherwise all are different.
        initial: first weights. ``fan_in``: uniform within √(3 / fan-in), the same rule at every density. ``report``:
            the original's, uniform within √(3 / n) for n weights in a layer, but within 0.1 from density 0.01 on.
            ``model``: those the model was built with, whatever their number.
    """

    with_replacement: bool = False
    initial: Annotated[str, one_of(*INITIAL)] = "fan_in"

    def build(self, factory: ModelFactory) -> Any:
        """The model; without the numbers of full matrices of more than two gigabytes where none of them are needed.

        That is possible as this scheme draws all first weights itself. Others keep those of the model, which are not
        known before the model has drawn all.
        """
        if self.execution == "masked" or self.density == 1.0 or self.initial == "model":
            return factory()
        with LargeWithoutNumbers(LARGEST):
            model = factory()
        missing = {name for name, parameter in model.named_parameters() if parameter.is_meta}
        return model if missing <= set(select(model, layer_groups(model), self.layers)) else factory()

    def install(self, model: nn.Module, streams: Streams) -> dict[str, SparseWeight]:
        for name in self.selected:
            owner = model.get_submodule(name.rpartition(".")[0])
            if getattr(owner, "rows_are_inputs", False):
                raise ConfigError(
                    f"RandomFanIn draws the inputs of each unit, a row of a matrix [out, in]. The rows of '{name}' "
                    f"({type(owner).__name__}) are inputs. Select other layers (sparsity.layers), or another scheme."
                )
        return super().install(model, streams)

    def attach(self, model: nn.Module, streams: Streams) -> None:
        super().attach(model, streams)
        if self.initial == "model" or model.get_parameter(self.selected[0]).is_meta:  # no numbers there, only shapes
            return
        for names in _units(self.selected).values():
            for name in names:
                self._draw_weights(model, name, names, streams.torch("init", name))

    def _draw_weights(self, model: nn.Module, name: str, names: Sequence[str], generator: Generator) -> None:
        """Draw the first weights of ``name``, whose units also hear through the other ``names``."""
        weight = self.weights.get(name)
        if weight is None:
            full = model.get_parameter(name)
            fan_in = sum(model.get_parameter(other).shape[1] for other in names)
            limit = self._limit(fan_in, fan_in * full.shape[0])
            with torch.no_grad():
                full.copy_((2 * torch.rand(full.shape, generator=generator) - 1) * limit)
            return
        rows = weight.shape[0]
        together = sum(self.weights[other].active for other in names)
        limit = self._limit(together / rows, together)
        weight.set_values((2 * torch.rand(weight.active, generator=generator) - 1) * limit)

    def _limit(self, fan_in: float, weights: int) -> float:
        """Largest initial weight, of units with ``fan_in`` inputs in a layer of so many ``weights``."""
        if self.initial == "report":
            wide = self.density >= _REPORT_WIDE_DENSITY
            return _REPORT_WIDE_RANGE if wide else math.sqrt(3 / max(weights, 1))
        return math.sqrt(3 / max(fan_in, 1.0))

    def first_topology(self, shapes: Mapping[str, Shape], streams: Streams) -> dict[str, Tensor]:
        if self.density == 1.0:
            return {}
        masks: dict[str, Tensor] = {}
        for units, names in _units(list(shapes)).items():
            widths = [shapes[name][1] for name in names]
            rows, inputs = shapes[names[0]][0], sum(widths)
            fan_in = int(self.density * inputs + 1e-9)  # a tenth of ten is one, whatever 0.1 is in binary
            if fan_in < 1:
                raise ConfigError(
                    f"sparsity.density = {self.density} leaves the {inputs} inputs of '{units}' without a weight; "
                    f"it has to be at least {1 / inputs:.3g}."
                )
            drawn = self._draw_inputs(rows, inputs, fan_in, streams.torch("topology", units))
            masks |= dict(zip(names, drawn.split(widths, dim=1), strict=True))
        return masks

    def _draw_inputs(self, rows: int, inputs: int, fan_in: int, generator: Generator) -> Tensor:
        """Which of its ``inputs`` each of ``rows`` units hears, boolean [rows, inputs]."""
        mask = torch.zeros(rows, inputs, dtype=torch.bool)
        for part in mask.split(_ROWS_AT_ONCE):
            if self.with_replacement:
                chosen = torch.randint(inputs, (len(part), fan_in), generator=generator)
            else:
                # The places of the largest of so many random numbers are a uniform draw without replacement.
                chosen = torch.rand(part.shape, generator=generator).topk(fan_in, dim=1).indices
            part.scatter_(1, chosen, True)
        return mask


def _units(names: Sequence[str]) -> dict[str, list[str]]:
    """Weight matrices that feed the same units, in the order of their columns, by the units' name.

    Torch calls a recurrent layer's two ``weight_ih_l0`` and ``weight_hh_l0``, with ``_reverse`` for the other
    direction.
    """
    units: dict[str, list[str]] = {}
    for name in names:
        units.setdefault(name.replace("weight_ih_", "weight_").replace("weight_hh_", "weight_"), []).append(name)
    return units
