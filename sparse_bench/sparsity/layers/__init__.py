"""The sparse layers: they hold and multiply only the weights that exist, and stand in for ordinary modules."""
