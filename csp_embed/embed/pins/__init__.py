"""Decisions that the user makes: from text to predicates on options and layouts."""
