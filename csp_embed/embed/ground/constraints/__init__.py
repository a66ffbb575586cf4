"""Constraint families of the ground model, one rule of the embedding problem per file."""
