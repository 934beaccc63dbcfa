"""What a dynamic scheme is composed of: which connections go, which come, when, and how many."""
