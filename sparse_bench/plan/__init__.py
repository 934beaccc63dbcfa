"""What reproducing the papers costs: the runs of every sweep, those that are left, and the hours that they take.

python -m sparse_bench.plan SWEEP …            the plan, from what was measured on this kind of device
python -m sparse_bench.plan --probe SWEEP …    first time a few steps of arms that nothing is known of

Nothing is trained to an end here; ``make`` runs the sweeps.
"""
