"""Multi30k-like: a generated parallel corpus in the style of image captions, which needs no download."""

from sparse_bench.data.multi30k_like.corpus import multi30k_like

__all__ = ["multi30k_like"]
