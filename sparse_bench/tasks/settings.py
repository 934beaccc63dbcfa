"""Checks of settings that several tasks have."""

from collections.abc import Sequence

from sparse_bench.errors import ConfigError


def pair(name: str, values: Sequence[int]) -> tuple[int, int]:
    """The setting ``name``, two whole numbers: sizes of the first and the last batch, lengths of n-grams.

    Raises:
        ConfigError: there are not two, or one is below 1.
    """
    if len(values) != 2 or min(values) < 1:
        raise ConfigError(f"{name} is {list(values)}; it has to be two whole numbers of at least 1.")
    return values[0], values[1]
