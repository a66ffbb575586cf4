"""Pieces of a quantised network as programs: what the partitioner prices and `run-plan` runs."""
