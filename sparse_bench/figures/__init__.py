"""Drawings of what runs measured: lines with bands, dots, and what single runs look like. Nothing here computes."""
