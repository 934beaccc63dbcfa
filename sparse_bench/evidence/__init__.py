"""Evidence from all runs: one table, arms with statistics, comparisons, and verdicts on claims.

Figures and pages are made from it; it imports neither. Nothing here trains or draws.
"""
