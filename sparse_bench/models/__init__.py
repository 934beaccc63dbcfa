"""Models: ordinary torch modules, one file each. None of this code is about sparsity."""
