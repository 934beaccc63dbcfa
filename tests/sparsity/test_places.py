"""Where a mask is true, and values on the host."""

import numpy as np
import pytest
import torch

from sparse_bench.sparsity.places import on_host, places_of


def test_places_are_numbered_along_the_rows() -> None:
    mask = torch.tensor([[False, True, True], [False, False, True]])
    found = places_of(mask)
    assert found.tolist() == [1, 2, 5]
    assert found.dtype == torch.int64
    assert places_of(mask.T).tolist() == [2, 4, 5]  # a view that is not contiguous
    assert places_of(torch.zeros(3, dtype=torch.bool)).tolist() == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_every_type_of_number_comes_to_the_host(dtype: torch.dtype) -> None:
    values = torch.tensor([3.0, 1.0, 1.0 + 2**-40], dtype=dtype, requires_grad=True)
    found = on_host(values)
    assert found.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    assert found.tolist() == values.tolist()
