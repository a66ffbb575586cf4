"""Certifies the program of a quantised network, layer by layer."""
