"""Compilers and emulators: what is written is made into a library or a program, and run."""
