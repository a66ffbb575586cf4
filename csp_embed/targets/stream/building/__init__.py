"""Schedules of streams from decisions: rows, places, covers of loops, tokens."""
