"""The chain from an operator to a checked program: stages in order, the kernel that comes out,
sweeps."""
