"""Estimate the cost of sweeps: how many runs each has, how many are left, and how many hours they take.

python -m sparse_bench.plan SWEEP …            the plan, from measurements on this type of device
python -m sparse_bench.plan --probe SWEEP …    first time a few steps of arms without measurements

This trains no model to the end; ``make`` runs the sweeps.
"""
