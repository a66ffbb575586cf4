"""Exact models: CP-SAT, MILP, and those of the dnn-partitioning cost model."""
