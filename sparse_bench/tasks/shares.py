"""How a split relates to the training data: the share of examples seen in training, and of unknown tokens."""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping

from sparse_bench.errors import ConfigError

#: Limits on the share of unknown tokens. Above the first a result gets a warning; above the second a run is refused.
WARNED, REFUSED = 0.2, 0.6


def twin_share(train: Iterable[Hashable], held_out: Collection[Hashable]) -> float:
    """Share of the held-out examples, of which there is at least one, that are also training examples."""
    known = set(train)
    return sum(example in known for example in held_out) / len(held_out)


def refuse_unknown(shares: Mapping[str, float], setting: str) -> None:
    """Refuse text with a share of unknown tokens above :data:`REFUSED`.

    Args:
        shares: share of unknown tokens, by split.
        setting: the setting that decides which tokens are known, with its value (``dataset.min_count=5``).

    Raises:
        ConfigError: too many tokens of a split are unknown.
    """
    for split, share in shares.items():
        if share > REFUSED:
            raise ConfigError(
                f"With {setting}, {share:.0%} of the tokens of the split '{split}' are unknown. More than "
                f"{REFUSED:.0%} is refused, because metrics would mostly measure how often <unk> occurs. Change that "
                "setting to keep more tokens, or train on text that is more like the held-out text."
            )


def unknown_token_warnings(shares: Mapping[str, float]) -> Iterator[str]:
    """A warning for every split with a share of unknown tokens above :data:`WARNED`."""
    for split, share in shares.items():
        if share > WARNED:
            yield f"{share:.0%} of the tokens of the split '{split}' are unknown: they count in its metrics too."
