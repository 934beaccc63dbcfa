"""Compiled attention against its definition in float64, in value and gradients."""

import pytest
import torch
from torch import Tensor

from sparse_bench.kernels.attention import LONGEST, Rows, attends, short_attention
from sparse_bench.kernels.cpu import kernel_available

pytestmark = pytest.mark.skipif(not kernel_available(), reason="there is no compiler")


def by_definition(
    query: Tensor, key: Tensor, value: Tensor, sentences: int, queries: Rows, keys: Rows, **settings: Tensor | None
) -> Tensor:
    """Sentence by sentence."""

    def span(rows: Rows, sentence: int) -> slice:
        if rows.start is None or rows.length is None:
            return slice(sentence * rows.longest, (sentence + 1) * rows.longest)
        first = int(rows.start[sentence])
        return slice(first, first + int(rows.length[sentence]))

    attended = []
    for sentence in range(sentences):
        own, others = span(queries, sentence), span(keys, sentence)
        logits = torch.einsum("thd,shd->hts", query[own], key[others]) / 3
        _, length, width = logits.shape
        if (bias := settings["bias"]) is not None:
            sizes = sentences, query.shape[1], queries.longest, keys.longest
            logits = logits + bias.expand(sizes)[sentence, :, :length, :width]
        weights = logits.softmax(2)
        if (keep := settings["keep"]) is not None:
            weights = weights * keep.view(sentences, -1, *keep.shape[1:])[sentence, :, :length, :width] * 1.25
        attended.append(torch.einsum("hts,shd->thd", weights, value[others]))
    return torch.cat(attended)


PADDED = (Rows(13), Rows(17))
LONG = (Rows(LONGEST), Rows(LONGEST))
PACKED = (Rows(5, torch.tensor([0, 3, 8]), torch.tensor([3, 5, 1])),) * 2
LAST = (Rows(1), PACKED[1])


@pytest.mark.parametrize("depth", [16, 64, 80])
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("bias", [None, (3, 1, 1), (1, 1, 0), (3, 4, 1)])
@pytest.mark.parametrize(
    "spans", [PADDED, (Rows(LONGEST),) * 2, PACKED, LAST], ids=["padded", "long", "packed", "last"]
)
def test_value_and_gradients(
    spans: tuple[Rows, Rows], bias: tuple[int, int, int] | None, dropout: bool, depth: int
) -> None:
    torch.manual_seed(0)
    sentences, heads, (queries, keys) = 3, 4, spans
    rows = [
        sentences * part.longest if part.length is None else int(part.length.sum()) for part in (queries, keys, keys)
    ]
    query, key, value = (torch.randn(count, heads, depth).bfloat16().requires_grad_() for count in rows)
    assert attends(query, depth, max(queries.longest, keys.longest))
    hidden = None
    if bias is not None:
        batch, of_heads, one = bias
        hidden = torch.where(torch.rand(batch, of_heads, 1 if one else queries.longest, keys.longest) < 0.3, -1e9, 0.0)
        hidden[..., 0] = 0
    keep = (torch.rand(sentences * heads, queries.longest, keys.longest) < 0.8).view(torch.uint8) if dropout else None
    grad = torch.randn_like(query)

    found = short_attention(
        query,
        key,
        value,
        sentences,
        queries,
        keys,
        scale=1 / 3,
        bias=hidden,
        keep=keep,
        factor=1.25 if dropout else 1.0,
    )
    gradients = torch.autograd.grad(found, (query, key, value), grad)

    precise = [tensor.detach().double().requires_grad_() for tensor in (query, key, value)]
    expected = by_definition(*precise, sentences, queries, keys, bias=hidden, keep=keep)
    right = torch.autograd.grad(expected, precise, grad.double())
    for ours, theirs in zip((found, *gradients), (expected, *right), strict=True):
        assert (ours.double() - theirs).norm() <= 0.01 * theirs.norm()


def test_the_same_bits_for_any_number_of_threads() -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(40 * 13, 4, 64).bfloat16().requires_grad_() for _ in range(3)]

    def results() -> tuple[Tensor, ...]:
        found = short_attention(*tensors, 40, Rows(13), Rows(13), scale=0.1)
        return found, *torch.autograd.grad(found, tensors, found.detach())

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = results()
        torch.set_num_threads(3)
        assert all(map(torch.equal, one, results()))
    finally:
        torch.set_num_threads(threads)


def test_what_it_is_not_for() -> None:
    x = torch.zeros(1, dtype=torch.bfloat16)
    assert attends(x, 64, 20)
    assert not attends(x, 64, LONGEST + 1)
    assert not attends(x, 20, 20)
    assert not attends(x.float(), 64, 20)
    assert not attends(x.to("meta"), 64, 20)
