"""Sparse layers, which replace ordinary modules and store only the weights that exist."""
