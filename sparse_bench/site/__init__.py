"""Pages: what the papers' runs say, and a report of one's own runs. Everything here is made from tables."""
