"""The claims of the reproduced documents, the rules that decide them, and their verdicts.

Each document has a file here, ``NAME.yaml``: what it claims, where, the published value, and the rules that decide it.
A rule is written before it is measured; one that was changed later says so (``revised``). They are sources, so they
live with the code and not among the results, which commands write; :mod:`~sparse_bench.report.claims.schema` describes
the vocabulary.
"""
