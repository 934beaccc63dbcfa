"""SparseLang's scheme: fan-ins of the published table, initialisers, and what is refused."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparse_bench.errors import ConfigError
from sparse_bench.models.sparse_features import SparseProjection
from sparse_bench.sparsity import meta_init
from sparse_bench.sparsity.schemes.random_fan_in import RandomFanIn
from sparse_bench.streams import Streams

#: Published densities → fan-ins of a gate unit in the two layers (600 + 2500 and 2500 + 2500 inputs).
PUBLISHED = {0.0005: (1, 2), 0.001: (3, 5), 0.002: (6, 10), 0.005: (15, 25), 0.01: (31, 50)}


def stack(*widths: int) -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(nn.LSTM(narrow, wide) for narrow, wide in pairwise(widths))


def pattern_scheme(**settings: object) -> RandomFanIn:
    return RandomFanIn(layers=["*weight_*"], **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(("density", "fan_ins"), PUBLISHED.items())
def test_published_fan_ins(density: float, fan_ins: tuple[int, int]) -> None:
    shapes = {f"{n}.weight_{kind}_l0": (8, width) for n, inputs in enumerate((600, 2500))
              for kind, width in (("ih", inputs), ("hh", 2500))}  # fmt: skip
    masks = RandomFanIn(density=density).first_topology(shapes, Streams(0))
    for n, fan_in in enumerate(fan_ins):
        together = torch.cat([masks[f"{n}.weight_{kind}_l0"] for kind in ("ih", "hh")], dim=1)
        assert together.sum(1).eq(fan_in).all()


@pytest.mark.parametrize(
    ("density", "inputs", "fan_in"), [(0.29, 100, 29), (0.57, 100, 57), (0.1, 10, 1), (0.19, 10, 1)]
)
def test_a_fan_in_is_that_of_decimal_numbers(density: float, inputs: int, fan_in: int) -> None:
    """0.29 · 100 is 28.999… in binary."""
    mask = RandomFanIn(density=density).first_topology({"0.weight": (3, inputs)}, Streams(0))["0.weight"]
    assert mask.sum(1).tolist() == [fan_in] * 3


def test_weights_at_reduced_scale() -> None:
    """256 units on 60 inputs with the paper's fan-ins: weights of both layers, and one bias a gate."""
    model = stack(60, 256, 256)
    wanted = {0.004: 5_120, 0.0098: 10_240, 0.0196: 18_432, 0.049: 43_008, 0.0982: 84_992}
    for density, count in wanted.items():
        scheme = pattern_scheme(density=density)
        scheme.attach(stack(60, 256, 256), Streams(0))
        biases = sum(parameter.numel() for name, parameter in model.named_parameters() if "bias_ih" in name)
        assert sum(weight.active for weight in scheme.weights.values()) + biases == count
    assert sum(parameter.numel() for name, parameter in model.named_parameters() if "bias_hh" not in name) == 849_920


@settings(max_examples=25, deadline=None)
@given(density=st.floats(0.05, 0.99), inputs=st.integers(1, 30), hidden=st.integers(1, 20), seed=st.integers(0, 9))
def test_every_unit_hears_as_many_inputs(density: float, inputs: int, hidden: int, seed: int) -> None:
    fan_in = int(density * (inputs + hidden) + 1e-9)
    shapes = {"weight_ih_l0": (4 * hidden, inputs), "weight_hh_l0": (4 * hidden, hidden)}
    scheme, streams = RandomFanIn(density=density), Streams(seed)
    if fan_in < 1:
        with pytest.raises(ConfigError, match="without a weight"):
            scheme.first_topology(shapes, streams)
        return
    masks = scheme.first_topology(shapes, streams)
    assert (masks["weight_ih_l0"].sum(1) + masks["weight_hh_l0"].sum(1)).eq(fan_in).all()
    again = scheme.first_topology(shapes, streams)
    assert all(torch.equal(masks[name], again[name]) for name in shapes)


@pytest.mark.parametrize("with_replacement", [False, True])
def test_units_draw_their_inputs_each_for_itself(with_replacement: bool) -> None:
    scheme = RandomFanIn(density=0.1, with_replacement=with_replacement)
    mask = scheme.first_topology({"0.weight": (2000, 50)}, Streams(0))["0.weight"]
    assert len(mask.unique(dim=0)) > 1900  # of 2,118,760 choices
    assert mask.sum(0).min() > 130  # each of 50 inputs is heard by 200 of the 2,000 units, or 10 × 19.2 = 192


def test_drawn_with_replacement_a_unit_may_have_fewer_weights() -> None:
    shapes = {"0.weight": (500, 10)}
    mask = RandomFanIn(density=0.5, with_replacement=True).first_topology(shapes, Streams(0))["0.weight"]
    fan_in = mask.sum(1)
    assert fan_in.max() == 5
    assert fan_in.min() < 5
    # Ten places, five draws: 10 (1 - 0.9^5) = 4.095 different ones on average.
    assert abs(fan_in.float().mean().item() - 4.095) < 0.15


