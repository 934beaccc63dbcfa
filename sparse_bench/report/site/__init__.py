"""The results as static pages, made from the committed tables alone; see :mod:`sparse_bench.report.site.build`."""
