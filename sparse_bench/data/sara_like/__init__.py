"""Sara-like: generated corpora in the style of an assistant's training data. They need no download."""

from sparse_bench.data.sara_like.booking import dialogues
from sparse_bench.data.sara_like.nlu import sara_like

__all__ = ["dialogues", "sara_like"]
