"""Machines whose loops run in a CPU: their stages, C files, kernels, measurements and checks."""
