"""Judges of plans for several devices."""
