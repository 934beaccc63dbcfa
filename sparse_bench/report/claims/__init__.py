"""The claims of the reproduced documents, the rules that decide them, and their verdicts.

Each document has a file here, ``NAME.yaml``: what it claims, where, the published value, and rules that were written
before anything was measured. They are sources, so they live with the code and not among the results, which commands
write; :mod:`~sparse_bench.report.claims.schema` describes the vocabulary.
"""
