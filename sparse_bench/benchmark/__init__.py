"""The benchmark: every scheme on every task at equal weights. docs/benchmark.md has its rules.

tasks.py        the tasks, their metrics and counted baselines
rates.py        the choice of learning rates
cells.py        from the table of runs to cells: task, scheme, density
statistics.py   normalised scores, and their summaries over tasks
questions.py    the questions that were asked before the runs, and the rules that answer them
tables.py       tables for readers
figures.py      figures
"""
