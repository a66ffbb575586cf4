"""Machines that are fed commands: their stages, program files, kernels and checks."""
