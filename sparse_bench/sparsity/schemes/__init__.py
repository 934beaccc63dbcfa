"""The sparsity schemes, one per file."""
