"""Numbers of parts of chosen texts, by hand."""

import numpy as np

from sparse_bench.tasks.ranges import ranges


def test_one_range_after_the_other() -> None:
    assert ranges(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
