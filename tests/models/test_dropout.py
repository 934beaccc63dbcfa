import pytest
import torch

from sparse_bench.errors import ConfigError
from sparse_bench.kernels import dropout as compiled
from sparse_bench.models.dropout import Dropout, keep_mask, keep_probability


def test_a_rate_becomes_the_nearest_multiple_of_2_to_the_minus_16():
    assert keep_probability(0.2) == 1 - 13107 / 65536
    assert keep_probability(0.5) == 0.5
    assert keep_probability(0.0) == 1.0


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_a_rate_outside_its_range_is_refused(rate: float):
    with pytest.raises(ConfigError, match="numbers from 0 to less than 1"):
        Dropout(rate)


def test_evaluation_mode_and_rate_zero_change_nothing_and_draw_nothing():
    x = torch.randn(5, 3)
    state = torch.get_rng_state()
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_elements_are_dropped_at_the_rate_and_the_others_divided_by_the_true_keep_probability(rate: float):
    torch.manual_seed(0)
    dropped = Dropout(rate)(torch.ones(1000, 401))
    kept = dropped != 0
    assert torch.equal(dropped[kept], torch.full((int(kept.sum()),), 1 / keep_probability(rate)))
    assert kept.float().mean().item() == pytest.approx(1 - rate, abs=5 * (rate * (1 - rate) / kept.numel()) ** 0.5)


def test_all_four_coins_of_a_draw_are_fair():
    torch.manual_seed(0)
    shares = keep_mask(torch.Size((100_000, 4)), 0.3, torch.device("cpu")).float().mean(0)
    torch.testing.assert_close(shares, torch.full((4,), 0.7), atol=5 * (0.21 / 100_000) ** 0.5, rtol=0)


def test_coins_of_a_draw_are_independent():
    torch.manual_seed(0)
    coins = keep_mask(torch.Size((100_000, 4)), 0.5, torch.device("cpu")).double()
    correlation = torch.corrcoef(coins.t()) - torch.eye(4)
    assert correlation.abs().max() < 5 / 100_000**0.5


@pytest.mark.parametrize("shape", [(), (1,), (3,), (4, 5), (2, 3, 7), (0, 4)])
def test_every_shape(shape: tuple[int, ...]):
    x = torch.ones(shape)
    assert Dropout(0.5)(x).shape == shape
    mask = keep_mask(x.shape, 0.5, x.device)
    assert mask.dtype == torch.uint8
    assert mask.element_size() == 1


def test_the_gradient_passes_where_the_value_did():
    x = torch.randn(40, 30, dtype=torch.float64).exp().requires_grad_()
    y = Dropout(0.3)(x)
    weights = torch.randn_like(y)
    (gradient,) = torch.autograd.grad((y * weights).sum(), x)
    torch.testing.assert_close(gradient, weights * y.detach() / x.detach())


def test_restoring_the_default_generator_restores_the_noise():
    dropout, x = Dropout(0.2), torch.randn(7, 13)
    state = torch.get_rng_state()
    first, second = dropout(x), dropout(x)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x), first)
    assert torch.equal(dropout(x), second)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_type_is_kept(dtype: torch.dtype):
    x = torch.ones(8, 8, dtype=dtype, requires_grad=True)
    y = Dropout(0.5)(x)
    assert y.dtype == dtype
    assert set(y.detach().double().unique().tolist()) <= {0.0, 2.0}
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


def test_meta():
    x = torch.ones(8, 8, device="meta", requires_grad=True)
    Dropout(0.5)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.shape == (8, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(), (3,), (5, 7), (0, 4), (3, 2049), (50, 1001)])
def test_compiled_code_gives_the_bits_of_torch(
    dtype: torch.dtype, threads: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
):
    torch.manual_seed(1)
    weights = torch.randn(shape).to(dtype)
    x = torch.randn(shape).to(dtype).requires_grad_()
    state, earlier_threads = torch.get_rng_state(), torch.get_num_threads()

    def results(earlier: int) -> list[torch.Tensor]:
        torch.set_rng_state(state)
        torch.empty(earlier, dtype=torch.int32).random_()
        y = Dropout(0.3)(x)
        mask = keep_mask(torch.Size((3, 5)), 0.7, x.device)
        (gradient,) = torch.autograd.grad(y, x, weights)
        return [y.detach(), gradient, mask, torch.get_rng_state(), torch.randn(2)]

    torch.set_num_threads(threads)
    before = (0, 1, 622, 623, 624)
    found = [tensor for earlier in before for tensor in results(earlier)]
    torch.set_num_threads(earlier_threads)
    monkeypatch.setattr(compiled, "_library", lambda: None)
    expected = [tensor for earlier in before for tensor in results(earlier)]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours.reshape(-1).view(torch.uint8), theirs.reshape(-1).view(torch.uint8))


def test_the_second_derivative():
    x = torch.randn(40, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(Dropout(0.3)(x**3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(second * x.detach(), 2 * first.detach())
