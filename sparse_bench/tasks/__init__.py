"""What is learned: each task turns a corpus into batches, a loss and metrics."""
