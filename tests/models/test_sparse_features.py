import pytest
import torch
from torch import Tensor

from sparse_bench.batch import SparseRows
from sparse_bench.errors import ConfigError
from sparse_bench.models.dropout import keep_probability
from sparse_bench.models.regularization import Penalty
from sparse_bench.models.sparse_features import SparseProjection

#: Five rows over four features: the first, a middle and the last one empty, one with a feature twice.
ROWS = SparseRows(
    indices=torch.tensor([2, 0, 2, 3, 3]),
    offsets=torch.tensor([0, 0, 2, 2, 5]),
    values=torch.tensor([1.0, 2.0, -1.0, 0.5, 3.0]),
)
DENSE = torch.tensor([[0.0, 0, 0, 0], [2, 0, 1, 0], [0, 0, 0, 0], [0, 0, -1, 3.5], [0, 0, 0, 0]])


def projection(dropout: float = 0.0) -> SparseProjection:
    torch.manual_seed(0)
    module = SparseProjection(4, 3, dropout)
    torch.nn.init.normal_(module.bias)
    return module


def test_it_is_the_product_with_the_dense_matrix():
    module = projection()
    torch.testing.assert_close(module(ROWS), DENSE @ module.weight + module.bias)


def test_its_gradient_is_the_dense_one():
    module = projection()
    weights = torch.randn(5, 3)
    (module(ROWS) * weights).sum().backward()
    assert module.weight.grad is not None
    assert module.bias.grad is not None
    torch.testing.assert_close(module.weight.grad, DENSE.t() @ weights)
    torch.testing.assert_close(module.bias.grad, weights.sum(0))


@pytest.mark.parametrize("quirk", [False, True])
def test_the_penalty_s_gradient_joins_it(quirk: bool):
    module = projection()
    weights = torch.randn(5, 3)
    penalty = Penalty(only_where_positive=quirk)
    output = module(ROWS, penalty)
    torch.testing.assert_close(penalty.sum(), module.weight.square().sum())
    (2 * ((output * weights).sum() + 0.1 * penalty.sum())).backward()
    plain = 2 * DENSE.t() @ weights
    decay = 0.4 * module.weight
    assert module.weight.grad is not None
    torch.testing.assert_close(module.weight.grad, plain + (decay * (plain > 0) if quirk else decay))


def test_a_penalty_alone_has_its_gradient_too():
    module, penalty = projection(), Penalty()
    module(ROWS, penalty)
    penalty.sum().backward()
    assert module.weight.grad is not None
    torch.testing.assert_close(module.weight.grad, 2 * module.weight)


def test_glorot_over_the_full_fans_and_zero_bias():
    torch.manual_seed(0)
    module = SparseProjection(400, 200)
    limit = (6 / 600) ** 0.5
    assert module.weight.abs().max() <= limit
    assert module.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.02)
    assert not module.bias.any()


def test_sparse_dropout_drops_values_and_does_not_rescale():
    torch.manual_seed(0)
    count = 40_000
    module = SparseProjection(1, 1, 0.2)
    torch.nn.init.ones_(module.weight)
    rows = SparseRows(torch.zeros(count, dtype=torch.int64), torch.arange(count), torch.full((count,), 3.0))
    output = module(rows)
    assert set(output.detach().unique().tolist()) == {0.0, 3.0}
    share = (output != 0).float().mean().item()
    assert share == pytest.approx(keep_probability(0.2), abs=5 * (0.16 / count) ** 0.5)
    assert torch.equal(module.eval()(rows).detach(), torch.full((count, 1), 3.0))


def test_the_gradient_sees_the_same_dropped_values():
    module = projection(0.5)
    values: Tensor = torch.ones(5)
    rows = SparseRows(ROWS.indices, torch.arange(5), values)
    output = module(rows) - module.bias
    output.sum().backward()
    kept = (output.detach() != 0).any(1)
    expected = torch.zeros(4).index_add_(0, rows.indices, kept.float())
    assert module.weight.grad is not None
    torch.testing.assert_close(module.weight.grad, expected[:, None].expand(4, 3))


def test_a_bad_rate_is_refused():
    with pytest.raises(ConfigError, match="sparse_dropout"):
        SparseProjection(4, 3, 1.0)
