"""Trackers: more outputs for a run's metrics, in addition to the JSON lines that every run writes to its folder."""
