import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_bench.batch import Layout
from sparse_bench.models.crf import crf_loss, viterbi


def score(emissions: Tensor, transitions: Tensor, tags: tuple[int, ...]) -> float:
    """Unnormalised score of one sequence's tags, by the definition."""
    total = sum(emissions[position, tag].item() for position, tag in enumerate(tags))
    return total + sum(transitions[a, b].item() for a, b in itertools.pairwise(tags))


def all_scores(emissions: Tensor, transitions: Tensor) -> dict[tuple[int, ...], float]:
    paths = itertools.product(range(emissions.shape[1]), repeat=emissions.shape[0])
    return {path: score(emissions, transitions, path) for path in paths}


def logsumexp(values: list[float]) -> float:
    largest = max(values)
    return largest + math.log(math.fsum(math.exp(value - largest) for value in values))


def enumerated_loss(emissions: Tensor, transitions: Tensor, tags: Tensor, lengths: list[int]) -> float:
    losses = []
    for sentence, gold in zip(emissions.split(lengths), tags.split(lengths), strict=True):
        scores = all_scores(sentence, transitions)
        losses.append(logsumexp(list(scores.values())) - scores[tuple(gold.tolist())])
    return sum(losses) / len(lengths)


def naive_loss(emissions: Tensor, transitions: Tensor, tags: Tensor, lengths: list[int]) -> Tensor:
    """The forward algorithm in the log domain, one sentence after the other, left to autograd."""
    losses = []
    for sentence, gold in zip(emissions.split(lengths), tags.split(lengths), strict=True):
        alpha = sentence[0]
        for emission in sentence[1:]:
            alpha = (alpha[:, None] + transitions).logsumexp(0) + emission
        best = sentence.gather(1, gold[:, None]).sum() + transitions[gold[:-1], gold[1:]].sum()
        losses.append(alpha.logsumexp(0) - best)
    return torch.stack(losses).mean()


