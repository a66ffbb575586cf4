"""Stages one after the other: contiguous placements, and where one device runs one subgraph."""
