"""Searches for placements, each valued by exact maximum flow (search.py is what they share)."""
