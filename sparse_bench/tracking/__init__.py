"""Where the metrics of a run go besides the JSON lines in its folder, which are always written."""
