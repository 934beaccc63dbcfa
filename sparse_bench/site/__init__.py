"""Pages of the papers' results, and reports of one's own runs, made from tables alone."""
