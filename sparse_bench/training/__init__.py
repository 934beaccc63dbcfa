"""The one training loop, and what it is made of. Knows tasks and schemes by their interfaces alone."""
