"""Tasks: each turns a corpus into batches, a loss and metrics."""
