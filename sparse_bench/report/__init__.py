"""Results on disk → tables, figures and pages. Reads result files only; never trains.

python -m sparse_bench.report OUT             run folders → tidy tables, figures and one page, for whatever was run
python -m sparse_bench.report.collect         run folders → the committed tables of each paper
python -m sparse_bench.report.claims          committed tables → the ledger of claims
python -m sparse_bench.report.site OUT        committed tables → the pages of all papers, and results/README.md
"""
