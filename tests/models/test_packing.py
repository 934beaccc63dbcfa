import torch

from sparse_bench.batch import Layout
from sparse_bench.models.packing import spread, take


def test_spread_lays_rows_on_the_grid_and_its_gradient_comes_from_real_cells_alone():
    layout = Layout.of([1, 3])
    x = torch.arange(8.0).view(4, 2).requires_grad_()
    grid = spread(x, layout.grid.reshape(-1), layout.cell)
    assert grid.tolist() == [[0, 1], [0, 1], [0, 1], [2, 3], [4, 5], [6, 7]]
    grid.backward(torch.arange(12.0).view(6, 2))
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 1], [6, 7], [8, 9], [10, 11]]


def test_take_picks_rows_and_its_gradient_puts_them_back():
    x = torch.arange(8.0).view(4, 2).requires_grad_()
    rows = torch.tensor([3, 1])
    taken = take(x, rows)
    assert taken.tolist() == [[6, 7], [2, 3]]
    taken.backward(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 0], [3, 4], [0, 0], [1, 2]]


def test_there_and_back_again():
    layout = Layout.of([2, 5, 1])
    x = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    assert torch.equal(take(spread(x, layout.grid.reshape(-1), layout.cell), layout.cell), x)
    assert torch.autograd.gradcheck(lambda x: take(x.repeat(2, 1), torch.tensor([9, 0, 15, 4])), (x,))
