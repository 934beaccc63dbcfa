"""Drawings of measurements: lines with bands, dots, and single runs. All statistics come from :mod:`.evidence`."""
