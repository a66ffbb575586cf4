"""Graph, platform and plan files."""
