"""Sparse connectivity for any torch model: topologies, sparse weights, schemes, counts."""
