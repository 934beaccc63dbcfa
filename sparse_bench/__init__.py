"""Sparse connectivity in language models: one trainer, any model, any scheme, any dataset."""

__version__ = "0.1.0"
