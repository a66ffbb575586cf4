"""Instruction words: columns of field values and back, listings, arrays for compiled loops."""
