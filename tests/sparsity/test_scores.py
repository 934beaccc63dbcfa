"""Scores of weights before training: by hand, against autograd, and by their laws of conservation."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sparse_bench as sb
from sparse_bench.batch import Batch, Loss
from sparse_bench.batch.base import as_logits
from sparse_bench.errors import ConfigError
from sparse_bench.run import run
from sparse_bench.sparsity.ranking import lamp
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.sparsity.scores import Logits, gradients, grasp, hessian_product, kept, linear, scored, snip, synflow
from tests.toy import ToyBatch, ToyTask

MATRIX = torch.tensor(
    [
        [1.0, -2.0, 0.5, 0.0, 1.5, -0.5],
        [0.25, 1.0, -1.0, 2.0, 0.5, 0.5],
        [-1.5, 0.5, 1.0, -0.25, 0.0, 1.0],
        [2.0, 1.0, 0.5, 0.5, -1.0, 0.25],
    ]
)


def mlp(*widths: int, bias: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [nn.Linear(narrow, wide, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def classified(model: nn.Module) -> Iterator[Tensor]:
    for number in range(4):
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(number))
        yield F.cross_entropy(model(x), (x[:, 0] > 0).long())


def weights_of(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.dim() == 2]


def test_snip_by_hand() -> None:
    """L = Σ_ij c_j w_ij over two batches with c and 3 c: g_ij = 2 c_j in the mean."""
    model = nn.Sequential(nn.Linear(6, 4, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(MATRIX)
    c = torch.tensor([1.0, -1.0, 2.0, 1.0, 0.0, 4.0])
    found = snip(model, ["0.weight"], lambda m: ((k * m(c)).sum() for k in (1.0, 3.0)), 2, seed=0)["0.weight"]
    assert torch.equal(found, MATRIX.abs() * torch.tensor([2.0, 2.0, 4.0, 2.0, 0.0, 8.0]))
    # Rows of scores: 2 4 2 0 0 4 / .5 2 4 4 0 4 / 3 1 4 .5 0 8 / 4 2 2 1 0 2. Of equal ones the first.
    chosen = kept({"0.weight": found}, 7 / 24)["0.weight"].nonzero().tolist()
    assert chosen == [[0, 1], [0, 5], [1, 2], [1, 3], [1, 5], [2, 2], [2, 5]]


def test_grasps_hessian_product_against_second_derivatives() -> None:
    model = mlp(6, 8, 3).double()

    def losses(m: nn.Module) -> Iterator[Tensor]:
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(0)).to(m[0].weight.dtype)
        yield F.cross_entropy(m(x).tanh(), (x[:, 0] > 0).long())

    names = weights_of(model)
    parameters = [model.get_parameter(name) for name in names]
    with Logits(200.0):
        (loss,) = losses(model)
        g = torch.autograd.grad(loss, parameters, create_graph=True)
        exact = torch.autograd.grad(sum((one * one.detach()).sum() for one in g), parameters)
        product = hessian_product(model, names, losses, 1, seed=0)
        single = hessian_product(model.float(), names, losses, 1, seed=0)
    scale = max(part.abs().max() for part in exact)
    for name, expected in zip(names, exact, strict=True):
        assert torch.allclose(product[name], expected, atol=1e-4 * scale)
        assert torch.allclose(single[name].double(), expected, atol=1e-2 * scale)


def test_the_temperature_divides_the_logits_wherever_they_are() -> None:
    x, y = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    for loss in (lambda: F.cross_entropy(x, y), lambda: F.cross_entropy(input=x, target=y)):
        with Logits(200.0) as logits:
            value = loss()
        assert torch.equal(value, F.cross_entropy(x / 200, y))
        assert len(logits.found) == 1
    with Logits(2.0):
        assert torch.equal(as_logits(x), x / 2)
        assert torch.equal(x.softmax(1), torch.softmax(x, 1))
    assert as_logits(x) is x


def test_grasp_keeps_what_preserves_the_flow_of_the_gradient() -> None:
    """Removing the same number by the opposite order leaves a smaller gradient, to first order."""
    model = mlp(6, 16, 16, 2)
    names = weights_of(model)
    scores = grasp(model, names, classified, 4, seed=0, temperature=1.0)
    signs = {True: scores, False: {name: -score for name, score in scores.items()}}

    def norm_after(rule: bool) -> float:
        masks = kept(signs[rule], 0.9)
        with scored(model, 0) as twin:
            with torch.no_grad():
                for name in names:
                    twin.get_parameter(name).mul_(torch.where(masks[name], 1.0, 0.9))
            found = gradients(twin, names, classified, 4, seed=0)
        return sum(float(one.square().sum()) for one in found.values())

    assert norm_after(True) > norm_after(False)


def test_synflow_is_conserved_from_layer_to_layer() -> None:
    model = mlp(6, 9, 5, 7, 2).double()

    def losses(m: nn.Module) -> Iterator[Tensor]:
        yield F.cross_entropy(m(torch.randn(1, 6, dtype=torch.float64)), torch.tensor([0]))

    names = weights_of(model)
    first = model[0].weight.detach().abs()
    linear(model, names, 1.0)
    scores = synflow(model, names, losses, 1.0)
    sums = [float(score.sum()) for score in scores.values()]
    assert sums == pytest.approx([sums[0]] * 4)
    # Each score of the first layer by hand: |w_ij| times the sum of all absolute paths from unit i.
    paths = torch.ones(1, 2, dtype=torch.float64)
    for place in (6, 4, 2):
        paths = paths @ model[place].weight.detach()
    assert torch.allclose(scores[names[0]], first * paths.T)


@pytest.mark.parametrize("selected", [True, False])
def test_synflow_puts_ones_after_the_embedding_or_into_a_selected_one(selected: bool) -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.norm, self.output = nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 3, bias=False)

        def forward(self, words: Tensor) -> Tensor:
            return self.output(self.norm(self.table(words)))

    model = Words()
    table, output = model.table.weight.detach().abs(), model.output.weight.detach().abs()
    names = ["output.weight", *(["table.weight"] if selected else [])]
    linear(model, names, 1.0)
    words = torch.tensor([0, 3])
    scores = synflow(model, names, lambda m: iter([F.cross_entropy(m(words), words.clamp(max=2))]), 1.0)
    if selected:
        assert torch.allclose(scores["table.weight"], 2 * table * output.sum(0))
        assert scores["table.weight"].sum() == pytest.approx(scores["output.weight"].sum().item())
    else:
        assert torch.allclose(scores["output.weight"], 2 * output)


def test_synflow_ranks_scores_beyond_single_precision() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(12)))
    for layer in model:
        nn.init.uniform_(layer.weight, 20, 200)  # (64 · 110)^12 is about 1e46
    first = model[0].weight.detach().clone()

    def losses(model: nn.Module) -> Iterator[Tensor]:
        yield F.cross_entropy(model(torch.ones(2, 64)), torch.tensor([0, 1]))

    sb.sparsify(model, torch.optim.Adam(model.parameters()), sb.SynFlow(density=0.5, rounds=2), steps=3, losses=losses)
    assert all(0 < int((layer.weight != 0).sum()) < 64 * 64 for layer in model)
    kept = model[0].weight != 0
    assert torch.equal(model[0].weight[kept], first[kept])
    assert model[0].weight.dtype is torch.float32


def losses_of(model: nn.Module) -> Iterator[Tensor]:
    return classified(model)


SCHEMES: dict[str, Callable[[], Scheme]] = {
    "snip": lambda: sb.SNIP(density=0.3),
    "grasp": lambda: sb.GraSP(density=0.3),
    "synflow": lambda: sb.SynFlow(density=0.3, rounds=5),
}


@pytest.mark.parametrize("execution", ["masked", "csr"])
@pytest.mark.parametrize("name", SCHEMES)
def test_scoring_is_exact_repeatable_and_leaves_no_trace(name: str, execution: str) -> None:
    masks = []
    for _ in range(2):
        model = mlp(6, 16, 2, bias=True)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        state = torch.get_rng_state()
        scheme = SCHEMES[name]()
        scheme.execution = execution
        optimizer = torch.optim.Adam(model.parameters())
        sparse = sb.sparsify(model, optimizer, scheme, steps=3, losses=losses_of)
        assert torch.equal(torch.get_rng_state(), state)
        masks.append({key: weight.mask for key, weight in sparse.scheme.weights.items()})
        assert sum(weight.active for weight in sparse.scheme.weights.values()) == round(0.3 * 128)
        for key, weight in sparse.scheme.weights.items():
            assert torch.equal(weight.dense(), before[key] * weight.mask)
        assert all(parameter.grad is None for parameter in model.parameters())
        assert model.training
    assert all(torch.equal(masks[0][key], masks[1][key]) for key in masks[0])


def test_synflow_prunes_in_rounds_and_does_not_lose_a_layer() -> None:
    """At 100 rounds a narrow layer keeps weights; in one shot it loses all, as its own weights pass on less each."""
    left = {}
    for rounds in (1, 100):
        model = mlp(6, 300, 6, 2)
        scheme = sb.SynFlow(density=0.01, rounds=rounds)
        sb.sparsify(model, torch.optim.Adam(model.parameters()), scheme, steps=3, losses=losses_of)
        left[rounds] = min(weight.active for weight in scheme.weights.values())
    assert left[100] > 0


def test_what_cannot_be_scored_is_told() -> None:
    model = mlp(6, 16, 2)
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(ConfigError, match=r"SNIP scores the weights with training batches, and there are none"):
        sb.sparsify(model, optimizer, sb.SNIP(density=0.3), steps=3)
    with pytest.raises(ConfigError, match="no training batches to score the weights with"):
        sb.sparsify(model, optimizer, sb.SNIP(density=0.3), steps=3, losses=lambda m: iter([]))
    with pytest.raises(ConfigError, match="SynFlow needs the logits of a cross-entropy"):
        sb.sparsify(model, optimizer, sb.SynFlow(density=0.3), steps=3, losses=lambda m: iter([m(torch.ones(6)).sum()]))


class Recorded(ToyTask):
    """Remembers the first number of each batch, and draws noise."""

    seen: ClassVar[list[float]] = []

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        assert isinstance(batch, ToyBatch)
        if model.training:
            self.seen.append(float(batch.points[0, 0] + torch.rand(())))
        return super().loss(model, batch)


def test_training_sees_the_batches_and_the_noise_of_a_run_that_scores_nothing(toy_config: Any, tmp_path: Path) -> None:
    seen = []
    recorded = "tests.sparsity.test_scores.Recorded"
    for name in ("random.Random", "snip.SNIP", "grasp.GraSP"):
        Recorded.seen.clear()
        sparsity = {"_target_": f"sparse_bench.sparsity.schemes.{name}"}
        result = run(toy_config(sparsity=sparsity, output=str(tmp_path), dataset___target_=recorded))
        assert result.status == "finished", result.error
        assert result.counts["sparse_layers"] == 192
        seen.append(list(Recorded.seen))
    assert len(seen[0]) == 18
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("kind", ["snip", "lamp"])
def test_scores_share_a_density_among_layers(kind: str) -> None:
    """SNIP's and LAMP's numbers of weights, at places of RigL's own."""
    model = mlp(6, 16, 2)
    names = weights_of(model)
    wanted = {name: weight.detach() for name, weight in model.named_parameters()}
    with scored(model, 0) as twin:
        scores = snip(twin, names, classified, 8, 0) if kind == "snip" else {name: lamp(wanted[name]) for name in names}
    counts = {name: int(mask.sum()) for name, mask in kept(scores, 0.3).items()}
    for scheme in (sb.Random(density=0.3, distribution=kind), sb.RigL(density=0.3, distribution=kind)):
        model = mlp(6, 16, 2)
        sparse = sb.sparsify(model, torch.optim.Adam(model.parameters()), scheme, steps=900, losses=losses_of)
        assert {name: weight.active for name, weight in sparse.scheme.weights.items()} == counts
        assert sum(counts.values()) == round(0.3 * 128)
    if kind == "snip":
        model = mlp(6, 16, 2)
        with pytest.raises(ConfigError, match="distribution=snip needs training batches"):
            sb.sparsify(model, torch.optim.Adam(model.parameters()), sb.Random(density=0.3, distribution=kind), steps=1)
