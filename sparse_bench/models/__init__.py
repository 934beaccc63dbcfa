"""Ordinary torch modules, one file or folder a model. No word about sparsity here."""