def example(lengths: list[int], states: int, spread: float = 1.0, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(sum(lengths) + states)
    tokens = sum(lengths)
    emissions = spread * torch.randn(tokens, states, generator=generator, dtype=dtype)
    transitions = torch.randn(states, states, generator=generator, dtype=dtype)
    tags = torch.randint(states, (tokens,), generator=generator)
    return emissions, transitions, tags, Layout.of(lengths)


LENGTHS = [[1], [1, 1], [4], [1, 3], [3, 1, 2], [2, 5, 1, 4]]


def test_by_hand():
    # One token: the softmax of its emissions. Two tokens of two tags each: four paths with scores 0, 1, 2 and 1 + 2.
    emissions = torch.tensor([[0.0, math.log(3.0)], [0.0, 1.0], [0.0, 2.0]])
    transitions = torch.zeros(2, 2)
    loss = crf_loss(emissions, transitions, torch.tensor([1, 0, 1]), Layout.of([1, 2]))
    two = math.log(1 + math.e + math.e**2 + math.e**3) - 2
    assert loss.item() == pytest.approx((math.log(4 / 3) + two) / 2, rel=1e-6)


def test_a_transition_is_from_the_row_to_the_column():
    transitions = torch.tensor([[0.0, 5.0], [0.0, 0.0]])
    layout = Layout.of([2])
    likely = crf_loss(torch.zeros(2, 2), transitions, torch.tensor([0, 1]), layout)
    unlikely = crf_loss(torch.zeros(2, 2), transitions, torch.tensor([1, 0]), layout)
    assert likely.item() == pytest.approx(math.log(math.exp(5) + 3) - 5, rel=1e-5)
    assert unlikely.item() == pytest.approx(math.log(math.exp(5) + 3), rel=1e-5)
    assert viterbi(torch.zeros(2, 2), transitions, layout).tolist() == [0, 1]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("states", [1, 2, 3])
def test_the_loss_is_that_of_all_paths_enumerated(lengths: list[int], states: int):
    emissions, transitions, tags, layout = example(lengths, states)
    loss = crf_loss(emissions, transitions, tags, layout)
    assert loss.item() == pytest.approx(enumerated_loss(emissions, transitions, tags, lengths), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_gradient_is_that_of_a_naive_crf(lengths: list[int]):
    emissions, transitions, tags, layout = example(lengths, 5)
    emissions.requires_grad_()
    transitions.requires_grad_()
    ours = torch.autograd.grad(3 * crf_loss(emissions, transitions, tags, layout), (emissions, transitions))
    naive = torch.autograd.grad(3 * naive_loss(emissions, transitions, tags, lengths), (emissions, transitions))
    torch.testing.assert_close(ours, naive)


def test_gradcheck():
    emissions, transitions, tags, layout = example([3, 1, 2], 3)
    inputs = (emissions.requires_grad_(), transitions.requires_grad_())
    assert torch.autograd.gradcheck(lambda e, t: crf_loss(e, t, tags, layout), inputs)


@pytest.mark.parametrize("needs", [(True, False), (False, True)])
def test_either_gradient_alone(needs: tuple[bool, bool]):
    emissions, transitions, tags, layout = example([3, 1, 2], 3)
    inputs = [emissions.requires_grad_(needs[0]), transitions.requires_grad_(needs[1])]
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    ours = torch.autograd.grad(crf_loss(emissions, transitions, tags, layout), wanted)
    naive = torch.autograd.grad(naive_loss(emissions, transitions, tags, [3, 1, 2]), wanted)
    torch.testing.assert_close(ours, naive)


@pytest.mark.parametrize("spread", [30.0, 1000.0])
def test_large_scores_in_single_precision(spread: float):
    lengths = [24, 1, 9]
    emissions, transitions, tags, layout = example(lengths, 7, spread, torch.float32)
    transitions *= 5
    emissions.requires_grad_()
    transitions.requires_grad_()
    loss = crf_loss(emissions, transitions, tags, layout)
    precise = [emissions.detach().double().requires_grad_(), transitions.detach().double().requires_grad_()]
    expected = naive_loss(*precise, tags, lengths)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-4)
    gradients = torch.autograd.grad(loss, (emissions, transitions))
    for gradient, right in zip(gradients, torch.autograd.grad(expected, precise), strict=True):
        torch.testing.assert_close(gradient.double(), right, rtol=1e-3, atol=1e-4)


def test_a_sentence_does_not_depend_on_the_others():
    emissions, transitions, tags, layout = example([2, 5, 1], 4)
    together = crf_loss(emissions, transitions, tags, layout)
    alone = [
        crf_loss(e, transitions, t, Layout.of([len(t)]))
        for e, t in zip(emissions.split([2, 5, 1]), tags.split([2, 5, 1]), strict=True)
    ]
    torch.testing.assert_close(together, torch.stack(alone).mean())


def test_autocast_leaves_it_in_single_precision():
    emissions, transitions, tags, layout = example([4, 2], 5, dtype=torch.float32)
    expected = crf_loss(emissions, transitions, tags, layout)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = crf_loss(emissions, transitions, tags, layout)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    low = crf_loss(emissions.bfloat16(), transitions, tags, layout)
    torch.testing.assert_close(low, crf_loss(emissions.bfloat16().float(), transitions, tags, layout))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(1, 4), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_viterbi_finds_the_best_of_all_paths(lengths: list[int], states: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    emissions = torch.randn(sum(lengths), states, generator=generator, dtype=torch.float64)
    transitions = torch.randn(states, states, generator=generator, dtype=torch.float64)
    found = viterbi(emissions, transitions, Layout.of(lengths))
    assert found.dtype == torch.int64
    for sentence, tags in zip(emissions.split(lengths), found.split(lengths), strict=True):
        scores = all_scores(sentence, transitions)
        assert scores[tuple(tags.tolist())] == pytest.approx(max(scores.values()), abs=1e-12)


def test_meta():
    layout = Layout.of([3, 1]).to(torch.device("meta"))
    emissions = torch.zeros(4, 5, device="meta", requires_grad=True)
    transitions = torch.zeros(5, 5, device="meta", requires_grad=True)
    crf_loss(emissions, transitions, torch.zeros(4, dtype=torch.int64, device="meta"), layout).backward()
    assert emissions.grad is not None
    assert emissions.grad.shape == (4, 5)
    assert viterbi(emissions, transitions, layout).shape == (4,)
