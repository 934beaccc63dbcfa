"""What all runs say: one table, arms and their statistics, comparisons, and the verdicts on claims.

Figures and pages are made from it; it knows neither. Nothing here trains or draws.
"""
