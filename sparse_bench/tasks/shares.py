"""How a split relates to the training data: examples met there already, and tokens that the vocabulary lacks."""

import logging
from collections.abc import Collection, Hashable, Iterable, Mapping

from sparse_bench.errors import ConfigError

logger = logging.getLogger(__name__)

#: Shares of unknown tokens. Above the first, metrics speak for ``<unk>`` as well; above the second, for little else.
WARNED, REFUSED = 0.2, 0.6


def twin_share(train: Iterable[Hashable], held_out: Collection[Hashable]) -> float:
    """The share of held-out examples, at least one, that are training examples too."""
    known = set(train)
    return sum(example in known for example in held_out) / len(held_out)


def check_unknown(shares: Mapping[str, float], setting: str | None) -> None:
    """Warn of splits of which more than :data:`WARNED` of the tokens are unknown; refuse more than :data:`REFUSED`.

    Args:
        shares: of unknown tokens, by split.
        setting: what decides which tokens are known, with its value (``dataset.min_count=5``); None: nothing does, and
            nothing is refused.

    Raises:
        ConfigError: too many are unknown.
    """
    for split, share in shares.items():
        if share > REFUSED and setting is not None:
            raise ConfigError(
                f"With {setting}, {share:.0%} of the tokens of the split '{split}' are unknown. Metrics would say "
                f"little more than how often <unk> occurs: over {REFUSED:.0%} is refused. Let that setting keep more "
                "tokens, or train on text that is more like the held-out one."
            )
        if share > WARNED:
            cause = f" with {setting}" if setting is not None else ""
            logger.warning(
                "%.0f %% of the tokens of the split '%s' are unknown%s; its metrics speak for <unk> as well",
                100 * share,
                split,
                cause,
            )
