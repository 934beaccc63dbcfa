"""What the tests of sparsity share."""

from collections.abc import Iterator

import pytest

from sparse_bench.sparsity.kernels import auto


@pytest.fixture(autouse=True, scope="session")
def _choices_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What ``auto`` measures during the tests is not kept among the user's choices."""
    path = tmp_path_factory.mktemp("auto") / "auto.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "cache_file", lambda: path)
        yield
