"""How a split relates to the training data: examples met there already, and tokens that the vocabulary lacks."""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping

from sparse_bench.errors import ConfigError

#: Shares of unknown tokens. Above the first, metrics speak for ``<unk>`` as well; above the second, for little else.
WARNED, REFUSED = 0.2, 0.6


def twin_share(train: Iterable[Hashable], held_out: Collection[Hashable]) -> float:
    """The share of held-out examples, at least one, that are training examples too."""
    known = set(train)
    return sum(example in known for example in held_out) / len(held_out)


def refuse_unknown(shares: Mapping[str, float], setting: str) -> None:
    """Refuse text of which more than :data:`REFUSED` is unknown.

    Args:
        shares: of unknown tokens, by split.
        setting: what decides which tokens are known, with its value (``dataset.min_count=5``).

    Raises:
        ConfigError: too many tokens of a split are unknown.
    """
    for split, share in shares.items():
        if share > REFUSED:
            raise ConfigError(
                f"With {setting}, {share:.0%} of the tokens of the split '{split}' are unknown. Metrics would say "
                f"little more than how often <unk> occurs: over {REFUSED:.0%} is refused. Let that setting keep more "
                "tokens, or train on text that is more like the held-out one."
            )


def many_unknown(shares: Mapping[str, float]) -> Iterator[str]:
    """A sentence for every split of which more than :data:`WARNED` is unknown."""
    for split, share in shares.items():
        if share > WARNED:
            yield f"{share:.0%} of the tokens of the split '{split}' are unknown: its metrics speak for them as well."