@pytest.mark.parametrize("execution", ["masked", "kernel"])
def test_initial_weights(execution: str) -> None:
    def largest(**settings: object) -> float:
        model = stack(60, 64)
        pattern_scheme(execution=execution, **settings).attach(model, Streams(0))
        weights = [parameter for name, parameter in model.named_parameters() if "weight" in name]
        return max(float(weight.detach().abs().max()) for weight in weights)

    fan_in = 12  # of 124 inputs
    weights = 4 * 64 * fan_in
    close = {"rel": 0.02}
    assert largest(density=0.1) == pytest.approx(math.sqrt(3 / fan_in), **close)
    assert largest(density=0.1, initial="report") == pytest.approx(0.1, **close)
    assert largest(density=0.01, initial="report") == pytest.approx(0.1, **close)  # from 0.01 on
    assert largest(density=0.1, initial="model") == pytest.approx(1 / math.sqrt(64), **close)
    assert largest(density=1.0) == pytest.approx(math.sqrt(3 / 124), **close)
    tiny = pattern_scheme(density=0.0097, initial="report", execution=execution)  # one input a unit
    model = stack(60, 64)
    tiny.attach(model, Streams(0))
    active = sum(weight.active for weight in tiny.weights.values())
    assert active == 4 * 64
    assert max(float(w.dense().abs().max()) for w in tiny.weights.values()) == pytest.approx(
        math.sqrt(3 / active), **close
    )
    assert weights == sum(weight.active for weight in _attached(0.1, execution).weights.values())


def _attached(density: float, execution: str) -> RandomFanIn:
    scheme = pattern_scheme(density=density, execution=execution)
    scheme.attach(stack(60, 64), Streams(0))
    return scheme


def test_both_executions_start_from_the_same_weights() -> None:
    masked, kernel = _attached(0.1, "masked"), _attached(0.1, "kernel")
    for name, weight in masked.weights.items():
        assert torch.equal(weight.dense(), kernel.weights[name].dense())


def test_directions_of_a_recurrent_layer_are_apart() -> None:
    model = nn.ModuleList([nn.LSTM(5, 4, bidirectional=True)])
    scheme = pattern_scheme(density=0.34)
    scheme.attach(model, Streams(0))
    for suffix in ("", "_reverse"):
        masks = [scheme.weights[f"0.weight_{kind}_l0{suffix}"].mask for kind in ("ih", "hh")]
        assert torch.cat(masks, dim=1).sum(1).eq(3).all()


def test_unknown_initialiser() -> None:
    with pytest.raises(ConfigError, match="fan_in, model, report"):
        RandomFanIn(initial="magic")


def test_a_matrix_whose_rows_are_inputs_is_refused() -> None:
    model = nn.Sequential(SparseProjection(6, 4))
    with pytest.raises(ConfigError, match=r"The rows of '0\.weight' \(SparseProjection\) are inputs"):
        RandomFanIn(density=0.5, layers=["*weight"]).attach(model, Streams(0))


class Widths:
    """Builds the same layers every time, and counts how often."""

    def __init__(self, *widths: int) -> None:
        self.sizes, self.built = widths, 0

    def __call__(self, **settings: object) -> nn.ModuleList:
        self.built += 1
        return stack(*self.sizes)

    def widths(self) -> list[dict[str, object]]:
        return []


def test_large_matrices_are_never_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recurrent matrix [64, 16] of the second layer is too large here, the others are not."""
    settings = {"density": 0.3, "execution": "csr"}
    ordinary, wanted = stack(4, 8, 16), pattern_scheme(**settings)
    wanted.attach(ordinary, Streams(0))
    monkeypatch.setattr(meta_init, "LARGEST", 1000)
    factory, scheme = Widths(4, 8, 16), pattern_scheme(**settings)
    model = scheme.build(factory)
    assert [name for name, p in model.named_parameters() if p.is_meta] == ["1.weight_hh_l0"]
    scheme.attach(model, Streams(0))
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    for name, weight in scheme.weights.items():
        assert torch.equal(weight.dense(), wanted.weights[name].dense())
        assert weight.dense().abs().max() > 0


@pytest.mark.parametrize("settings", [{"execution": "masked"}, {"initial": "model"}, {"layers": ["0.weight_*"]}])
def test_matrices_whose_numbers_are_needed_are_filled(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meta_init, "LARGEST", 1000)
    scheme = RandomFanIn(**{"density": 0.3, "execution": "csr", "layers": ["*weight_*"], **settings})  # type: ignore[arg-type]
    model = scheme.build(Widths(4, 8, 16))
    assert not any(parameter.is_meta for parameter in model.parameters())
