"""Parts of a dynamic scheme: what to remove, what to grow, when, and how much."""
