"""Results on disk → tables, figures and one page. Reads result files only; never trains."""
