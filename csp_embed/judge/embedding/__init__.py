"""Judges of embeddings, coverings and their certificates, and the bound on cycles."""
