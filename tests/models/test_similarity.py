import math

import pytest
import torch
from torch import Tensor

from sparse_bench.models.similarity import draw_negatives, similarity_loss


def looped(
    inputs: Tensor, embeddings: Tensor, labels: Tensor, other_labels: Tensor, other_inputs: Tensor, constrain: bool
) -> Tensor:
    """The loss of each example, one similarity at a time."""
    losses = []
    for number, label in enumerate(labels.tolist()):
        own, truth = inputs[number], embeddings[label]
        input_label, label_input, input_input, label_label = [], [], [], []
        for other in other_labels[number].tolist():
            bad = -1e9 if other == label else 0.0
            input_label.append(own @ embeddings[other] + bad)
            label_label.append(truth @ embeddings[other] + bad)
        for other in other_inputs[number].tolist():
            bad = -1e9 if labels[other] == label else 0.0
            label_input.append(truth @ inputs[other] + bad)
            input_input.append(own @ inputs[other] + bad)
        positive = own @ truth
        compared = [positive, *input_label, *label_input]
        rest = [*input_input, *label_label]
        softmax = torch.stack(compared if constrain else compared + rest)
        loss = softmax.logsumexp(0) - positive
        if constrain:
            signs = [-1.0] + [1.0] * (len(compared) + len(rest) - 1)
            terms = [torch.nn.functional.softplus(s * x) for s, x in zip(signs, compared + rest, strict=True)]
            loss = loss + torch.stack(terms).mean()
        losses.append(loss)
    return torch.stack(losses)


def example(batch: int = 6, classes: int = 4, size: int = 3, negatives: int = 5) -> list[Tensor]:
    torch.manual_seed(0)
    return [
        torch.randn(batch, size, dtype=torch.float64, requires_grad=True),
        torch.randn(classes, size, dtype=torch.float64, requires_grad=True),
        torch.randint(classes, (batch,)),
        torch.randint(classes, (batch, negatives)),
        torch.randint(batch, (batch, negatives)),
    ]


def by_hand() -> list[Tensor]:
    """Two inputs and three labels in one dimension; one negative of each kind, for both examples good ones."""
    return [
        torch.tensor([[1.0], [2.0]]),
        torch.tensor([[3.0], [0.5], [-1.0]]),
        torch.tensor([0, 1]),
        torch.tensor([[1], [2]]),
        torch.tensor([[1], [0]]),
    ]


def test_by_hand_over_all_five_similarities():
    # Own label, input·label, label·input, input·input, label·label.
    first = [1 * 3, 1 * 0.5, 3 * 2, 1 * 2, 3 * 0.5]
    second = [2 * 0.5, 2 * -1, 0.5 * 1, 2 * 1, 0.5 * -1]
    expected = [math.log(sum(map(math.exp, row))) - row[0] for row in (first, second)]
    assert similarity_loss(*by_hand()).item() == pytest.approx(sum(expected) / 2, rel=1e-6)


def test_by_hand_with_constrained_similarities():
    rows = [[3, 0.5, 6, 2, 1.5], [1, -2, 0.5, 2, -0.5]]
    losses = []
    for row in rows:
        softmax = math.log(sum(map(math.exp, row[:3]))) - row[0]
        sigmoid = [math.log1p(math.exp(-row[0])), *(math.log1p(math.exp(value)) for value in row[1:])]
        losses.append(softmax + sum(sigmoid) / 5)
    loss = similarity_loss(*by_hand(), constrain_similarities=True)
    assert loss.item() == pytest.approx(sum(losses) / 2, rel=1e-6)


def test_a_negative_that_is_the_true_label_counts_for_nothing():
    inputs, embeddings, labels, *_ = by_hand()
    own = torch.tensor([[0], [1]])  # each example's own label, and each example itself
    loss = similarity_loss(inputs, embeddings, labels, own, own)
    assert loss.item() == 0
    same = similarity_loss(inputs, embeddings, torch.tensor([0, 0]), torch.tensor([[0], [0]]), torch.tensor([[1], [0]]))
    assert same.item() == 0  # another input with the same label is no negative either


@pytest.mark.parametrize("constrain", [False, True])
def test_it_is_the_loop_and_so_is_its_gradient(constrain: bool):
    tensors = example()
    loss = similarity_loss(*tensors, constrain_similarities=constrain)
    expected = looped(*tensors, constrain).mean()
    torch.testing.assert_close(loss, expected)
    for ours, right in zip(
        torch.autograd.grad(loss, tensors[:2]), torch.autograd.grad(expected, tensors[:2]), strict=True
    ):
        torch.testing.assert_close(ours, right)


def test_scaled_loss_counts_learned_examples_less_once_one_of_the_batch_is_learned():
    tensors = example()
    tensors[1].data = 3 * torch.eye(4, 3, dtype=torch.float64)
    tensors[0].data *= 0.1
    tensors[2][0], tensors[0].data[0] = 1, tensors[1].data[1]  # the first example is an easy one
    losses = looped(*tensors, False)
    probability = torch.exp(-losses.detach())
    assert probability.max() > 0.5
    loss = similarity_loss(*tensors, scale_loss=True)
    expected = (losses * ((1 - probability) / 0.5) ** 4).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, tensors[0]), torch.autograd.grad(expected, tensors[0]))


def test_scaled_loss_is_the_plain_one_until_then():
    tensors = example()
    tensors[0].data.zero_()  # all similarities with inputs are 0
    assert torch.exp(-looped(*tensors, False)).max() < 0.5
    assert torch.equal(similarity_loss(*tensors, scale_loss=True), similarity_loss(*tensors))


def test_autocast_leaves_it_in_single_precision():
    tensors = [tensor.float() if tensor.is_floating_point() else tensor for tensor in example()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = similarity_loss(*tensors)
    assert torch.equal(loss, similarity_loss(*tensors))


def test_negatives_are_uniform_with_replacement_over_all_candidates():
    """Shares to five standard deviations."""
    rows, count, candidates = 4000, 4, 50
    torch.manual_seed(0)
    drawn = draw_negatives(rows, count, candidates, torch.device("cpu"))
    assert drawn.shape == (rows, count)

    def close(share: Tensor, expected: float, draws: int) -> None:
        assert share.sub(expected).abs().max() < 5 * math.sqrt(expected * (1 - expected) / draws)

    close(torch.bincount(drawn.view(-1), minlength=candidates) / drawn.numel(), 1 / candidates, drawn.numel())
    repeated = torch.tensor([len(row.unique()) < count for row in drawn]).float().mean()
    close(repeated, 1 - math.perm(candidates, count) / candidates**count, rows)
    # Neither two examples nor two draws have the same ones, but by chance.
    close((drawn[1:] == drawn[:-1]).float().mean(), 1 / candidates, drawn[1:].numel())
    again = draw_negatives(rows, count, candidates, torch.device("cpu"))
    close((again == drawn).float().mean(), 1 / candidates, drawn.numel())
    torch.manual_seed(0)
    assert torch.equal(draw_negatives(rows, count, candidates, torch.device("cpu")), drawn)
