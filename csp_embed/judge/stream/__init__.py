"""Judges of streams: instructions, tokens, and every element that a program touches."""
